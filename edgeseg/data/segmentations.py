"""Every COCO way to write a segmentation becomes one checked form: compressed run lengths."""

import math
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from edgeseg.errors import DataError
from edgeseg.run_lengths import parse_runs


class CocoRle(TypedDict):
    """A mask as pycocotools takes it: `size` [height, width] in pixels, `counts` compressed."""

    size: list[int]
    counts: bytes


def rle_of_segmentation(segmentation: object, image_hw: tuple[int, int]) -> CocoRle | None:
    """Turn one COCO segmentation into compressed run lengths that fit the image.

    Args:
        segmentation: What stands in the annotation file: a list of polygons [x0, y0, x1, y1, ...]
            in pixels, or {"size": [height, width], "counts": string or list of run lengths}.
        image_hw: Height and width of the image, in pixels.

    Returns:
        The mask, or None when no pixel belongs to it, as with a polygon between pixel centres.

    Raises:
        DataError: The segmentation is malformed, or its size is not that of the image.
    """
    if isinstance(segmentation, dict):
        return _rle_of_counts(segmentation, image_hw)
    if isinstance(segmentation, list) and segmentation:
        return _rle_of_polygons(segmentation, image_hw)
    raise DataError(
        "segmentation must be a list of polygons or run lengths {size, counts}, "
        f"got {_short(segmentation)}"
    )


def _rle_of_counts(segmentation: dict[str, object], image_hw: tuple[int, int]) -> CocoRle | None:
    if segmentation.get("size") != list(image_hw):
        raise DataError(
            f"the mask's size [height, width] is {_short(segmentation.get('size'))}, "
            f"but the image has {list(image_hw)}"
        )
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        # A character outside Latin-1 becomes "?", which the coding never writes either way.
        counts = counts.encode("latin-1", errors="replace")
    if isinstance(counts, bytes):
        runs = parse_runs(counts)
        _check_runs(runs, image_hw)
        return {"size": list(image_hw), "counts": counts} if runs[1::2].any() else None
    if not isinstance(counts, list) or any(type(run) is not int for run in counts):
        raise DataError(f"counts must be a string or whole numbers, got {_short(counts)}")
    _check_runs(counts, image_hw)
    if not any(counts[1::2]):
        return None
    rle = coco_mask.frPyObjects({"size": list(image_hw), "counts": counts}, *image_hw)
    return {"size": list(image_hw), "counts": rle["counts"]}


def _check_runs(runs: NDArray[np.int64] | list[int], image_hw: tuple[int, int]) -> None:
    height, width = image_hw
    shortest = min(runs, default=0) if isinstance(runs, list) else runs.min()
    total = sum(runs) if isinstance(runs, list) else runs.sum()
    if shortest < 0 or total != height * width:
        raise DataError(
            f"run lengths cover {total} pixels (shortest run {shortest}), but the image has "
            f"{height} x {width} = {height * width}"
        )


def _rle_of_polygons(polygons: list[object], image_hw: tuple[int, int]) -> CocoRle | None:
    for polygon in polygons:
        _check_polygon(polygon, image_hw)
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *image_hw))
    is_empty = coco_mask.area(rle) == 0
    return None if is_empty else {"size": list(image_hw), "counts": rle["counts"]}


def _check_polygon(polygon: object, image_hw: tuple[int, int]) -> None:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        # pycocotools would take a list of four numbers for a box.
        raise DataError(
            f"a polygon must be x and y of at least three points in one list, got {_short(polygon)}"
        )
    # The rasteriser walks along every edge, so a far away corner would cost memory without end.
    reach = 2 * max(image_hw)
    for value in polygon:
        is_number = isinstance(value, int | float) and math.isfinite(value)
        if not is_number or not -reach <= value <= reach:
            raise DataError(
                f"a polygon's coordinate must be a number on or near the image of "
                f"{image_hw[0]} x {image_hw[1]} pixels, got {_short(value)}"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
