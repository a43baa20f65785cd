"""An object cut out of its image, and the place where it is pasted into another one."""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.mask_patches import MaskPatch

_BLUR_SIZE = (7, 7)
"""Width and height over which colours are averaged before they are compared, in pixels."""


@dataclass(frozen=True, eq=False)
class PlacedCutout:
    """An object where it is pasted.

    Attributes:
        patch: Its pixels in the image into which it is pasted.
        colors: (h, w, 3) uint8 RGB, the object with a margin for its soft edge.
        opacity: (h, w) uint8, 255 where only the object is seen.
        left: Column of the image in which `colors` begins.
        top: Row of the image in which `colors` begins.
    """

    patch: MaskPatch
    colors: NDArray[np.uint8]
    opacity: NDArray[np.uint8]
    left: int
    top: int

    def contrast(self, image: NDArray[np.uint8]) -> float:
        """Return how much the object differs from what it would cover, 0..255.

        It is the mean over the object of the most different of R, G and B. Both are blurred first,
        so that grass on grass counts as equal.

        Args:
            image: (H, W, 3) uint8 RGB, before the object is drawn into it.
        """
        rows, cols = self.patch.pixels.shape
        left, top = self.patch.left - self.left, self.patch.top - self.top
        own = self.colors[top : top + rows, left : left + cols]
        left, top = self.patch.left, self.patch.top
        under = image[top : top + rows, left : left + cols]
        difference = cv2.absdiff(cv2.blur(own, _BLUR_SIZE), cv2.blur(under, _BLUR_SIZE))
        return max(cv2.mean(difference, self.patch.pixels)[:3])

    def blend(self, image: NDArray[np.uint8]) -> None:
        """Draw the object into a (H, W, 3) uint8 RGB image, in place."""
        rows, cols = self.opacity.shape
        under = image[self.top : self.top + rows, self.left : self.left + cols]
        share = self.opacity[..., None] / np.float32(255)
        under[:] = np.rint(under + (self.colors - under.astype(np.float32)) * share)


@dataclass(frozen=True, eq=False)
class Cutout:
    """An object with some pixels around it, cut out of its image.

    Attributes:
        colors: (h, w, 3) uint8 RGB.
        mask: (h, w) uint8, 255 on the object.
        cut_off: (2, 2) bool, whether the edge of the image touches the object: left and right, then
            top and bottom.
    """

    colors: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    cut_off: NDArray[np.bool_]

    @classmethod
    def of_image(cls, image: NDArray[np.uint8], patch: MaskPatch, margin_px: int) -> Self:
        """Cut an object out.

        Args:
            image: (H, W, 3) uint8 RGB.
            patch: The object.
            margin_px: Width of the margin, where the image has so many pixels.
        """
        box_xyxy = patch.box_xyxy.astype(int)
        start, end, size_wh = box_xyxy[:2], box_xyxy[2:], np.array(patch.image_hw[::-1])
        x0, y0 = np.maximum(start - margin_px, 0)
        x1, y1 = np.minimum(end + margin_px, size_wh)
        window = np.s_[y0:y1, x0:x1]
        mask = 255 * patch.to_mask()[window].astype(np.uint8)
        return cls(image[window], mask, np.stack([start == 0, end == size_wh], axis=1))

    def flipped_x(self) -> "Cutout":
        """Return the cutout mirrored left to right."""
        cut_off = np.stack([self.cut_off[0, ::-1], self.cut_off[1]])
        return Cutout(self.colors[:, ::-1], self.mask[:, ::-1], cut_off)

    def scaled(self, scale: float) -> "Cutout":
        """Return the cutout with `scale` times as many pixels along either side, at least one."""
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        rows, cols = self.mask.shape
        size_wh = max(1, round(cols * scale)), max(1, round(rows * scale))
        colors = cv2.resize(np.ascontiguousarray(self.colors), size_wh, interpolation=method)
        mask = cv2.resize(np.ascontiguousarray(self.mask), size_wh, interpolation=method)
        # A pixel belongs to the object when half of it does.
        mask = cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1]
        return Cutout(colors, mask, self.cut_off)  # type: ignore[arg-type]

    def placed_at_random(
        self, image_hw: tuple[int, int], edge_px: float, rng: np.random.Generator
    ) -> PlacedCutout | None:
        """Choose a place in an image; an object that an edge cut off stays at that edge.

        Args:
            image_hw: Height and width of the image, in pixels; at least those of the object.
            edge_px: Standard deviation of the Gaussian that softens the edge, in pixels.
            rng: Source of randomness.

        Returns:
            The object in its place, or None when it has no pixel.
        """
        height, width = image_hw
        inner_left, inner_top, inner_width, inner_height = cv2.boundingRect(self.mask)
        left = _sample_start(self.cut_off[0], inner_width, width, rng) - inner_left
        top = _sample_start(self.cut_off[1], inner_height, height, rng) - inner_top
        rows, cols = self.mask.shape
        inside = np.s_[max(0, -top) : height - top, max(0, -left) : width - left]
        mask = self.mask[inside]
        if not mask.any():
            return None
        left, top = max(0, left), max(0, top)
        patch = MaskPatch.of_mask(mask)
        return PlacedCutout(
            MaskPatch(patch.pixels, left + patch.left, top + patch.top, image_hw),
            self.colors[inside],
            self._opacity(edge_px)[inside],
            left,
            top,
        )

    def _opacity(self, edge_px: float) -> NDArray[np.uint8]:
        return cv2.GaussianBlur(self.mask, (0, 0), edge_px) if edge_px else self.mask  # type: ignore[return-value]


def _sample_start(
    cut_off: NDArray[np.bool_], length: int, room: int, rng: np.random.Generator
) -> int:
    """Return where a stretch of a length begins in a room, both in pixels."""
    last = max(0, room - length)
    at_start, at_end = cut_off.tolist()
    if at_start:
        return 0
    return last if at_end else int(rng.integers(last + 1))
