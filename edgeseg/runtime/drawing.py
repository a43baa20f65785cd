"""Masks and prompts drawn over a photograph."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError
from edgeseg.mask_crop import MaskCrop
from edgeseg.prompts import POSITIVE, Prompt

_GOLDEN_RATIO = 0.6180339887
_GREEN, _RED, _WHITE = (40, 200, 60), (230, 40, 40), (255, 255, 255)


def mask_colors(num_colors: int) -> NDArray[np.uint8]:
    """Return (N, 3) uint8 RGB colours, bright and far apart in hue; the first are always the same.

    >>> mask_colors(2).shape
    (2, 3)
    """
    hue = (0.6 + _GOLDEN_RATIO * np.arange(num_colors)) % 1.0  # never far from evenly spread
    hsv = np.stack([hue * 180, np.full(num_colors, 210), np.full(num_colors, 255)], axis=1)
    pixels = hsv.astype(np.uint8)[None]  # (1, N, 3)
    rgb = cv2.cvtColor(pixels, cv2.COLOR_HSV2RGB) if num_colors else pixels
    return np.asarray(rgb, np.uint8)[0]


def draw_masks(
    image: NDArray[np.uint8], crops: Sequence[MaskCrop], alpha: float
) -> NDArray[np.uint8]:
    """Fill each mask with a colour of its own and line its edge.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        crops: M masks. Large ones are drawn first, so that small ones stay visible.
        alpha: How much of the colour covers the image, 0..1.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ConfigError: `alpha` is not in 0..1.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha must be in 0..1, got {alpha}; 0.45 suits most images")
    drawn = image.copy()
    colors = mask_colors(len(crops))
    thickness_px = _line_px(image)
    for index in np.argsort([-crop.area_px for crop in crops], kind="stable"):
        crop = crops[index]
        left, top, right, bottom = crop.edges_xyxy
        area = drawn[top:bottom, left:right]
        color = colors[index].astype(np.float32)
        mixed = area[crop.pixels] * (1 - alpha) + color * alpha  # (pixels, 3)
        area[crop.pixels] = (mixed + 0.5).astype(np.uint8)
        area[_edge(crop.pixels, thickness_px)] = colors[index]
    return drawn


def draw_prompts(image: NDArray[np.uint8], prompts: Sequence[Prompt]) -> NDArray[np.uint8]:
    """Draw boxes and points; return a new (H, W, 3) uint8 RGB image."""
    drawn = image.copy()
    line_px = _line_px(image)
    for prompt in prompts:
        if prompt.box_xyxy is not None:
            # A box ends at the outer edge of its last pixel.
            x0, y0, x1, y1 = (int(edge) for edge in prompt.box_xyxy)
            corners = (x0, y0), (max(x0, x1 - 1), max(y0, y1 - 1))
            cv2.rectangle(drawn, *corners, _WHITE, line_px)
        for point_xy, label in zip(prompt.points_xy, np.asarray(prompt.point_labels), strict=True):
            center = int(point_xy[0]), int(point_xy[1])
            color = _GREEN if label == POSITIVE else _RED
            cv2.circle(drawn, center, 3 * line_px, _WHITE, -1, cv2.LINE_AA)
            cv2.circle(drawn, center, 2 * line_px, color, -1, cv2.LINE_AA)
    return drawn


def _line_px(image: NDArray[np.uint8]) -> int:
    return max(1, round(max(image.shape[:2]) / 400))


def _edge(mask: NDArray[np.bool_], thickness_px: int) -> NDArray[np.bool_]:
    if not mask.size:
        return mask
    kernel = np.ones((2 * thickness_px + 1, 2 * thickness_px + 1), np.uint8)
    inside = cv2.erode(
        mask.view(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(0.0,)
    )
    return mask & (inside == 0)
