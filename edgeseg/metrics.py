"""How well masks fit: IoU, boundary IoU and average recall.

Source: boundary IoU follows Cheng et al. 2021 (arXiv:2103.16562). The boundary of a mask is the
mask minus its erosion; erosion is done on the rectangle around the mask with zeros outside, which
gives exactly the pixels of the paper's full-size computation.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError
from edgeseg.mask_crop import MaskCrop, crop_mask, overlap_px, tight_rectangle

IOU_THRESHOLDS: NDArray[np.float64] = np.round(np.linspace(0.5, 0.95, 10), 2)
"""(10,) IoU thresholds 0.50, 0.55, ... 0.95, as COCO averages over them."""
BOUNDARY_DILATION_RATIO = 0.02
"""Width of a mask's boundary as a share of the image diagonal."""

_PIXELS_A_BLOCK = 1 << 20


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the intersection over union of two masks, 1 when both are empty.

    Args:
        first: (H, W) bool.
        second: (H, W) bool.

    Raises:
        DataError: The shapes differ.

    >>> mask_iou(np.array([[1, 1, 0]], bool), np.array([[0, 1, 1]], bool))
    0.3333333333333333
    """
    _check_same_shape(first, second)
    union = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / union if union else 1.0


def pairwise_mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the IoU of every mask of one set with every mask of another.

    Args:
        first: (N, H, W) bool.
        second: (M, H, W) bool.

    Returns:
        (N, M) float64 in 0..1; 1 where both masks are empty.

    Raises:
        DataError: The image sizes differ.
    """
    if first.shape[1:] != second.shape[1:]:
        raise DataError(
            "masks must have one image size to be compared, got "
            f"{first.shape[1:]} and {second.shape[1:]} (height, width); resize one set"
        )
    rows, cols = first.reshape(len(first), -1), second.reshape(len(second), -1)
    intersection = np.zeros((len(rows), len(cols)))
    # A float32 product is exact below 2**24 pixels, so it is summed in blocks.
    for start in range(0, rows.shape[1], _PIXELS_A_BLOCK):
        block = slice(start, start + _PIXELS_A_BLOCK)
        intersection += rows[:, block].astype(np.float32) @ cols[:, block].astype(np.float32).T
    union = rows.sum(axis=1)[:, None] + cols.sum(axis=1)[None, :] - intersection
    return np.where(union > 0, intersection / np.maximum(union, 1), 1.0)


def boundary_width_px(
    image_hw: tuple[int, int], dilation_ratio: float = BOUNDARY_DILATION_RATIO
) -> int:
    """Return how many pixels deep the boundary of a mask reaches, at least 1.

    >>> boundary_width_px((480, 640))
    16
    """
    return max(1, round(dilation_ratio * float(np.hypot(*image_hw))))


def inner_boundary(mask: NDArray[np.bool_], width_px: int) -> NDArray[np.bool_]:
    """Return the pixels of a mask that are at most `width_px` from its outside.

    The outside of the image is outside the mask: an object cut off by the image border has a
    boundary there.

    Args:
        mask: (H, W) bool.
        width_px: Depth of the boundary, in pixels of chessboard distance.

    Returns:
        (H, W) bool, a part of `mask`.
    """
    boundary = np.zeros(mask.shape, np.bool_)
    left, top, right, bottom = tight_rectangle(mask)
    if right == left:
        return boundary
    pixels = mask[top:bottom, left:right]
    inside = cv2.erode(
        np.ascontiguousarray(pixels).view(np.uint8),
        np.ones((2 * width_px + 1, 2 * width_px + 1), np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=(0.0,),
    )
    boundary[top:bottom, left:right] = pixels & (inside == 0)
    return boundary


def boundary_iou(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    dilation_ratio: float = BOUNDARY_DILATION_RATIO,
) -> float:
    """Return the IoU of the inner boundaries of two masks, 1 when both masks are empty.

    Args:
        first: (H, W) bool.
        second: (H, W) bool.
        dilation_ratio: Depth of the boundary as a share of the image diagonal.

    Raises:
        DataError: The shapes differ.
    """
    _check_same_shape(first, second)
    boundaries = (crop_boundary(crop_mask(mask), dilation_ratio) for mask in (first, second))
    return crop_iou(*boundaries)


def crop_iou(first: MaskCrop, second: MaskCrop) -> float:
    """Return the IoU of two masks of one image, 1 when both are empty."""
    intersection = overlap_px(first, second)
    union = first.area_px + second.area_px - intersection
    return intersection / union if union else 1.0


def crop_boundary(mask: MaskCrop, dilation_ratio: float = BOUNDARY_DILATION_RATIO) -> MaskCrop:
    """Return the inner boundary of a mask, so that it is computed once and compared often."""
    width_px = boundary_width_px(mask.image_hw, dilation_ratio)
    return MaskCrop(inner_boundary(mask.pixels, width_px), mask.offset_xy, mask.image_hw)


def average_recall(
    images_ious: Sequence[NDArray[np.float64]],
    max_proposals: int,
    thresholds: NDArray[np.float64] = IOU_THRESHOLDS,
) -> float:
    """Return the share of objects found, averaged over IoU thresholds, as COCO counts it.

    At every threshold the proposals take, best-scored first, the free object they overlap most; an
    object is found once.

    Args:
        images_ious: One (P, G) array an image, IoU of P proposals, best-scored first, with G
            objects.
        max_proposals: Number of proposals an image that count.
        thresholds: (T,) IoU from which a proposal finds an object.

    Returns:
        0..1; 0 when there is no object at all.

    Raises:
        DataError: `max_proposals` is below 1.

    >>> average_recall([np.array([[0.6, 0.0], [0.0, 0.9]])], max_proposals=1)
    0.15
    """
    if max_proposals < 1:
        raise DataError(f"max_proposals must be 1 or more, got {max_proposals}")
    num_objects = sum(ious.shape[1] for ious in images_ious)
    if not num_objects:
        return 0.0
    num_found = sum(
        _num_found(ious[:max_proposals], threshold)
        for ious in images_ious
        for threshold in thresholds
    )
    return num_found / (num_objects * len(thresholds))


def _num_found(ious: NDArray[np.float64], threshold: float) -> int:
    free = np.ones(ious.shape[1], np.bool_)
    for row in ious:
        candidates = np.where(free, row, -1.0)
        best = int(candidates.argmax()) if len(candidates) else 0
        if len(candidates) and candidates[best] >= threshold:
            free[best] = False
    return int(len(free) - free.sum())


def _check_same_shape(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> None:
    if first.shape != second.shape:
        raise DataError(
            f"two masks must have one shape to be compared, got {first.shape} and {second.shape} "
            "(height, width); resize one of them"
        )
