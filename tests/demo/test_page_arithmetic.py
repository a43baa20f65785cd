"""The page's modules beside the Python they follow, on the same numbers."""

import cv2
import numpy as np
import pytest

from edgeseg.geometry import ModelFrame, content_size_hw
from edgeseg.mask_crop import MaskCrop
from edgeseg.postprocess import choose_mask, crop_of_logits
from edgeseg.preprocess import preprocess
from edgeseg.prompt_packing import pack_prompts
from edgeseg.prompts import Prompt
from edgeseg.run_lengths import encode_crop, encode_rle
from edgeseg.runtime.model_input import model_input

SHAPES_HW = [(48, 64), (64, 48), (5, 7), (64, 64), (1, 100), (150, 37), (33, 96), (63, 65)]
"""Larger and smaller than the 64 pixels of the models here, and of one size with them."""

SCALE = """
const { makeFrame } = await load("frame.js");
const { PixelScaler, normalised } = await load("pixels.js");
return values.photos.map(({ rgba, height, width, bands }) => {
  const frame = makeFrame(width, height, 64);
  const scaler = new PixelScaler(frame);
  let row = 0;
  for (const rows of bands) {
    scaler.addRows(rgba.subarray(4 * width * row, 4 * width * (row + rows)));
    row += rows;
  }
  const bytes = scaler.finish();
  return { frame, bytes, floats: normalised(bytes, frame) };
});
"""


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*image_hw, 3), np.uint8) for image_hw in SHAPES_HW]


@pytest.fixture(scope="module")
def scaled(page, photos):
    """What the page makes of the photos, given in bands of one row and the rest."""
    given = []
    for photo in photos:
        height, width = photo.shape[:2]
        rgba = np.dstack([photo, np.full((height, width), 77, np.uint8)])
        bands = [1, height - 1] if height > 1 else [1]
        given.append({"rgba": rgba.ravel(), "height": height, "width": width, "bands": bands})
    return page(SCALE, photos=given)


def test_a_photo_has_the_frame_of_python(scaled):
    for image_hw, answer in zip(SHAPES_HW, scaled, strict=True):
        frame = ModelFrame(image_hw, 64)
        found = answer["frame"]
        assert (found["contentHeight"], found["contentWidth"]) == frame.content_hw
        assert [found["scaleX"], found["scaleY"]] == frame.scale_xy.tolist()


def test_sides_are_rounded_as_in_python(page):
    sides = [1, 2, 3, 7, 63, 64, 65, 640, 1000, 1365, 2048, 3000, 4032]
    pairs = [(short, long) for long in sides for short in sides if short <= long]

    found = page(
        'const { contentSide } = await load("frame.js");'
        "return values.pairs.map(([s, l]) => values.sizes.map((size) => contentSide(s, l, size)));",
        pairs=pairs,
        sizes=[64, 192, 384, 512, 1024],
    )

    assert found == [
        [content_size_hw((short, long), size)[0] for size in (64, 192, 384, 512, 1024)]
        for short, long in pairs
    ]


def test_few_scaled_pixels_differ_from_opencv_and_by_one_at_most(scaled, photos):
    for photo, answer in zip(photos, scaled, strict=True):
        expected = model_input(photo, 64, normalises=True).astype(int)
        differences = np.abs(answer["bytes"].reshape(64, 64, 3) - expected)
        height, width = content_size_hw(photo.shape[:2], 64)
        assert differences.max() <= 1
        assert differences.mean() < 0.15  # OpenCV rounds in between when it enlarges
        assert not differences[height:].any()  # the padding
        assert not differences[:, width:].any()


def test_a_photo_that_shrinks_by_a_whole_number_is_exact(page):
    photo = np.zeros((2, 128, 3), np.uint8)
    photo[0, 1] = 8, 1, 3  # a cell of four pixels: 8/4, 1/4 and 3/4

    (answer,) = page(
        SCALE,
        photos=[
            {
                "rgba": np.dstack([photo, photo[..., :1]]).ravel(),
                "height": 2,
                "width": 128,
                "bands": [2],
            }
        ],
    )

    assert answer["bytes"].reshape(64, 64, 3)[0, 0].tolist() == [2, 0, 1]


def test_pixels_are_normalised_as_in_python_for_graphs_that_do_not(scaled, photos):
    for photo, answer in zip(photos, scaled, strict=True):
        expected = preprocess(photo, 64)[0]
        found = answer["floats"].reshape(3, 64, 64)
        height, width = content_size_hw(photo.shape[:2], 64)
        assert np.abs(found - expected).max() < 1.01 / 57  # one step of 255, over the deviation
        assert not found[:, height:].any()
        assert not found[:, :, width:].any()


def test_a_photo_with_a_missing_row_is_refused(page):
    found = page(
        'const { makeFrame } = await load("frame.js");'
        'const { PixelScaler } = await load("pixels.js");'
        "try { new PixelScaler(makeFrame(4, 3, 64)).finish(); } catch (e) { return e.message; }"
    )

    assert found == "a photo of 3 rows gave 0; open it again"


CROP = """
const { makeFrame } = await load("frame.js");
const { cropOfLogits } = await load("masks.js");
const { encodeCrop } = await load("run_lengths.js");
return values.cases.map(({ logits, height, width }) => {
  const crop = cropOfLogits(logits, makeFrame(width, height, 64));
  return { crop, rle: encodeCrop(crop) };
});
"""


def logits_of(seed):
    logits = np.random.default_rng(seed).normal(size=(16, 16)).astype(np.float32)
    logits[3:6] = -1  # rows that hold nothing
    return logits


def test_masks_have_the_pixels_of_python_and_so_have_their_run_lengths(page):
    shapes = [*SHAPES_HW, (1500, 400)]
    cases = [
        {"logits": logits_of(seed).ravel(), "height": height, "width": width}
        for seed, (height, width) in enumerate(shapes)
    ]

    found = page(CROP, cases=cases)

    for seed, (image_hw, answer) in enumerate(zip(shapes, found, strict=True)):
        expected = crop_of_logits(logits_of(seed), ModelFrame(image_hw, 64))
        crop = answer["crop"]
        assert (crop["left"], crop["top"]) == expected.offset_xy
        pixels = crop["pixels"].reshape(crop["height"], crop["width"])
        np.testing.assert_array_equal(pixels.astype(bool), expected.pixels)
        assert answer["rle"] == encode_crop(expected)


def test_an_empty_mask_is_no_pixels(page):
    logits = np.full((16, 16), -3, np.float32)
    logits[15, 15] = 9  # on the padding of an image twice as wide as high

    (answer,) = page(CROP, cases=[{"logits": logits.ravel(), "height": 20, "width": 40}])

    assert len(answer["crop"]["pixels"]) == 0
    assert answer["rle"] == encode_rle(np.zeros((20, 40), bool))


@pytest.mark.parametrize(
    ("pixels", "offset_xy"),
    [
        ([[1]], (0, 0)),  # the first pixel
        ([[1]], (4, 2)),  # the last one
        ([[1, 1], [1, 1], [1, 1]], (1, 0)),  # whole columns, which follow each other
        ([[1, 0], [0, 1], [1, 0]], (3, 0)),
        ([[1, 1, 1, 1, 1]] * 3, (0, 0)),  # everything
        ([[0, 1], [1, 0]], (2, 1)),
    ],
)
def test_run_lengths_are_those_of_python_at_every_edge(page, pixels, offset_xy):
    crop = MaskCrop(np.array(pixels, bool), offset_xy, (3, 5))
    height, width = crop.pixels.shape
    given = {"width": width, "height": height, "left": offset_xy[0], "top": offset_xy[1]}

    found = page(
        'const { encodeCrop } = await load("run_lengths.js");'
        "return encodeCrop({ ...values.crop, pixels: values.pixels });",
        crop={**given, "imageWidth": 5, "imageHeight": 3},
        pixels=crop.pixels.astype(np.uint8),
    )

    assert found == encode_crop(crop)


def test_a_png_of_the_page_holds_every_grey(page):
    grey = np.random.default_rng(2).integers(0, 256, (37, 61), np.uint8)

    data = page(
        'const { encodeGreyPng } = await load("png.js");'
        "const blob = await encodeGreyPng(values.grey, 61, 37);"
        "return new Uint8Array(await blob.arrayBuffer());",
        grey=grey,
    )

    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), grey)


PROMPTS = [
    Prompt(points_xy=[(3, 2)]),
    Prompt(points_xy=[(3, 2), (90.5, 20)], point_labels=[0, 1]),
    Prompt(box_xyxy=(1, 2, 30, 20.25)),
    Prompt(points_xy=[(3, 2)], point_labels=[1], box_xyxy=(1, 2, 30, 20)),
]


def as_values(prompt):
    points = zip(prompt.points_xy.tolist(), prompt.point_labels.tolist(), strict=True)
    box = None if prompt.box_xyxy is None else prompt.box_xyxy.tolist()
    return {"points": [{"x": x, "y": y, "label": label} for (x, y), label in points], "box": box}


def test_prompts_are_packed_as_in_python(page):
    frame = ModelFrame((33, 96), 64)

    found = page(
        'const { packPrompts, isAmbiguous } = await load("prompts.js");'
        'const { makeFrame } = await load("frame.js");'
        "const packed = packPrompts(values.prompts, makeFrame(96, 33, 64));"
        "return { packed, ambiguous: values.prompts.map(isAmbiguous) };",
        prompts=[as_values(prompt) for prompt in PROMPTS],
    )

    expected = pack_prompts(PROMPTS, frame)
    packed = found["packed"]
    assert (packed["numPrompts"], packed["numPoints"]) == expected.point_labels.shape
    np.testing.assert_array_equal(packed["labels"], expected.point_labels.ravel())
    np.testing.assert_array_equal(packed["pointsXY"], expected.points_xy.ravel())
    tokens = choose_mask(np.float32([[0.9, 0.1, 0.3, 0.2]] * 4), expected.point_labels)
    assert found["ambiguous"] == (tokens > 0).tolist()
