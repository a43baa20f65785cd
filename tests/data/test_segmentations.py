import numpy as np
import pytest
from pycocotools import mask as coco_mask

from edgeseg.data.segmentations import rle_of_segmentation
from edgeseg.errors import DataError
from edgeseg.run_lengths import decode_rle, parse_runs

HW = (3, 5)  # 3 px high, 5 px wide: 15 pixels


def decode(rle):
    return decode_rle(rle).tolist()


def test_runs_go_down_the_columns_and_begin_with_background():
    mask = np.array([[0, 1, 0], [1, 1, 0]], np.uint8)  # columns: 0 1 | 1 1 | 0 0

    runs = parse_runs(coco_mask.encode(np.asfortranarray(mask))["counts"])

    assert runs.tolist() == [1, 3, 2]


def test_runs_and_pixels_agree_with_pycocotools_on_random_masks():
    rng = np.random.default_rng(0)
    for height, width, share in [(1, 1, 1), (7, 300, 0.5), (300, 7, 0.01), (500, 400, 0.9999)]:
        mask = (rng.random((height, width)) < share).astype(np.uint8)
        rle = coco_mask.encode(np.asfortranarray(mask))

        assert parse_runs(rle["counts"])[1::2].sum() == mask.sum()
        assert np.array_equal(decode_rle(rle), mask)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (b"", "never writes"),
        (b"1 2", "never writes"),  # a blank is below "0"
        (b"1p", "never writes"),  # "p" is code 64, one above the largest
        (b"1P", "middle of a number"),  # "P" is code 32: more to follow, but nothing does
        (b"P" * 7 + b"1", "too long"),
    ],
)
def test_strings_that_are_no_run_lengths_are_refused(counts, reason):
    with pytest.raises(DataError, match=reason):
        parse_runs(counts)


def test_uncompressed_counts_become_the_mask_they_describe():
    rle = rle_of_segmentation({"size": [3, 5], "counts": [4, 2, 9]}, HW)

    # Column 0 and the first pixel of column 1 are background, then two pixels of the object.
    assert decode(rle) == [[0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0]]


def test_polygons_of_one_object_are_joined():
    left, right = [0, 0, 2, 0, 2, 2, 0, 2], [3, 1, 5, 1, 5, 3, 3, 3]

    rle = rle_of_segmentation([left, right], HW)

    assert decode(rle) == [[1, 1, 0, 0, 0], [1, 1, 0, 1, 1], [0, 0, 0, 1, 1]]


def test_a_polygon_may_reach_beyond_the_image():
    rle = rle_of_segmentation([[-3, -3, 8, -3, 8, 1, -3, 1]], HW)

    assert decode(rle) == [[1] * 5, [0] * 5, [0] * 5]


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [3, 5], "counts": [15]},
        {"size": [3, 5], "counts": "?"},  # one run of 15: code 15 is "?"
        [[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]],
    ],
)
def test_a_mask_without_pixels_is_none(segmentation):
    assert rle_of_segmentation(segmentation, HW) is None


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "must be a list of polygons or run lengths"),
        ([], "must be a list of polygons or run lengths"),
        ("1234", "must be a list of polygons or run lengths"),
        ({"counts": [15]}, r"size \[height, width\] is None, but the image has \[3, 5\]"),
        ({"size": [5, 3], "counts": [4, 2, 9]}, r"is \[5, 3\], but the image has \[3, 5\]"),
        ({"size": [3, 5], "counts": [4, 2, 8]}, "cover 14 pixels"),
        ({"size": [3, 5], "counts": [4, 2, 10]}, "cover 16 pixels"),
        ({"size": [3, 5], "counts": [20, -10, 5]}, "shortest run -10"),
        ({"size": [3, 5], "counts": [4, float("nan"), 9]}, "string or whole numbers"),
        ({"size": [3, 5], "counts": [True, 14]}, "string or whole numbers"),
        ({"size": [3, 5], "counts": 15}, "string or whole numbers"),
        ({"size": [3, 5], "counts": "44"}, "cover 8 pixels"),
        ({"size": [3, 5], "counts": "é"}, "never writes"),
        ([[0, 0, 4, 2]], "at least three points"),  # pycocotools would take it for a box
        ([[0, 0, 4, 0, 4]], "at least three points"),
        ([[0, 0, 4, 0, 4, 2, 1]], "at least three points"),
        ([0, 0, 4, 0, 4, 2], "at least three points"),
        ([[0, 0, 4, 0, float("nan"), 2]], "got nan"),
        ([[0, 0, 4, 0, "4", 2]], "got '4'"),
        ([[0, 0, 1e9, 0, 4, 2]], "on or near the image of 3 x 5"),
        ([[0, 0, -11, 0, 4, 2]], "got -11"),  # reach is 2 x 5 px
    ],
)
def test_segmentations_that_fit_no_image_are_refused(segmentation, reason):
    with pytest.raises(DataError, match=reason):
        rle_of_segmentation(segmentation, HW)
