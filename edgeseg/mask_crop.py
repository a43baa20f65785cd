"""A mask without the empty image around it.

Most masks cover a small part of their image. Comparing two of them on the rectangle that holds
both gives the same areas, overlaps and error regions for a fraction of the pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError


@dataclass(frozen=True, eq=False)
class MaskCrop:
    """The rectangle of a mask outside of which it is empty.

    Attributes:
        pixels: (h, w) bool, true on the object.
        offset_xy: Column and row of the rectangle's top left pixel in the image, in pixels.
        image_hw: Height and width of the whole image, in pixels.
    """

    pixels: NDArray[np.bool_]
    offset_xy: tuple[int, int]
    image_hw: tuple[int, int]

    @property
    def area_px(self) -> int:
        """Number of pixels on the object."""
        return int(np.count_nonzero(self.pixels))

    @property
    def edges_xyxy(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edge of the rectangle, in pixels of the image."""
        (x, y), (height, width) = self.offset_xy, self.pixels.shape
        return x, y, x + width, y + height

    def to_mask(self) -> NDArray[np.bool_]:
        """Return the mask at the size of its image, (H, W) bool."""
        mask = np.zeros(self.image_hw, np.bool_)
        self.paste(mask)
        return mask

    def paste(self, mask: NDArray[np.bool_]) -> None:
        """Write the rectangle to its place in an empty mask of the image, (H, W) bool."""
        left, top, right, bottom = self.edges_xyxy
        mask[top:bottom, left:right] = self.pixels


def tight_rectangle(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom edge of the true pixels, all 0 for an empty mask.

    >>> tight_rectangle(np.array([[0, 0, 0], [0, 1, 1]], bool))
    (1, 1, 3, 2)
    """
    if not mask.size:
        return 0, 0, 0, 0
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return x, y, x + width, y + height


def crop_mask(mask: NDArray[np.bool_]) -> MaskCrop:
    """Cut a mask of a whole image, (H, W) bool, down to the rectangle around it.

    >>> crop_mask(np.array([[0, 0, 0], [0, 1, 1]], bool)).offset_xy
    (1, 1)
    """
    left, top, right, bottom = tight_rectangle(mask)
    height, width = mask.shape
    return MaskCrop(mask[top:bottom, left:right].copy(), (left, top), (height, width))


def overlap_px(first: MaskCrop, second: MaskCrop) -> int:
    """Return the number of pixels that two masks of one image share.

    Raises:
        DataError: The masks belong to images of different sizes.
    """
    _check_one_image(first, second)
    left, top, right, bottom = (
        pick(ours, theirs)
        for pick, ours, theirs in zip(
            (max, max, min, min), first.edges_xyxy, second.edges_xyxy, strict=True
        )
    )
    if left >= right or top >= bottom:
        return 0
    shared = [
        crop.pixels[
            top - crop.offset_xy[1] : bottom - crop.offset_xy[1],
            left - crop.offset_xy[0] : right - crop.offset_xy[0],
        ]
        for crop in (first, second)
    ]
    return int(np.count_nonzero(shared[0] & shared[1]))


def joint_window(
    first: MaskCrop, second: MaskCrop, margin_px: int = 0
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[int, int]]:
    """Lay two masks of one image on the smallest rectangle that holds both.

    Args:
        first: One mask.
        second: Another mask of the same image.
        margin_px: Pixels to add on every side as far as the image reaches.

    Returns:
        Both masks as (h, w) bool on that rectangle, and the column and row of its top left pixel.

    Raises:
        DataError: The masks belong to images of different sizes.
    """
    _check_one_image(first, second)
    edges = [crop.edges_xyxy for crop in (first, second) if crop.pixels.size] or [(0, 0, 1, 1)]
    height, width = first.image_hw
    left = max(0, min(edge[0] for edge in edges) - margin_px)
    top = max(0, min(edge[1] for edge in edges) - margin_px)
    right = min(width, max(edge[2] for edge in edges) + margin_px)
    bottom = min(height, max(edge[3] for edge in edges) + margin_px)
    windows = []
    for crop in (first, second):
        window = np.zeros((bottom - top, right - left), np.bool_)
        x0, y0, x1, y1 = crop.edges_xyxy
        if crop.pixels.size:
            window[y0 - top : y1 - top, x0 - left : x1 - left] = crop.pixels
        windows.append(window)
    return windows[0], windows[1], (left, top)


def _check_one_image(first: MaskCrop, second: MaskCrop) -> None:
    if first.image_hw != second.image_hw:
        raise DataError(
            f"two masks can only be compared on one image, got sizes {first.image_hw} and "
            f"{second.image_hw} (height, width); bring both to the size of the image first"
        )
