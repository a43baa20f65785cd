import numpy as np
import pytest

from edgeseg.geometry import ModelFrame
from edgeseg.mask_crop import MaskCrop
from edgeseg.postprocess import upsample_masks
from edgeseg.runtime.candidates import (
    Quality,
    Window,
    good_candidates,
    grid_points,
    mask_iou,
    without_equal_boxes,
    without_equal_masks,
)

FRAME = ModelFrame((24, 32), 64)  # 16 x 16 cells, of which 12 x 16 lie on the image; 2 px a cell
WINDOW = Window.whole(FRAME)


def logits_of(*rectangles, height=10.0):
    """Return (M, 16, 16) logits of rectangles given as left, top, right and bottom cells."""
    logits = np.full((len(rectangles), 16, 16), -height, np.float32)
    for one, (left, top, right, bottom) in zip(logits, rectangles, strict=True):
        one[top:bottom, left:right] = height
    return logits


def candidates(logits, scores=None, window=WINDOW, min_score=0.5, min_stability=0.5, **options):
    scores = np.full(len(logits), 0.9) if scores is None else np.array(scores)
    points, chances = np.zeros((len(logits), 2), np.float32), np.ones(len(logits), np.float32)
    quality = Quality(min_score, min_stability, **options)
    return list(
        good_candidates(logits, scores.astype(np.float32), points, chances, window, quality)
    )


def test_masks_that_the_model_does_not_believe_in_are_left_out():
    found = candidates(logits_of((0, 0, 4, 4), (4, 4, 8, 8)), scores=[0.49, 0.5])

    assert [candidate.score for candidate in found] == [0.5]
    assert found[0].box_xyxy.tolist() == [8, 8, 16, 16]


def test_stability_counts_what_lies_between_the_two_thresholds():
    logits = logits_of((2, 2, 6, 6))  # 16 cells above 1
    logits[0, 2:4, 6:10] = -0.5  # 8 more above -1: 16 / 24

    (found,) = candidates(logits)

    assert found.stability == pytest.approx(2 / 3)
    assert candidates(logits, min_stability=0.7) == []
    assert candidates(logits, min_stability=0.7, stability_offset=0.25)[0].stability == 1.0


def test_what_lies_on_padding_says_nothing():
    logits = logits_of((0, 12, 16, 16), (0, 10, 4, 16))  # rows 12 to 15 are padding

    (found,) = candidates(logits)

    assert found.box_xyxy.tolist() == [0, 20, 8, 24]


def test_an_empty_mask_is_none():
    assert candidates(logits_of((0, 0, 0, 0))) == []


def test_the_mask_at_image_size_is_exactly_that_of_all_the_logits():
    rng = np.random.default_rng(0)
    frame = ModelFrame((50, 37), 64)
    for _ in range(50):
        soft = rng.standard_normal((1, 4, 4)).astype(np.float32)
        logits = np.kron(soft, np.ones((4, 4), np.float32)) + 0.3 * rng.standard_normal((1, 16, 16))
        found = candidates(logits.astype(np.float32), window=Window.whole(frame), min_stability=0)
        expected = upsample_masks(logits.astype(np.float32), frame)[0]

        mask = found[0].crop().to_mask() if found else np.zeros_like(expected)

        np.testing.assert_array_equal(mask, expected)


def test_a_mask_of_a_part_lies_where_the_part_does():
    window = Window(FRAME, (100, 40), (80, 200))
    points = np.float32([[3, 4]])
    logits, ones = logits_of((2, 1, 5, 4)), np.ones(1, np.float32)
    (found,) = good_candidates(logits, ones, points, ones / 2, window, Quality(0.5, 0.5))

    assert (found.score, found.confidence) == (1.0, 0.5)
    assert found.box_xyxy.tolist() == [104, 42, 110, 48]
    assert found.point_xy.tolist() == [103, 44]
    crop = found.crop()
    assert isinstance(crop, MaskCrop)
    assert crop.image_hw == (80, 200)
    assert crop.edges_xyxy == (104, 42, 110, 48)
    assert window.xywh == (100, 40, 32, 24)


def test_equal_boxes_leave_the_better_mask():
    logits = logits_of((0, 0, 8, 8), (0, 0, 8, 7), (10, 0, 12, 4))
    found = candidates(logits, scores=[0.6, 0.9, 0.7])

    assert [c.score for c in without_equal_boxes(found, 0.8)] == pytest.approx([0.9, 0.7])
    assert len(without_equal_boxes(found, 0.9)) == 3


def test_a_ring_and_what_is_in_it_both_stay():
    ring = logits_of((0, 0, 8, 8))
    ring[0, 1:7, 1:7] = -10
    inside = logits_of((0, 0, 8, 8))
    inside[0][ring[0] > 0] = -10
    found = candidates(np.concatenate([ring, inside, inside]), scores=[0.6, 0.7, 0.9])

    assert [c.score for c in without_equal_masks(found, 0.5)] == pytest.approx([0.9, 0.6])


def test_iou_of_masks_that_lie_apart_touch_or_overlap():
    first, second, far = candidates(logits_of((0, 0, 4, 4), (2, 0, 6, 4), (9, 6, 12, 9)))

    assert mask_iou(first, second) == pytest.approx(8 / 24)
    assert mask_iou(first, first) == 1
    assert mask_iou(first, far) == 0


def test_the_grid_covers_the_image_at_the_centres_of_its_cells():
    points = grid_points((32, 64), 2)

    assert points.tolist() == [[16, 8], [48, 8], [16, 24], [48, 24]]  # x runs to 64, y to 32
    assert points.dtype == np.float32
