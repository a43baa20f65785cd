"""Masks as COCO run lengths: lengths of background and object in turn, down the columns.

Source: the coding of the COCO API (Lin et al. 2014, arXiv:1405.0312), written in numpy and held
against pycocotools by the tests.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError
from edgeseg.mask_crop import MaskCrop

_FIRST_CODE = 48
"""A compressed count is written in characters from "0" on, 6 bits each: 5 of the number and 1 that
says whether more follow."""
_MAX_CHARACTERS = 7
"""Longest number accepted: 35 bits are more pixels than any image has."""


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the COCO run-length code of a mask, (H, W) bool, with a compressed string.

    >>> encode_rle(np.array([[0, 1], [0, 1]], bool))
    {'size': [2, 2], 'counts': '22'}
    """
    height, width = mask.shape
    return encode_crop(MaskCrop(np.asarray(mask, np.bool_), (0, 0), (height, width)))


def encode_crop(crop: MaskCrop) -> dict[str, Any]:
    """Return the COCO run-length code of a mask of which only a rectangle is kept.

    >>> encode_crop(MaskCrop(np.array([[1], [1]], bool), (1, 0), (2, 2)))
    {'size': [2, 2], 'counts': '22'}
    """
    (height, width), (left, top, right, bottom) = crop.image_hw, crop.edges_xyxy
    columns = np.zeros((right - left, height), np.bool_)  # of the image, from top to bottom
    columns[:, top:bottom] = crop.pixels.T
    changes = left * height + np.flatnonzero(np.diff(columns.ravel(), prepend=False, append=False))
    end = [height * width]
    if changes.size and changes[-1] == end[0]:  # the object ends where the image does
        end = []
    edges = np.concatenate([[0], changes, end]).astype(np.int64)
    return {"size": [height, width], "counts": _counts_to_text(edges[1:] - edges[:-1])}


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return the (H, W) bool mask of a COCO run-length code.

    Args:
        rle: `size` [height, width] and `counts`, either a compressed str or bytes, or a list of
            run lengths.

    Raises:
        DataError: A key is missing, or the runs do not fill the mask.

    >>> decode_rle({"size": [2, 2], "counts": [2, 2]}).astype(int).tolist()
    [[0, 1], [0, 1]]
    """
    try:
        (height, width), counts = rle["size"], rle["counts"]
        if isinstance(counts, str):
            # A character outside Latin-1 becomes "?", which the coding never writes either way.
            counts = counts.encode("latin-1", errors="replace")
        runs = parse_runs(counts) if isinstance(counts, bytes) else np.asarray(counts, np.int64)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "a run-length code needs `size` [height, width] and `counts` (a COCO string or a list "
            f"of runs), got {str(rle)[:120]}"
        ) from error
    if (runs < 0).any() or runs.sum() != height * width:
        raise DataError(
            f"the runs of a run-length code must add up to {height} x {width} = {height * width} "
            f"pixels, got {int(runs.sum())}; the annotation is damaged or of another image"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def parse_runs(counts: bytes) -> NDArray[np.int64]:
    """Return the run lengths that a compressed COCO string holds.

    pycocotools does not look at the numbers it reads, so a damaged string is found here.

    Args:
        counts: Compressed run lengths, in column order, beginning with background.

    Returns:
        (R,) int64, lengths in pixels of background and object in turn.

    Raises:
        DataError: The string is not one that COCO's coding can produce.

    >>> parse_runs(b"42").tolist()
    [4, 2]
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - _FIRST_CODE
    if not len(codes) or codes.min() < 0 or codes.max() > 63:
        raise DataError("run lengths hold characters that COCO's coding never writes")
    ends = np.flatnonzero(codes & 32 == 0)
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise DataError("run lengths break off in the middle of a number")
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise DataError("run lengths hold a number that is too long for any image")

    place = np.arange(len(codes)) - np.repeat(starts, lengths)  # 5-bit group within its number
    runs = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = codes[ends] & 16 != 0
    runs[negative] -= 1 << (5 * lengths[negative])
    # From the fourth number on a difference to the last run of the same colour is stored.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _counts_to_text(counts: NDArray[np.int64]) -> str:
    """Write run lengths as COCO does: differences to the run before last, 5 bits a character."""
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    columns, used = [], []
    is_open = np.ones(len(rest), np.bool_)
    while is_open.any():
        bits = rest & 31
        rest = rest >> 5  # arithmetic, so negative numbers end as -1
        used.append(is_open)
        is_open = is_open & np.where(bits & 16, rest != -1, rest != 0)
        columns.append(bits + 32 * is_open + _FIRST_CODE)
    characters = np.stack(columns, axis=1)[np.stack(used, axis=1)]  # (number of characters,)
    return characters.astype(np.uint8).tobytes().decode("ascii")
