import numpy as np
import pytest
from pycocotools import mask as coco_mask

from edgeseg.errors import DataError
from edgeseg.mask_crop import crop_mask
from edgeseg.run_lengths import decode_rle, encode_crop, encode_rle


def test_run_lengths_go_down_the_columns_and_begin_with_background():
    mask = np.array([[1, 0, 1], [1, 0, 0]], bool)  # columns 11, 00, 10: runs 0, 2, 2, 1, 1

    rle = encode_rle(mask)

    # The fourth and fifth run are stored as 1 - 2 = -1 ("O") and 1 - 2 = -1, offset "0" = 48.
    assert rle == {"size": [2, 3], "counts": "022OO"}
    np.testing.assert_array_equal(decode_rle({"size": [2, 3], "counts": [0, 2, 2, 1, 1]}), mask)


def random_masks():
    rng = np.random.default_rng(2)
    for number in range(120):
        height, width = rng.integers(1, 70, 2)
        mask = rng.random((height, width)) < rng.random()
        if number % 3 == 0:  # long runs
            mask[:] = False
            mask[rng.integers(height) :, rng.integers(width) :] = True
        yield mask
    yield np.zeros((3, 5), np.bool_)
    yield np.ones((3, 5), np.bool_)
    large = np.zeros((1500, 1200), np.bool_)  # runs of more than 2**20 pixels
    large[700:, 900:] = True
    large[0, 0] = True
    yield large


def test_run_lengths_are_those_of_pycocotools():
    for mask in random_masks():
        expected = coco_mask.encode(np.asfortranarray(mask, np.uint8))

        rle = encode_rle(mask)

        assert rle == {"size": list(mask.shape), "counts": expected["counts"].decode()}
        np.testing.assert_array_equal(decode_rle(rle), mask)
        np.testing.assert_array_equal(decode_rle(expected), mask)  # counts as bytes
        assert encode_crop(crop_mask(mask)) == rle


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 3]},
        {"counts": "22"},
        {"size": 6, "counts": "22"},
        {"size": [2, 3], "counts": ""},
        {"size": [2, 3], "counts": "\x10"},
        {"size": [2, 3], "counts": "P"},  # the last character says that more follow
        {"size": [2, 3], "counts": "6P"},
        {"size": [2, 3], "counts": "ü"},
        {"size": [2, 3], "counts": ["a"]},
    ],
)
def test_run_lengths_that_make_no_sense_are_refused(rle):
    with pytest.raises(DataError, match="a run-length code needs `size`|run lengths"):
        decode_rle(rle)


@pytest.mark.parametrize("counts", [[2, 3], [2, 5], [8, -2], "22"])
def test_run_lengths_that_do_not_fill_the_mask_are_refused(counts):
    with pytest.raises(DataError, match=r"must add up to 2 x 3 = 6 pixels|damaged"):
        decode_rle({"size": [2, 3], "counts": counts})
