"""Masks to polygons along the edges of their pixels.

OpenCV's contours run through pixel centres and lose half a pixel on every side; these do not: the
signed areas of a mask's polygons add up to its number of pixels.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError
from edgeseg.mask_crop import MaskCrop

_Edge = tuple[int, int, int]

# Directions in clockwise order, with y pointing down: right, down, left, up.
_STEP_XY = ((1, 0), (0, 1), (-1, 0), (0, -1))


def trace_polygons(crop: MaskCrop, tolerance_px: float = 0.0) -> list[NDArray[np.float32]]:
    """Return the outlines of a mask's parts (clockwise) and holes (counter-clockwise).

    Pixels that touch only at a corner belong to different parts.

    Args:
        crop: The mask.
        tolerance_px: How far a simplified outline may leave the exact one, in pixels.

    Returns:
        A list of (K, 2) float32, x then y, in pixels; the centre of the first pixel is (0.5, 0.5).

    Raises:
        ConfigError: The tolerance is negative.

    >>> trace_polygons(MaskCrop(np.array([[1, 1]], bool), (1, 0), (1, 3)))[0].tolist()
    [[1.0, 0.0], [3.0, 0.0], [3.0, 1.0], [1.0, 1.0]]
    """
    if tolerance_px < 0:
        raise ConfigError(f"tolerance_px must be 0 or more, got {tolerance_px}")
    edges = _edges(crop.pixels)
    polygons = []
    while edges:
        corners_xy = np.array(_walk(edges), np.float32) + np.array(crop.offset_xy, np.float32)
        polygons.append(_simplified(corners_xy, tolerance_px))
    return polygons


def _edges(pixels: NDArray[np.bool_]) -> dict[_Edge, None]:
    """Return the pixel edges around a mask in a fixed order, those that run right first.

    An edge is the corner it starts at and its direction; the object lies on its right-hand side.
    """
    padded = np.pad(pixels, 1).astype(np.int8)
    down = padded[1:, 1:-1] - padded[:-1, 1:-1]  # (h + 1, w), 1 where the object starts below
    right = padded[1:-1, 1:] - padded[1:-1, :-1]  # (h, w + 1), 1 where it starts to the right
    edges: dict[_Edge, None] = {}
    # (x, y) is the left or upper end of an edge; edges that run left or up start at the other end.
    for steps, value, direction, (shift_x, shift_y) in (
        (down, 1, 0, (0, 0)),
        (right, -1, 1, (0, 0)),
        (down, -1, 2, (1, 0)),
        (right, 1, 3, (0, 1)),
    ):
        for y, x in np.argwhere(steps == value).tolist():
            edges[x + shift_x, y + shift_y, direction] = None
    return edges


def _walk(edges: dict[_Edge, None]) -> list[tuple[int, int]]:
    """Take one closed outline out of `edges` and return the corners where it turns.

    The first edge that is left runs right and has no other one before it in its row, so the way
    turns at its start.
    """
    start = edge = next(iter(edges))
    last = -1
    corners = []
    while True:
        del edges[edge]
        x, y, direction = edge
        if direction != last:
            corners.append((x, y))
        x, y, last = x + _STEP_XY[direction][0], y + _STEP_XY[direction][1], direction
        # Where two pixels touch at a corner, the right turn stays with the pixel at hand.
        ways = ((x, y, (direction + turn) % 4) for turn in (1, 0, 3))
        following = next((way for way in ways if way in edges or way == start), start)
        if following == start:
            return corners
        edge = following


def _simplified(corners: NDArray[np.float32], tolerance_px: float) -> NDArray[np.float32]:
    if not tolerance_px:
        return corners
    simple = cv2.approxPolyDP(corners, tolerance_px, closed=True).reshape(-1, 2)
    return np.asarray(simple, np.float32) if len(simple) >= 3 else corners
