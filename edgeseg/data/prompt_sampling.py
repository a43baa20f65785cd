"""Prompts drawn from masks: boxes, points in the object, and the next click of a refinement.

Coordinates are pixels with the centre of the top left one at (0.5, 0.5); boxes run along pixel
edges, so x1 is the last column + 1.

Source: next clicks as in interactive segmentation (Xu et al. 2016, arXiv:1603.04042; Sofiiuk et al.
2021, arXiv:2102.06583): the centre of the largest error region.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.mask_patches import MaskPatch
from edgeseg.errors import ConfigError, DataError
from edgeseg.prompts import NEGATIVE, POSITIVE

Mask = NDArray[np.bool_] | NDArray[np.uint8]
"""(H, W), bool or uint8; nonzero is object."""


def box_of_mask(mask: Mask | MaskPatch) -> NDArray[np.float32]:
    """Return the tight box of a mask.

    Returns:
        (4,) float32, x0 y0 x1 y1 in pixels, along pixel edges.

    Raises:
        DataError: The mask is empty.

    >>> box_of_mask(np.array([[0, 0, 0], [0, 1, 1]], np.uint8)).tolist()
    [1.0, 1.0, 3.0, 2.0]
    """
    return _patch(mask).box_xyxy


def jitter_box(
    box_xyxy: NDArray[np.float32],
    image_hw: tuple[int, int],
    rng: np.random.Generator,
    share: float,
) -> NDArray[np.float32]:
    """Move every edge of a box by at most a share of the box's side, as a hasty user does.

    Args:
        box_xyxy: (4,) float, x0 y0 x1 y1 in pixels, with area, inside the image.
        image_hw: Height and width of the image, in pixels.
        rng: Source of randomness.
        share: Largest shift as a share of the box's side across the edge, from 0 to below 0.5.

    Returns:
        (4,) float32, inside the image and with area.

    Raises:
        ConfigError: `share` is out of range.
    """
    if not 0 <= share < 0.5:
        raise ConfigError(f"the box jitter must be from 0 to below 0.5 of a side, got {share}")
    x0, y0, x1, y1 = box_xyxy.tolist()
    sides = np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    moved = np.asarray(box_xyxy, np.float64) + rng.uniform(-share, share, 4) * sides
    height, width = image_hw
    return moved.clip(0, [width, height, width, height]).astype(np.float32)


def draw_point(mask: Mask | MaskPatch, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a pixel of the mask, all with equal chance.

    Returns:
        (2,) float32, x then y of the pixel's centre.

    Raises:
        DataError: The mask is empty.
    """
    patch = _patch(mask)
    row_sums = cv2.reduce(patch.pixels, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0]
    total = np.cumsum(row_sums)
    number = rng.integers(total[-1])
    row = int(np.searchsorted(total, number, side="right"))
    before = int(total[row - 1]) if row else 0
    col = np.flatnonzero(patch.pixels[row])[number - before]
    return _pixel_center(patch, row, int(col))


def center_point(mask: Mask | MaskPatch) -> NDArray[np.float32]:
    """Return the pixel farthest from the mask's border; the image's border counts as one.

    Among equally far pixels it is the one closest to their mean, and the first in reading order
    when that is a tie as well.

    Returns:
        (2,) float32, x then y of the pixel's centre.

    Raises:
        DataError: The mask is empty.

    >>> center_point(np.ones((3, 7), np.uint8)).tolist()
    [3.5, 1.5]
    """
    patch = _patch(mask)
    framed = cv2.copyMakeBorder(patch.pixels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,))
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    distance = distance.round(3)  # its last bits vary with where the mask lies in memory
    rows, cols = np.nonzero(distance == distance.max())
    from_mean = (rows - rows.mean()) ** 2 + (cols - cols.mean()) ** 2
    nearest = int(np.argmin(from_mean.round(6)))  # rounded, so that equal stays equal
    return _pixel_center(patch, int(rows[nearest]), int(cols[nearest]))


def next_click(prediction: Mask, target: Mask) -> tuple[NDArray[np.float32], int] | None:
    """Return the click that corrects the largest error of a prediction.

    Missed parts and parts too many are cut into connected regions (8 neighbours); the click is the
    centre point of the largest one, a missed one first when areas are equal.

    Args:
        prediction: (H, W) bool or uint8.
        target: (H, W) bool or uint8.

    Returns:
        (2,) float32, x then y in pixels, and the label: 1 for a missed part, 0 for a part too many.
        None when both masks are equal.

    Raises:
        DataError: The masks differ in shape.
    """
    if prediction.shape != target.shape:
        raise DataError(
            f"prediction and target must have one shape, got {prediction.shape} and {target.shape}"
        )
    predicted, wanted = prediction.astype(np.bool_), target.astype(np.bool_)
    missed = _largest_region(wanted & ~predicted)
    surplus = _largest_region(predicted & ~wanted)
    if missed is not None and (surplus is None or missed.area_px >= surplus.area_px):
        return center_point(missed), POSITIVE
    return None if surplus is None else (center_point(surplus), NEGATIVE)


def _largest_region(errors: NDArray[np.bool_]) -> MaskPatch | None:
    """Return the largest connected region, the first one found when areas are equal."""
    if not errors.any():
        return None
    patch = MaskPatch.of_mask(errors)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(patch.pixels, connectivity=8)
    label = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    left, top, width, height = stats[label, :4].tolist()
    region = (labels[top : top + height, left : left + width] == label).astype(np.uint8)
    return MaskPatch(region, patch.left + left, patch.top + top, patch.image_hw)


def _patch(mask: Mask | MaskPatch) -> MaskPatch:
    return mask if isinstance(mask, MaskPatch) else MaskPatch.of_mask(mask)


def _pixel_center(patch: MaskPatch, row: int, col: int) -> NDArray[np.float32]:
    return np.array([patch.left + col + 0.5, patch.top + row + 0.5], np.float32)
