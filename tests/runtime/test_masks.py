import sys
import types

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from edgeseg.errors import ConfigError, ImageError, MissingExtraError
from edgeseg.mask_crop import crop_mask
from edgeseg.prompts import Prompt
from edgeseg.runtime import Masks
from edgeseg.runtime.drawing import mask_colors


def make_masks(masks):
    masks = np.asarray(masks, np.bool_)
    return Masks(
        crops=tuple(crop_mask(mask) for mask in masks),
        image_hw=masks.shape[1:],
        low_res_logits=np.zeros((len(masks), 4, 4), np.float32),
        scores=np.ones(len(masks), np.float32),
        prompt_indices=np.arange(len(masks)),
    )


def rectangles(image_hw, *edges):
    masks = np.zeros((len(edges), *image_hw), np.bool_)
    for mask, (left, top, right, bottom) in zip(masks, edges, strict=True):
        mask[top:bottom, left:right] = True
    return make_masks(masks)


def test_boxes_run_along_the_outer_edges_of_pixels_and_areas_count_them():
    pixels = np.zeros((3, 5, 8), np.bool_)
    pixels[0, 1:3, 4:7] = True
    pixels[0, 1, 5] = False
    pixels[2, 4, 7] = True

    masks = make_masks(pixels)

    assert masks.boxes_xyxy.tolist() == [[4, 1, 7, 3], [0, 0, 0, 0], [7, 4, 8, 5]]
    assert masks.boxes_xyxy.dtype == np.float32
    assert masks.areas_px.tolist() == [5, 0, 1]
    np.testing.assert_array_equal(masks.masks, pixels)
    assert make_masks(pixels[:0]).boxes_xyxy.shape == (0, 4)
    assert make_masks(pixels[:0]).masks.shape == (0, 5, 8)


def test_run_lengths_decode_to_the_masks():
    masks = rectangles((20, 30), (2, 3, 7, 9), (0, 0, 30, 1))

    rles = masks.to_rle()

    expected = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks.masks]
    assert [rle["counts"] for rle in rles] == [rle["counts"].decode() for rle in expected]
    assert [rle["size"] for rle in rles] == [[20, 30]] * 2


def test_run_lengths_for_pycocotools_are_what_it_encodes_itself():
    masks = rectangles((20, 30), (2, 3, 7, 9), (0, 0, 30, 1))

    rles = masks.to_coco_rle()

    assert rles == [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks.masks]
    assert coco_mask.area(rles).tolist() == [30, 30]
    # The text form, which is what JSON needs, is read by pycocotools as well.
    assert coco_mask.area(masks.to_rle()).tolist() == [30, 30]


def test_detections_of_supervision_hold_boxes_masks_scores_and_prompts(monkeypatch):
    supervision = types.ModuleType("supervision")
    supervision.Detections = types.SimpleNamespace
    monkeypatch.setitem(sys.modules, "supervision", supervision)
    masks = rectangles((20, 30), (2, 3, 7, 9), (0, 0, 30, 1))

    detections = masks.to_supervision()

    assert detections.xyxy.tolist() == [[2, 3, 7, 9], [0, 0, 30, 1]]
    np.testing.assert_array_equal(detections.mask, masks.masks)
    assert detections.confidence.tolist() == [1, 1]
    assert detections.class_id is None
    assert detections.data["prompt_index"].tolist() == [0, 1]


def test_detections_of_the_installed_supervision_pass_its_checks():
    supervision = pytest.importorskip("supervision")

    detections = rectangles((20, 30), (2, 3, 7, 9), (0, 0, 30, 1)).to_supervision()

    assert isinstance(detections, supervision.Detections)
    assert len(detections[detections.data["prompt_index"] == 1]) == 1
    assert len(rectangles((20, 30)).to_supervision()) == 0


def test_without_supervision_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)  # makes importing it fail

    with pytest.raises(MissingExtraError, match="not installed; run: pip install supervision"):
        rectangles((20, 30)).to_supervision()


def test_each_mask_has_its_own_polygons():
    first, second = rectangles((20, 30), (2, 3, 7, 9), (0, 0, 30, 1)).to_polygons()

    assert [polygon.tolist() for polygon in first] == [[[2, 3], [7, 3], [7, 9], [2, 9]]]
    assert [polygon.tolist() for polygon in second] == [[[0, 0], [30, 0], [30, 1], [0, 1]]]


def test_overlay_mixes_the_colour_inside_and_lines_the_edge():
    image = np.full((20, 30, 3), 100, np.uint8)
    color = mask_colors(1)[0]

    drawn = rectangles((20, 30), (4, 5, 12, 15)).overlay(image, alpha=0.25)

    # 0.75 * 100 + 0.25 * colour, to the nearest number.
    expected = (75 + color.astype(float) / 4 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(drawn[10, 8], expected)
    np.testing.assert_array_equal(drawn[5, 4], color)  # first row and column of the mask
    np.testing.assert_array_equal(drawn[14, 11], color)  # last row and column
    assert (drawn[4, 4:12] == 100).all()
    assert (drawn[5:15, 12] == 100).all()
    assert (image == 100).all()


def test_small_masks_are_drawn_over_large_ones_in_any_order():
    image = np.zeros((20, 30, 3), np.uint8)
    small, large = (8, 8, 9, 9), (2, 2, 25, 18)
    colors = mask_colors(2)

    small_first = rectangles((20, 30), small, large).overlay(image)
    large_first = rectangles((20, 30), large, small).overlay(image)

    np.testing.assert_array_equal(small_first[8, 8], colors[0])
    np.testing.assert_array_equal(large_first[8, 8], colors[1])


def test_prompts_are_drawn_where_they_point():
    image = np.zeros((40, 60, 3), np.uint8)
    prompt = Prompt([(10, 30), (50, 5)], [1, 0], [20, 10, 41, 31])

    drawn = rectangles((40, 60)).overlay(image, prompts=prompt)

    positive, negative = drawn[30, 10], drawn[5, 50]
    assert positive[1] > 150 > positive[0]  # green
    assert negative[0] > 150 > negative[1]  # red
    assert drawn[10, 20].tolist() == [255, 255, 255]  # the box's first corner
    assert drawn[30, 40].tolist() == [255, 255, 255]  # the last pixel inside the box
    assert drawn[31, 41].tolist() == [0, 0, 0]
    assert drawn[20, 30].tolist() == [0, 0, 0]  # a box is not filled
    np.testing.assert_array_equal(drawn, rectangles((40, 60)).overlay(image, prompts=[prompt]))


def test_empty_masks_and_no_masks_leave_the_image_as_it_is():
    image = np.full((4, 6, 3), 9, np.uint8)

    np.testing.assert_array_equal(make_masks(np.zeros((1, 4, 6))).overlay(image), image)
    np.testing.assert_array_equal(make_masks(np.zeros((0, 4, 6))).overlay(image), image)


def test_overlay_needs_the_image_of_the_masks():
    masks = rectangles((20, 30), (2, 3, 7, 9))

    with pytest.raises(ImageError, match=r"image of \(20, 30\) .*, got \(30, 20\); draw on"):
        masks.overlay(np.zeros((30, 20, 3), np.uint8))
    with pytest.raises(ImageError, match="must be .* uint8 RGB"):
        masks.overlay(np.zeros((20, 30), np.uint8))
    with pytest.raises(ConfigError, match=r"alpha must be in 0\.\.1, got 45"):
        masks.overlay(np.zeros((20, 30, 3), np.uint8), alpha=45)


def test_colours_are_bright_different_and_always_the_same():
    colors = mask_colors(12).astype(int)

    assert (colors.max(axis=1) == 255).all()
    assert len({tuple(color) for color in colors.tolist()}) == 12
    np.testing.assert_array_equal(mask_colors(3), colors[:3])
    assert mask_colors(0).shape == (0, 3)
