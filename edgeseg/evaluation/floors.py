"""Answers that need no network; a segmenter has to beat them.

Source: GrabCut, Rother et al. 2004 (doi:10.1145/1015706.1015720), in OpenCV's implementation.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.evaluation.config import GrabCutConfig
from edgeseg.mask_crop import MaskCrop, crop_mask
from edgeseg.preprocess import resize_longest_side


def filled_box(box_xyxy: NDArray[np.float32], image_hw: tuple[int, int]) -> MaskCrop:
    """Return the box itself as a mask, every pixel whose centre lies inside it."""
    height, width = image_hw
    x0, y0, x1, y1 = np.ceil(box_xyxy - 0.5).astype(int).tolist()
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
    return MaskCrop(np.ones((max(0, y1 - y0), max(0, x1 - x0)), np.bool_), (x0, y0), image_hw)


def grabcut_mask(
    image: NDArray[np.uint8], box_xyxy: NDArray[np.float32], config: GrabCutConfig
) -> MaskCrop:
    """Return what GrabCut takes for the object in a box, computed on a smaller image.

    A box that leaves no background around it on the smaller image is answered by itself.

    Args:
        image: (H, W, 3) uint8 RGB.
        box_xyxy: (4,) float32, x0 y0 x1 y1, in image pixels.
        config: Iterations and size.
    """
    height, width = image.shape[:2]
    is_larger = max(height, width) > config.longest_side
    small = resize_longest_side(image, config.longest_side) if is_larger else image
    small_h, small_w = small.shape[:2]
    scale = np.tile([small_w / width, small_h / height], 2)
    # Rounded outwards: what lies outside the rectangle stays background for good.
    x0, y0 = np.floor(box_xyxy[:2] * scale[:2] + 1e-3).astype(int).clip(0).tolist()
    x1, y1 = np.ceil(box_xyxy[2:] * scale[2:] - 1e-3).astype(int).tolist()
    x1, y1 = min(small_w, x1), min(small_h, y1)
    if (x1 - x0) * (y1 - y0) >= small_h * small_w:
        return filled_box(box_xyxy, (height, width))

    labels = np.zeros((small_h, small_w), np.uint8)
    cv2.setRNGSeed(0)  # GrabCut starts from OpenCV's random k-means
    cv2.grabCut(
        np.ascontiguousarray(small),
        labels,
        (x0, y0, x1 - x0, y1 - y0),
        np.zeros((1, 65)),
        np.zeros((1, 65)),
        config.iterations,
        cv2.GC_INIT_WITH_RECT,
    )
    is_object = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    share = cv2.resize(is_object.astype(np.float32), (width, height))
    return crop_mask(share > 0.5)
