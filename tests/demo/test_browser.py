"""The page in Chromium on a real photograph, beside the Python runtime on the same graphs.

The graphs are those of `brightness_model`; `test_released_in_browser` has a released model.
"""

import json
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from brightness_model import write_brightness_model
from driven_page import DrivenPage, ListeningServer, mask_iou, open_browser, served

import edgeseg
from edgeseg.demo.site import build_site, read_site, write_site
from edgeseg.demo.web_runtime import find_runtime
from edgeseg.errors import MissingExtraError
from edgeseg.images import read_image
from edgeseg.prompts import Prompt
from edgeseg.run_lengths import decode_rle, encode_rle


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return write_brightness_model(tmp_path_factory.mktemp("model") / "export")


@pytest.fixture(scope="module")
def segmenter(export):
    return edgeseg.load(export)


@pytest.fixture(scope="module")
def site(export):
    try:
        return build_site(export, find_runtime())
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def astronaut(tmp_path_factory):
    """A photograph of 400 x 512 pixels, height x width, as a file."""
    data = pytest.importorskip("skimage.data")
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    cv2.imwrite(str(path), data.astronaut()[:400, :, ::-1])
    return path


@pytest.fixture(scope="module")
def image(astronaut):
    return read_image(astronaut)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def server(site):
    with served(ListeningServer(site)) as server:
        yield server


@pytest.fixture(scope="module")
def browser(server, downloads):
    with open_browser(downloads) as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(browser, server, downloads, astronaut, image):
    """The page with the photograph, loaded once for all tests that only point at it."""
    page = DrivenPage(browser, downloads).load(server.url)
    return page.open_photo(astronaut, image.shape[:2])


@pytest.fixture
def shown(opened):
    """The page with the photograph and nothing pointed at yet."""
    if opened.part("clear").is_enabled():
        opened.press("clear")
    return opened


@pytest.fixture(scope="module")
def encoded(segmenter, image):
    return segmenter.encode(image)


def test_the_page_runs_on_webassembly_with_threads_where_there_is_no_gpu(shown):
    assert shown.state("provider") == "wasm"
    assert int(shown.state("threads")) >= 1
    assert shown.text("model") == "brightness · 128 px"
    assert shown.browser.execute_script("return crossOriginIsolated")


def test_a_click_gives_the_mask_of_python_as_a_picture_and_as_run_lengths(
    shown, segmenter, encoded
):
    point_xy = shown.click(200, 120)
    mask, document = shown.saved_mask()

    expected = segmenter.segment_click(encoded, point_xy)
    assert mask.shape == (400, 512)
    assert set(np.unique(mask)) == {0, 255}
    assert mask_iou(mask == 255, expected.masks[0]) >= 0.98
    (row,) = document["masks"]
    assert row["segmentation"] == encode_rle(mask == 255)
    assert row["score"] == pytest.approx(float(expected.scores[0]), abs=1e-3)
    assert document["image"] == "astronaut.png"
    assert shown.text("status") in ("Saved astronaut-mask.json.", "Saved astronaut-mask.png.")


def test_another_size_is_the_next_answer_of_python(shown, segmenter, encoded):
    point_xy = shown.click(300, 200)
    shown.press("size")
    mask, _ = shown.saved_mask()

    expected = segmenter.segment_click(encoded, point_xy)
    assert len(expected) > 1
    assert mask_iou(mask == 255, expected.masks[1]) >= 0.98
    assert mask_iou(expected.masks[0], expected.masks[1]) < 0.9  # which would be another test


def test_a_box_and_a_negative_click_give_the_masks_of_python(shown, segmenter, encoded):
    box_xyxy = shown.drag((330, 300), (120, 60))  # from the bottom right
    box_mask, _ = shown.saved_mask()
    point_xy = shown.click(260, 120, shift=True)
    both_mask, _ = shown.saved_mask()

    x1, y1, x0, y0 = box_xyxy
    box = (x0, y0, x1, y1)
    box_only, both = segmenter.segment(
        encoded, [Prompt(box_xyxy=box), Prompt([point_xy], [0], box_xyxy=box)]
    ).masks
    assert mask_iou(box_mask == 255, box_only) >= 0.98
    assert mask_iou(both_mask == 255, both) >= 0.98
    assert mask_iou(box_only, both) < 0.9


def test_a_click_can_exclude_by_its_button_too(shown, segmenter, encoded):
    first = shown.click(200, 120)
    shown.part("exclude").click()
    second = shown.click(300, 120)
    shown.part("include").click()
    mask, _ = shown.saved_mask()

    (expected,) = segmenter.segment(encoded, Prompt([first, second], [1, 0])).masks
    assert mask_iou(mask == 255, expected) >= 0.98


def test_undo_and_clear_go_back(shown):
    shown.click(200, 120)
    first, _ = shown.saved_mask()
    shown.click(300, 200)
    shown.press("undo")
    again, _ = shown.saved_mask()
    shown.press("clear")

    np.testing.assert_array_equal(first, again)
    assert not shown.part("png").is_enabled()
    assert not shown.part("undo").is_enabled()


def test_hovering_previews_the_mask_and_leaving_takes_it_away(shown):
    def picture():
        script = "return document.getElementById('canvas').toDataURL()"
        return shown.browser.execute_script(script)

    shown.move(5, -20)  # above the photo
    empty = picture()
    shown.move(200, 120)
    shown.wait(lambda: picture() != empty)
    shown.move(5, -20)
    shown.wait(lambda: picture() == empty)

    assert not shown.part("png").is_enabled()  # a preview is no answer


def test_everything_mode_finds_the_objects_of_python(shown, segmenter, image):
    shown.press("everything")
    document = json.loads(shown.saved("json"))
    numbers = shown.saved("png")

    expected = segmenter.segment_everything(image)
    rows = expected.to_sam()
    assert document["image"] == {"file_name": "astronaut.png", "height": 400, "width": 512}
    assert len(document["annotations"]) == len(rows) > 3
    ours = [decode_rle(row["segmentation"]) for row in document["annotations"]]
    for row in rows:  # those of almost one size may have changed places
        theirs = decode_rle(row["segmentation"])
        assert max(mask_iou(mask, theirs) for mask in ours) >= 0.98
    areas_px = [row["area"] for row in document["annotations"]]
    assert areas_px == [np.count_nonzero(mask) for mask in ours]
    assert areas_px == sorted(areas_px, reverse=True)
    assert numbers.max() <= len(rows)
    np.testing.assert_array_equal(numbers > 0, np.logical_or.reduce(ours))


def test_one_of_all_objects_can_be_chosen_and_saved(shown):
    shown.press("everything")
    everything = json.loads(shown.saved("json"))
    with shown.answered():
        shown.type("n")
    assert shown.text("status").startswith(f"Object 1 of {len(everything['annotations'])}: ")
    mask, document = shown.saved_mask()
    shown.press("everything")

    assert document["masks"][0]["segmentation"] == encode_rle(mask == 255)
    saved = [row["segmentation"] for row in everything["annotations"]]
    assert document["masks"][0]["segmentation"] in saved
    assert not shown.part("png").is_enabled()  # everything mode was left


def test_all_can_be_done_by_keyboard(browser, server, site, downloads, segmenter):
    """From the address to a saved mask without a pointer."""
    from selenium.webdriver.common.keys import Keys

    page = DrivenPage(browser, downloads).load(server.url)
    for _ in range(12):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element.get_attribute("data-sample") == "cat.jpg":
            break
    with page.answered():
        browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "canvas"
    page.type(*[Keys.ARROW_LEFT] * 3, *[Keys.ARROW_UP] * 2)  # each a fortieth of 451 pixels
    with page.answered():
        page.type(Keys.ENTER)
    picture, _ = page.saved_mask()
    page.type("b", *[Keys.ARROW_RIGHT] * 8, *[Keys.ARROW_DOWN] * 6)
    with page.answered():
        page.type("b")
    boxed, _ = page.saved_mask()
    with page.answered():
        page.type(Keys.BACKSPACE)
    undone, _ = page.saved_mask()

    image = read_image(site["samples/cat.jpg"])
    height, width = image.shape[:2]
    step = width / 40
    point = (width / 2 - 3 * step, height / 2 - 2 * step)
    box = (*point, point[0] + 8 * step, point[1] + 6 * step)
    encoded = segmenter.encode(image)
    assert mask_iou(picture == 255, segmenter.segment_click(encoded, point).masks[0]) >= 0.98
    (expected,) = segmenter.segment(encoded, Prompt([point], box_xyxy=box)).masks
    assert mask_iou(boxed == 255, expected) >= 0.98
    np.testing.assert_array_equal(picture, undone)


def test_a_phone_has_all_tools_under_the_thumb(
    browser, server, downloads, astronaut, image, segmenter, encoded
):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        page = DrivenPage(browser, downloads).load(server.url)
        page.open_photo(astronaut, image.shape[:2])
        for name in ("point", "box", "include", "exclude", "everything", "undo", "png", "json"):
            place = page.part(name).rect
            assert place["width"] >= 44  # what a thumb hits
            assert place["height"] >= 44
            assert place["x"] >= 0
            assert place["x"] + place["width"] <= 390
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390

        screen, point_xy = page.on_screen(200, 120)
        with page.answered():
            page.touch("touchStart", *screen)
            page.touch("touchEnd")
        tapped, _ = page.saved_mask()
        screen, negative_xy = page.on_screen(300, 120)
        with page.answered():  # held for longer than a tap: not on the object
            page.touch("touchStart", *screen)
        page.touch("touchEnd")
        pressed, _ = page.saved_mask()
        page.press("clear")
        page.part("box").click()
        (begin, first), (end, last) = page.on_screen(120, 60), page.on_screen(330, 300)
        with page.answered():
            page.touch("touchStart", *begin)
            page.touch("touchMove", *end)
            page.touch("touchEnd")
        boxed, _ = page.saved_mask()
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    assert mask_iou(tapped == 255, segmenter.segment_click(encoded, point_xy).masks[0]) >= 0.98
    prompts = [Prompt([point_xy, negative_xy], [1, 0]), Prompt(box_xyxy=(*first, *last))]
    expected = segmenter.segment(encoded, prompts).masks
    assert mask_iou(pressed == 255, expected[0]) >= 0.98
    assert mask_iou(boxed == 255, expected[1]) >= 0.98


def test_a_photo_that_was_turned_is_upright_and_a_large_one_is_whole(
    browser, server, downloads, image, segmenter, tmp_path
):
    pillow = pytest.importorskip("PIL.Image")
    large = cv2.resize(image, (5200, 4100), interpolation=cv2.INTER_CUBIC)
    exif = pillow.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    path = tmp_path / "large.jpg"
    pillow.fromarray(large).save(path, quality=92, exif=exif)
    upright = read_image(path)
    assert upright.shape == (5200, 4100, 3)

    page = DrivenPage(browser, downloads).load(server.url)
    page.open_photo(path, upright.shape[:2])
    point_xy = page.click(2600, 2300)
    mask, document = page.saved_mask()

    expected = segmenter.segment_click(segmenter.encode(upright), point_xy).masks[0]
    assert mask.shape == (5200, 4100)
    assert mask_iou(mask == 255, expected) >= 0.98
    assert document["masks"][0]["segmentation"]["size"] == [5200, 4100]


def test_a_file_that_is_no_picture_is_refused_and_the_photo_stays(shown, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no picture")

    shown.part("file").send_keys(str(path))
    shown.wait(lambda: shown.text("error"))

    assert "cannot read notes.txt as a picture; choose a JPEG, PNG" in shown.text("error")
    shown.click(200, 120)  # and the photo that was open can still be pointed at
    assert shown.part("png").is_enabled()


def test_the_policy_stops_every_connection_to_another_place(shown, site):
    with served(ListeningServer(site)) as elsewhere:
        script = """
            const [url, done] = arguments;
            const stopped = [];
            addEventListener("securitypolicyviolation", (e) => stopped.push(e.effectiveDirective));
            const tries = [
              () => fetch(url, { method: "POST", body: "a photo", mode: "no-cors" }),
              () => new Promise((ok, no) => {
                const image = new Image();
                image.onload = ok;
                image.onerror = () => no(new Error("stopped"));
                image.src = url + "icon.svg";
              }),
              () => { if (!navigator.sendBeacon(url, "a photo")) throw new Error("stopped"); },
              () => import(url + "app.js"),
            ];
            Promise.allSettled(tries.map(async (attempt) => attempt())).then((results) =>
              setTimeout(() => done([results.map((result) => result.status), stopped]), 300));
        """
        outcomes, stopped = shown.browser.execute_async_script(script, elsewhere.url)

        assert elsewhere.requests == []
    assert outcomes[0] == outcomes[1] == outcomes[3] == "rejected"
    assert {"connect-src", "img-src", "script-src-elem"} <= set(stopped)


def test_the_worker_with_the_photo_has_the_same_policy(shown):
    script = """
        const [done] = arguments;
        const source = "fetch('https://example.invalid/').catch(() => {});" +
          "addEventListener('securitypolicyviolation', (e) => postMessage(e.blockedURI));";
        const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
        const worker = new Worker(url, { type: "module" });
        worker.onmessage = ({ data }) => done(data);
    """

    assert "example.invalid" in shown.browser.execute_async_script(script)


def test_nothing_but_files_was_asked_of_the_server_and_nothing_was_wrong(shown, server):
    methods = {method for method, _ in server.requests}
    found = [path for _, path in server.requests if path.startswith("/model/encoder.onnx?sha256=")]

    assert methods == {"GET"}
    assert found
    shown.log()  # of tests that ask for trouble
    shown.click(200, 120)
    assert shown.log() == []


def test_a_static_host_that_sends_no_headers_serves_the_page_without_threads(
    browser, site, downloads, astronaut, image, segmenter, encoded, tmp_path
):
    write_site(site, tmp_path / "site")

    class Plain(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = partial(Plain, directory=str(tmp_path / "site"))
    with served(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as host:
        page = DrivenPage(browser, downloads).load(f"http://127.0.0.1:{host.server_port}/")
        threads = page.state("threads")
        page.open_photo(astronaut, image.shape[:2])
        point_xy = page.click(200, 120)
        mask, _ = page.saved_mask()
        fetched = browser.execute_async_script(
            "fetch('https://example.invalid/').then(() => arguments[0]('came'),"
            " () => arguments[0]('stopped'))"
        )

    assert threads == "1"
    assert mask_iou(mask == 255, segmenter.segment_click(encoded, point_xy).masks[0]) >= 0.98
    assert fetched == "stopped"  # the policy stands in the page itself


def test_a_model_that_wants_normalised_numbers_gets_them(
    browser, downloads, astronaut, image, tmp_path
):
    export = write_brightness_model(tmp_path / "export", normalises=False)
    with served(ListeningServer(build_site(export, find_runtime()))) as server:
        page = DrivenPage(browser, downloads).load(server.url)
        page.open_photo(astronaut, image.shape[:2])
        point_xy = page.click(200, 120)
        mask, _ = page.saved_mask()

    segmenter = edgeseg.load(export)
    expected = segmenter.segment_click(segmenter.encode(image), point_xy).masks[0]
    assert mask_iou(mask == 255, expected) >= 0.98


def test_a_photo_chosen_before_the_model_is_here_is_opened_afterwards(
    browser, server, downloads, astronaut
):
    page = DrivenPage(browser, downloads)
    browser.get(server.url)
    page.part("file").send_keys(str(astronaut))

    page.wait(lambda: page.state("state") == "ready")

    assert page.text("status").startswith("astronaut.png, 512 × 400.")


def test_a_page_opened_as_a_file_says_that_it_has_to_be_served(browser, site):
    browser.get(site["index.html"].as_uri())

    page = DrivenPage(browser, None)
    assert "serve the folder with edgeseg demo" in page.text("status")
    assert page.state("state") == "loading"


def test_an_upload_without_its_model_says_so(browser, site, downloads, tmp_path):
    write_site(site, tmp_path / "site")
    shutil.rmtree(tmp_path / "site" / "model")
    (tmp_path / "site" / "model").mkdir()
    (tmp_path / "site" / "model" / "export.json").write_text('{"files": []}')

    with served(ListeningServer(read_site(tmp_path / "site"))) as server:
        page = DrivenPage(browser, downloads).load(server.url)

        assert page.state("state") == "failed"
        assert page.text("error") == (
            "the model has no encoder and decoder; export it with --target web"
        )
