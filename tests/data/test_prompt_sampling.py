import time

import numpy as np
import pytest
from tiny_data_sets import rectangle

from edgeseg.data.prompt_sampling import (
    box_of_mask,
    center_point,
    draw_point,
    jitter_box,
    next_click,
)
from edgeseg.errors import ConfigError, DataError


def rng(seed=0):
    return np.random.default_rng(seed)


# Boxes


def test_the_box_runs_along_pixel_edges():
    mask = rectangle((5, 9), 2, 1, 7, 4)

    assert box_of_mask(mask).tolist() == [2, 1, 7, 4]
    assert box_of_mask(mask.astype(bool)).dtype == np.float32


def test_the_box_of_a_single_pixel_in_the_last_corner_has_area():
    assert box_of_mask(rectangle((5, 9), 8, 4, 9, 5)).tolist() == [8, 4, 9, 5]


def test_an_empty_mask_has_no_box():
    with pytest.raises(DataError, match="the mask is empty"):
        box_of_mask(np.zeros((5, 9), bool))


def test_jitter_moves_edges_in_proportion_to_the_side_across_them():
    box = np.array([100, 100, 200, 120], np.float32)  # 100 px wide, 20 px high
    boxes = np.stack([jitter_box(box, (1000, 1000), rng(seed), 0.1) for seed in range(500)])

    shift = abs(boxes - box).max(axis=0)

    assert (shift <= [10, 2, 10, 2]).all()
    assert (shift > [9, 1.8, 9, 1.8]).all()
    assert abs((boxes - box).mean(axis=0) / [100, 20, 100, 20]).max() < 0.01  # in both directions


def test_jittered_boxes_stay_inside_the_image_and_keep_area():
    for box in ([0, 0, 1, 1], [0, 0, 9, 5], [8, 4, 9, 5], [0, 4, 9, 5]):
        for seed in range(100):
            moved = jitter_box(np.array(box, np.float32), (5, 9), rng(seed), 0.49)
            x0, y0, x1, y1 = moved.tolist()
            assert 0 <= x0 < x1 <= 9
            assert 0 <= y0 < y1 <= 5


def test_no_jitter_keeps_the_box():
    assert jitter_box(np.array([1, 2, 3, 4], np.float32), (5, 9), rng(), 0).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("share", [-0.1, 0.5])
def test_a_jitter_that_could_turn_a_box_over_is_refused(share):
    with pytest.raises(ConfigError, match=f"below 0.5 of a side, got {share}"):
        jitter_box(np.array([1, 2, 3, 4], np.float32), (5, 9), rng(), share)


# Points in the mask


def test_drawn_points_are_pixel_centres_of_the_mask_with_equal_chance():
    mask = np.zeros((4, 6), np.uint8)
    mask[1, [1, 4]] = 1
    mask[3, 4] = 1
    generator = rng()

    points = [tuple(draw_point(mask, generator).tolist()) for _ in range(3000)]

    assert set(points) == {(1.5, 1.5), (4.5, 1.5), (4.5, 3.5)}
    for point in set(points):
        assert 900 < points.count(point) < 1100  # 1000 expected, deviation 26


def test_equal_generators_draw_equal_points():
    mask = np.ones((40, 60), bool)

    assert draw_point(mask, rng(3)).tolist() == draw_point(mask, rng(3)).tolist()
    assert draw_point(mask, rng(3)).tolist() != draw_point(mask, rng(4)).tolist()


# Centre point


@pytest.mark.parametrize(
    ("mask", "center"),
    [
        (rectangle((9, 12), 1, 2, 6, 7), (3.5, 4.5)),  # 5 x 5: one pixel in the middle
        (rectangle((9, 12), 2, 3, 9, 6), (5.5, 4.5)),  # 7 x 3: middle row, its middle
        (rectangle((9, 12), 0, 0, 5, 5), (2.5, 2.5)),  # the image's border counts as border
        (rectangle((9, 12), 11, 8, 12, 9), (11.5, 8.5)),
        (np.ones((9, 12), bool), (5.5, 4.5)),  # columns 4 to 7 of the middle row; mean 5.5, first
        (rectangle((9, 12), 3, 3, 5, 5), (3.5, 3.5)),  # four equal pixels: the first in order
    ],
)
def test_the_centre_point_is_the_pixel_farthest_from_the_border(mask, center):
    assert tuple(center_point(mask).tolist()) == center


def test_the_centre_point_lies_in_the_thick_part_and_not_at_the_centroid():
    mask = rectangle((20, 60), 0, 8, 50, 10)  # a handle, 2 px thick
    mask |= rectangle((20, 60), 45, 2, 58, 15)  # a 13 x 13 head around column 51, row 8

    assert center_point(mask).tolist() == [51.5, 8.5]


def test_the_centre_point_of_a_ring_lies_in_the_ring():
    mask = rectangle((21, 21), 0, 0, 21, 21) - rectangle((21, 21), 5, 5, 16, 16)
    x, y = center_point(mask).tolist()

    assert mask[int(y), int(x)] == 1


# Next click


def test_equal_masks_need_no_click():
    mask = rectangle((9, 12), 1, 2, 6, 7)

    assert next_click(mask.astype(bool), mask) is None


def test_the_click_on_a_missed_part_is_positive():
    target = rectangle((9, 12), 1, 2, 11, 7)
    prediction = rectangle((9, 12), 1, 2, 6, 7)  # columns 6 to 10 are missed: 5 x 5

    point_xy, label = next_click(prediction, target)

    assert (point_xy.tolist(), label) == ([8.5, 4.5], 1)


def test_the_click_on_a_part_too_many_is_negative():
    prediction = rectangle((9, 12), 1, 2, 11, 7)
    target = rectangle((9, 12), 1, 2, 6, 7)

    point_xy, label = next_click(prediction, target)

    assert (point_xy.tolist(), label) == ([8.5, 4.5], 0)


def test_the_largest_connected_region_gets_the_click():
    target = rectangle((20, 40), 0, 0, 3, 3) | rectangle((20, 40), 5, 0, 8, 3)  # 9 + 9 missed
    prediction = rectangle((20, 40), 20, 10, 24, 13)  # 12 too many in one piece

    point_xy, label = next_click(prediction, target)

    assert label == 0
    assert point_xy[1] == 11.5  # the middle row of rows 10 to 12


def test_regions_that_touch_at_a_corner_are_one():
    target = rectangle((20, 40), 0, 0, 3, 3) | rectangle((20, 40), 3, 3, 6, 6)  # 18 in one piece
    prediction = rectangle((20, 40), 20, 10, 24, 14)  # 16

    assert next_click(prediction, target)[1] == 1


def test_a_missed_part_comes_first_when_areas_are_equal():
    target, prediction = rectangle((9, 12), 6, 0, 9, 3), rectangle((9, 12), 0, 0, 3, 3)

    point_xy, label = next_click(prediction, target)

    assert (point_xy.tolist(), label) == ([7.5, 1.5], 1)


def test_area_decides_and_not_thickness():
    target = rectangle((30, 60), 0, 0, 60, 1)  # 60 px in a line
    prediction = rectangle((30, 60), 10, 10, 17, 17)  # 49 px, seven thick

    assert next_click(prediction, target)[1] == 1


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(DataError, match=r"one shape, got \(9, 12\) and \(12, 9\)"):
        next_click(np.zeros((9, 12), bool), np.zeros((12, 9), bool))


def test_a_click_on_a_large_mask_does_not_hold_up_an_evaluation():
    target, prediction = rectangle((480, 640), 50, 50, 600, 400), rectangle((480, 640), 0, 0, 9, 9)
    start = time.perf_counter()

    next_click(prediction, target)

    assert time.perf_counter() - start < 1.0  # a few ms; a scan pixel by pixel in Python takes more
