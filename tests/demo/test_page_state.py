"""What the page remembers: steps, the newest wish, the browser's abilities and the manifest."""

import pytest


def test_steps_are_taken_back_one_by_one_and_an_older_box_returns(page):
    found = page(
        """
        const { History } = await load("history.js");
        const history = new History();
        const prompts = [];
        history.addBox([0, 0, 4, 4]);
        history.addPoint(1, 2, 0);
        history.addBox([1, 1, 2, 2]);
        prompts.push(history.prompt);
        history.undo();
        prompts.push(history.prompt);
        history.undo();
        history.undo();
        prompts.push(history.prompt);
        return { prompts, isEmpty: history.isEmpty, more: history.undo() };
        """
    )

    point = {"x": 1, "y": 2, "label": 0}
    assert found["prompts"] == [
        {"points": [point], "box": [1, 1, 2, 2]},
        {"points": [point], "box": [0, 0, 4, 4]},
        {"points": [], "box": None},
    ]
    assert (found["isEmpty"], found["more"]) == (True, False)


@pytest.mark.parametrize(
    ("first", "second", "box"),
    [
        ((8, 9), (2, 3), [2, 3, 8, 9]),  # drawn from the bottom right
        ((-5, 2), (25, 40), [0, 2, 20, 10]),  # beyond an image of 20 x 10
        ((3, 3), (3.5, 9), None),  # thinner than a pixel
    ],
)
def test_a_box_has_its_corners_in_order_and_inside_the_photo(page, first, second, box):
    found = page(
        'const { boxBetween } = await load("history.js");'
        "const [a, b] = values.corners.map(([x, y]) => ({ x, y }));"
        "return boxBetween(a, b, { imageWidth: 20, imageHeight: 10 });",
        corners=[first, second],
    )

    assert found == box


def test_of_jobs_that_wait_only_the_newest_is_done(page):
    found = page(
        """
        const { Newest } = await load("newest.js");
        const newest = new Newest();
        const done = [];
        const job = (number) => async () => { done.push(number); await null; };
        await Promise.all([1, 2, 3].map((number) => newest.run(job(number))));
        const last = newest.run(job(4));
        newest.run(job(5));
        newest.cancel();
        await last;
        return done;
        """
    )

    assert found == [1, 3, 4]


@pytest.mark.parametrize(
    ("search", "wanted"), [("", "auto"), ("?provider=wasm", "wasm"), ("?provider=cuda", "auto")]
)
def test_the_address_of_the_page_may_name_the_provider(page, search, wanted):
    body = 'return (await load("capability.js")).wantedProvider(values.search);'

    assert page(body, search=search) == wanted


@pytest.mark.parametrize(
    ("is_isolated", "processors", "threads"), [(True, 8, 4), (True, 2, 2), (False, 8, 1)]
)
def test_threads_need_a_page_that_is_isolated(page, is_isolated, processors, threads):
    body = 'return (await load("capability.js")).numThreads(...values.given);'

    assert page(body, given=[is_isolated, processors]) == threads


def test_what_a_browser_lacks_is_named(page):
    found = page(
        """
        const { whatIsMissing } = await load("capability.js");
        const before = whatIsMissing(); // node has neither workers nor pictures
        const { validate } = WebAssembly;
        WebAssembly.validate = () => false;
        const withoutSimd = whatIsMissing();
        WebAssembly.validate = validate;
        Object.assign(globalThis, { Worker: class {}, createImageBitmap: () => {} });
        return { before, withoutSimd, after: whatIsMissing() };
        """
    )

    assert found["before"].startswith("This browser has no workers, no createImageBitmap, so")
    assert "no WebAssembly SIMD, no workers" in found["withoutSimd"]
    assert found["after"] == ""


def manifest_of(image_name="image_rgb", dtype="uint8", roles=("encoder", "decoder", "proposals")):
    tensors = {
        "encoder": [{"name": image_name, "dtype": dtype}],
        "decoder": [{"name": "point_labels", "dtype": "int64"}],
        "proposals": [],
    }
    files = [
        {"role": role, "path": f"{role}.onnx", "sha256": "ab", "size_bytes": 7}
        | {"inputs": tensors[role]}
        for role in roles
    ]
    return {"model": "m", "precision": "float32", "image_size": 64, "licence": "l", "files": files}


DESCRIBE = """
const { describe } = await load("manifest.js");
try { return describe(values.manifest, "https://example.org/model/"); }
catch (error) { return error.message; }
"""


def test_the_manifest_tells_where_the_graphs_are(page):
    found = page(DESCRIBE, manifest=manifest_of())

    assert found["graphs"]["decoder"] == {
        "url": "https://example.org/model/decoder.onnx?sha256=ab",
        "sizeBytes": 7,
    }
    assert list(found["graphs"]) == ["encoder", "decoder", "proposals"]
    assert (found["imageSize"], found["imageName"]) == (64, "image_rgb")
    assert found["labelType"] == "int64"


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (manifest_of(roles=("encoder",)), "no encoder and decoder; export it with --target web"),
        (manifest_of(dtype="float16"), "takes image_rgb as float16; export it with --target web"),
        (manifest_of("image", "float16"), "takes image as float16"),
    ],
)
def test_a_model_that_the_page_cannot_feed_is_refused(page, manifest, reason):
    assert reason in page(DESCRIBE, manifest=manifest)


def test_colours_of_neighbouring_objects_differ(page):
    body = 'const { objectRgb } = await load("tint.js"); return values.indices.map(objectRgb);'

    colours = page(body, indices=list(range(100)))

    for first, second in zip(colours, colours[1:], strict=False):
        assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) > 100
        assert all(0 <= value <= 255 for value in first)


def test_a_mask_is_coloured_inside_with_an_outline(page):
    found = page(
        """
        const { tintOf } = await load("tint.js");
        const crop = { pixels: new Uint8Array(25).fill(1), width: 5, height: 5 };
        crop.pixels[0] = 0;
        return tintOf(crop, [10, 20, 30], 99, 1);
        """
    ).reshape(5, 5, 4)

    assert found[0, 0].tolist() == [0, 0, 0, 0]
    assert found[2, 2].tolist() == [10, 20, 30, 99]
    assert (found[[0, 2, 4, 2], [2, 0, 2, 4], 3] == 255).all()
