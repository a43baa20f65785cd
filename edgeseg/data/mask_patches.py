"""A mask as its bounding box of pixels: what augmentation and prompt sampling work on.

Most objects are small. Cutting each one out once makes everything after it, from flips to distance
transforms, cost what the object costs instead of what the image costs.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.segmentations import CocoRle
from edgeseg.errors import DataError
from edgeseg.geometry import ModelFrame
from edgeseg.run_lengths import decode_rle


@dataclass(frozen=True, eq=False)
class MaskPatch:
    """The pixels of one object, cut out of its image.

    Attributes:
        pixels: (h, w) uint8, 1 on the object; no border row or column is empty.
        left: Column of the image in which the patch begins.
        top: Row of the image in which the patch begins.
        image_hw: Height and width of the image, in pixels.
    """

    pixels: NDArray[np.uint8]
    left: int
    top: int
    image_hw: tuple[int, int]

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_] | NDArray[np.uint8]) -> "MaskPatch":
        """Cut the object out of a (H, W) mask, bool or uint8; nonzero is object.

        Raises:
            DataError: The mask has another shape or type, or no pixel belongs to the object.
        """
        if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
            raise DataError(f"a mask must be (H, W) bool or uint8, got {mask.shape} {mask.dtype}")
        # OpenCV wants contiguous rows; a column-contiguous mask is turned over, not copied.
        is_turned = mask.flags.f_contiguous and not mask.flags.c_contiguous
        rows = np.ascontiguousarray(mask.T if is_turned else mask).view(np.uint8)
        left, top, width, height = cv2.boundingRect(rows)
        if width == 0:
            raise DataError("the mask is empty; leave it out")
        pixels = rows[top : top + height, left : left + width]
        if is_turned:
            pixels, left, top = cv2.transpose(pixels), top, left  # type: ignore[assignment]
        return cls(np.minimum(pixels, 1), left, top, (mask.shape[0], mask.shape[1]))

    @classmethod
    def of_rle(cls, rle: CocoRle) -> "MaskPatch":
        """Cut the object out of a run-length mask."""
        return cls.of_mask(decode_rle(rle))

    @property
    def area_px(self) -> int:
        """Number of pixels of the object."""
        return cv2.countNonZero(self.pixels)

    @property
    def box_xyxy(self) -> NDArray[np.float32]:
        """(4,) float32, x0 y0 x1 y1 in pixels of the image, along pixel edges."""
        height, width = self.pixels.shape
        return np.array(
            [self.left, self.top, self.left + width, self.top + height], dtype=np.float32
        )

    def to_mask(self) -> NDArray[np.bool_]:
        """Return the (H, W) bool mask in the image."""
        mask = np.zeros(self.image_hw, np.bool_)
        height, width = self.pixels.shape
        mask[self.top : self.top + height, self.left : self.left + width] = self.pixels
        return mask

    def cropped(self, window_xyxy: tuple[int, int, int, int]) -> "MaskPatch | None":
        """Return what lies in a window of the image, in the frame of the window; None if nothing.

        Args:
            window_xyxy: x0 y0 x1 y1 in pixels, along pixel edges, inside the image.
        """
        x0, y0, x1, y1 = window_xyxy
        window_hw = (y1 - y0, x1 - x0)
        height, width = self.pixels.shape
        left, right = max(x0, self.left), min(x1, self.left + width)
        top, bottom = max(y0, self.top), min(y1, self.top + height)
        if left >= right or top >= bottom:
            return None
        pixels = self.pixels[
            top - self.top : bottom - self.top, left - self.left : right - self.left
        ]
        if pixels.shape == self.pixels.shape:
            return MaskPatch(pixels, left - x0, top - y0, window_hw)
        inner_left, inner_top, width, height = cv2.boundingRect(np.ascontiguousarray(pixels))
        if width == 0:
            return None
        tight = pixels[inner_top : inner_top + height, inner_left : inner_left + width]
        tight = np.ascontiguousarray(tight)
        return MaskPatch(tight, left - x0 + inner_left, top - y0 + inner_top, window_hw)

    def flipped_x(self) -> "MaskPatch":
        """Return the mask of the image mirrored left to right."""
        left = self.image_hw[1] - self.left - self.pixels.shape[1]
        pixels = np.ascontiguousarray(self.pixels[:, ::-1])
        return MaskPatch(pixels, left, self.top, self.image_hw)

    def flipped_y(self) -> "MaskPatch":
        """Return the mask of the image mirrored top to bottom."""
        top = self.image_hw[0] - self.top - self.pixels.shape[0]
        pixels = np.ascontiguousarray(self.pixels[::-1])
        return MaskPatch(pixels, self.left, top, self.image_hw)

    def turned(self) -> "MaskPatch":
        """Return the mask of the image turned by 90 degrees against the clock, as `np.rot90`."""
        height, width = self.image_hw
        top = width - self.left - self.pixels.shape[1]
        return MaskPatch(
            np.ascontiguousarray(np.rot90(self.pixels)), self.top, top, (width, height)
        )

    def on_grid(self, frame: ModelFrame, grid_size: int) -> NDArray[np.bool_]:
        """Area-average the mask onto a coarse grid over the model input.

        Args:
            frame: The frame of the image in the model input.
            grid_size: Rows and columns of the grid, G.

        Returns:
            (G, G) bool, true where more than half of the cell belongs to the object; padding is
            false.
        """
        cell_px = frame.image_size / grid_size  # side of a cell in model pixels
        cell_w, cell_h = (cell_px / frame.scale_xy.astype(np.float64)).tolist()  # in image pixels
        rows, cols = self.pixels.shape
        first_x, edges_x = _cell_edges(self.left, cols, cell_w, grid_size)
        first_y, edges_y = _cell_edges(self.top, rows, cell_h, grid_size)

        # Object pixels above and left of every corner of a cell; between the corners of pixels
        # this is linear along either axis, so the sums over cells are exact areas.
        summed = cv2.integral(self.pixels)
        summed = _interpolate_rows(summed, edges_y)
        summed = _interpolate_rows(np.ascontiguousarray(summed.T), edges_x).T
        covered_px = np.diff(np.diff(summed, axis=0), axis=1)

        grid = np.zeros((grid_size, grid_size), np.bool_)
        cells = grid[first_y : first_y + len(edges_y) - 1, first_x : first_x + len(edges_x) - 1]
        cells[:] = covered_px > 0.5 * cell_w * cell_h
        return grid


def _cell_edges(
    start: int, length: int, cell: float, grid_size: int
) -> tuple[int, NDArray[np.float64]]:
    """Return the first cell a patch touches and the edges of its cells, from the patch's start."""
    first = int(start / cell)
    last = min(grid_size, int(np.ceil((start + length) / cell)))
    edges = np.arange(first, last + 1) * cell - start
    return first, edges.clip(0, length)


def _interpolate_rows(values: NDArray[Any], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate linearly between the rows of `values`; `at` counts rows."""
    below = np.minimum(at.astype(np.intp), len(values) - 2)
    share = (at - below)[:, None]
    return values[below] * (1 - share) + values[below + 1] * share
