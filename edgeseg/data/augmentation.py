"""Seen differently: crops, flips, turns and colours, the same for an image and its masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from edgeseg.data.copy_paste import PasteConfig
from edgeseg.data.mask_patches import MaskPatch
from edgeseg.data.region_unions import UnionConfig

_LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G and B in brightness (ITU-R BT.601)."""
_MID_GREY = 127.5
"""What a change of contrast leaves as it is, on the 0..255 scale."""


class CropConfig(BaseModel):
    """A random window that is scaled up to the full input, so objects come in more sizes.

    Attributes:
        probability: Share of the images that are cropped.
        min_area_share: Smallest window as a share of the image's area; the share is uniform.
        max_aspect_change: Largest factor, above or below, between the window's and the image's
            ratio of width to height.
        max_lost_share: A mask that loses more than this share of its area is dropped.
        min_area_px: A mask with fewer pixels than this left in the window is dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: float = Field(default=1.0, ge=0, le=1)
    min_area_share: float = Field(default=0.35, gt=0, le=1)
    max_aspect_change: float = Field(default=1.33, ge=1, le=4)
    max_lost_share: float = Field(default=0.5, ge=0, lt=1)
    min_area_px: int = Field(default=16, ge=1)


class ColorConfig(BaseModel):
    """Random brightness, contrast and saturation; hue stays, it tells things apart.

    Attributes:
        brightness: The factor is uniform in 1 - this to 1 + this.
        contrast: As above, around mid grey.
        saturation: As above; 0 would be grey.
        grey_probability: Share of the images that become grey.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    brightness: float = Field(default=0.25, ge=0, lt=1)
    contrast: float = Field(default=0.25, ge=0, lt=1)
    saturation: float = Field(default=0.25, ge=0, lt=1)
    grey_probability: float = Field(default=0.05, ge=0, le=1)


class AugmentationConfig(BaseModel):
    """What may happen to a training image.

    Attributes:
        horizontal_flip: Share of the images mirrored left to right.
        vertical_flip: Share mirrored top to bottom, for images without an up: microscopy, tiles.
        quarter_turn: Share turned by 90 degrees, for the same images.
        crop: Random windows, or None.
        color: Random colours, or None.
        union: Objects that become the union of neighbouring masks, or None.
        paste: Objects of other images pasted onto this one, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    horizontal_flip: float = Field(default=0.5, ge=0, le=1)
    vertical_flip: float = Field(default=0.0, ge=0, le=1)
    quarter_turn: float = Field(default=0.0, ge=0, le=1)
    crop: CropConfig | None = None
    color: ColorConfig | None = None
    union: UnionConfig | None = None
    paste: PasteConfig | None = None


@dataclass(frozen=True, eq=False)
class View:
    """One drawn way to see an image: a window, then flips, then a turn, and colours.

    Attributes:
        image_hw: Height and width of the original image, in pixels.
        window_xyxy: x0 y0 x1 y1 of the window in the original image, along pixel edges.
        flip_x: Mirror left to right.
        flip_y: Mirror top to bottom.
        turn: Turn by 90 degrees against the clock.
        color_matrix: (3, 4) float32 from R, G, B, 1 to R, G, B, or None to leave colours alone.
        max_lost_share: A mask that loses more than this share of its area to the window is hidden.
        min_area_px: A mask with fewer pixels than this in the window is hidden.
    """

    image_hw: tuple[int, int]
    window_xyxy: tuple[int, int, int, int]
    flip_x: bool = False
    flip_y: bool = False
    turn: bool = False
    color_matrix: NDArray[np.float32] | None = None
    max_lost_share: float = 0.0
    min_area_px: int = 1

    @classmethod
    def plain(cls, image_hw: tuple[int, int]) -> "View":
        """Return the view that changes nothing."""
        return cls(image_hw, (0, 0, image_hw[1], image_hw[0]))

    @property
    def is_cropped(self) -> bool:
        """Whether the window is smaller than the image."""
        return self.window_xyxy != (0, 0, self.image_hw[1], self.image_hw[0])

    def without_crop(self) -> "View":
        """Return the same view of the whole image."""
        return replace(self, window_xyxy=View.plain(self.image_hw).window_xyxy)

    def of_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the window, flipped and turned, in its original colours.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        x0, y0, x1, y1 = self.window_xyxy
        seen = image[y0:y1, x0:x1]
        if self.flip_x or self.flip_y:
            axis = -1 if self.flip_x and self.flip_y else int(self.flip_x)
            seen = cv2.flip(seen, axis)  # type: ignore[assignment]
        return np.ascontiguousarray(np.rot90(seen) if self.turn else seen)

    def of_mask(self, patch: MaskPatch) -> MaskPatch | None:
        """Return a mask as it is seen, or None when too little of it is."""
        seen: MaskPatch | None = patch
        if self.is_cropped:
            seen = patch.cropped(self.window_xyxy)
            if seen is None or not self._is_enough(seen.area_px, patch.area_px):
                return None
        assert seen is not None  # only a window hides a mask
        seen = seen.flipped_x() if self.flip_x else seen
        seen = seen.flipped_y() if self.flip_y else seen
        return seen.turned() if self.turn else seen

    def _is_enough(self, seen_px: int, area_px: int) -> bool:
        # The small number is for shares such as 0.9, which floats miss by a hair.
        least = (1 - self.max_lost_share) * area_px - 1e-6
        return seen_px >= max(least, self.min_area_px)

    def recolor(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image of any size in the colours of this view.

        Colours change linearly, so this may follow a resize, where there is less to do.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        if self.color_matrix is None:
            return image
        return cv2.transform(image, self.color_matrix)  # type: ignore[return-value]


def sample_view(
    config: AugmentationConfig, image_hw: tuple[int, int], rng: np.random.Generator
) -> View:
    """Draw one view of an image.

    Args:
        config: What may happen.
        image_hw: Height and width of the image, in pixels.
        rng: Source of randomness.
    """
    plain = View.plain(image_hw)
    crop = config.crop
    has_crop = crop is not None and rng.random() < crop.probability
    return replace(
        plain,
        window_xyxy=_sample_window(crop, image_hw, rng) if crop and has_crop else plain.window_xyxy,
        flip_x=bool(rng.random() < config.horizontal_flip),
        flip_y=bool(rng.random() < config.vertical_flip),
        turn=bool(rng.random() < config.quarter_turn),
        color_matrix=_sample_color_matrix(config.color, rng) if config.color else None,
        max_lost_share=crop.max_lost_share if crop else 0.0,
        min_area_px=crop.min_area_px if crop else 1,
    )


def augment(
    image: NDArray[np.uint8],
    masks: Sequence[NDArray[np.bool_]],
    config: AugmentationConfig,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_] | None]]:
    """Change an image and its masks alike.

    Unions and pasted objects change which masks there are; `build_sample` makes them.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: Each (H, W) bool, not empty.
        config: What may happen.
        rng: Source of randomness.

    Returns:
        (h, w, 3) uint8 RGB, and for every mask (h, w) bool or None when it was dropped.
    """
    view = sample_view(config, (image.shape[0], image.shape[1]), rng)
    patches = [view.of_mask(MaskPatch.of_mask(mask)) for mask in masks]
    seen = [None if patch is None else patch.to_mask() for patch in patches]
    return view.recolor(view.of_image(image)), seen


def _sample_window(
    config: CropConfig, image_hw: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    height, width = image_hw
    area_share = rng.uniform(config.min_area_share, 1)
    log_change = np.log(config.max_aspect_change)
    # A window of this area and ratio has to fit into the image along both sides.
    aspect_change = np.exp(rng.uniform(-log_change, log_change))
    aspect_change = np.clip(aspect_change, area_share, 1 / area_share)
    window_w = min(width, max(1, round(width * np.sqrt(area_share * aspect_change))))
    window_h = min(height, max(1, round(height * np.sqrt(area_share / aspect_change))))
    x0 = int(rng.integers(width - window_w + 1))
    y0 = int(rng.integers(height - window_h + 1))
    return x0, y0, x0 + window_w, y0 + window_h


def _sample_color_matrix(config: ColorConfig, rng: np.random.Generator) -> NDArray[np.float32]:
    brightness = 1 + rng.uniform(-config.brightness, config.brightness)
    contrast = 1 + rng.uniform(-config.contrast, config.contrast)
    saturation = 1 + rng.uniform(-config.saturation, config.saturation)
    if rng.random() < config.grey_probability:
        saturation = 0.0
    mix = saturation * np.eye(3) + (1 - saturation) * _LUMA  # grey copies luma into R, G and B
    offset = np.full((3, 1), (1 - contrast) * _MID_GREY)
    return np.hstack([contrast * brightness * mix, offset]).astype(np.float32)
