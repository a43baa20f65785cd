import cv2
import numpy as np
import pytest

from edgeseg.errors import ConfigError
from edgeseg.mask_crop import crop_mask
from edgeseg.runtime.outlines import trace_polygons


def signed_area(polygon):
    x, y = polygon.astype(float).T
    return (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2  # positive is clockwise on screen


def test_outline_runs_clockwise_along_the_outer_edges_of_pixels():
    mask = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 0, 0]], bool)

    (polygon,) = trace_polygons(crop_mask(mask))

    assert polygon.tolist() == [[1, 1], [4, 1], [4, 2], [2, 2], [2, 3], [1, 3]]
    assert polygon.dtype == np.float32


def test_hole_is_a_polygon_that_runs_the_other_way():
    mask = np.ones((3, 4), bool)
    mask[1, 1:3] = False

    outer, hole = trace_polygons(crop_mask(mask))

    assert signed_area(outer) == 12
    assert signed_area(hole) == -2


def test_pixels_that_touch_at_a_corner_are_two_parts():
    polygons = trace_polygons(crop_mask(np.array([[1, 0], [0, 1]], bool)))

    assert [polygon.tolist() for polygon in polygons] == [
        [[0, 0], [1, 0], [1, 1], [0, 1]],
        [[1, 1], [2, 1], [2, 2], [1, 2]],
    ]


def test_areas_add_up_and_every_corner_is_a_turn():
    rng = np.random.default_rng(0)
    for _ in range(100):
        height, width = rng.integers(1, 25, 2)
        mask = rng.random((height, width)) < rng.random()

        polygons = trace_polygons(crop_mask(mask))

        areas = [signed_area(polygon) for polygon in polygons]
        assert sum(areas) == mask.sum()
        num_parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1
        assert sum(area > 0 for area in areas) == num_parts
        for polygon in polygons:
            is_along_x = np.diff(polygon, axis=0, append=polygon[:1])[:, 0] != 0
            assert (is_along_x != np.roll(is_along_x, 1)).all()


def test_simplified_outline_stays_within_the_tolerance():
    mask = cv2.circle(np.zeros((80, 100), np.uint8), (60, 40), 30, 1, -1) > 0

    (exact,), (simple,) = (
        trace_polygons(crop_mask(mask)),
        trace_polygons(crop_mask(mask), tolerance_px=1.0),
    )

    assert 8 <= len(simple) < len(exact) / 3
    assert simple.dtype == np.float32
    contour = simple.reshape(-1, 1, 2)
    distances = [abs(cv2.pointPolygonTest(contour, point.tolist(), True)) for point in exact]
    assert max(distances) <= 1.0 + 1e-6


def test_a_part_smaller_than_the_tolerance_stays_a_polygon():
    (polygon,) = trace_polygons(crop_mask(np.ones((1, 1), bool)), tolerance_px=5.0)

    assert len(polygon) == 4


def test_empty_mask_has_no_outline():
    assert trace_polygons(crop_mask(np.zeros((3, 4), bool))) == []


def test_negative_tolerance_is_refused():
    with pytest.raises(ConfigError, match=r"tolerance_px must be 0 or more, got -1"):
        trace_polygons(crop_mask(np.ones((2, 2), bool)), tolerance_px=-1)
