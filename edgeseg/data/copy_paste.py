"""Objects of one image pasted onto another one: more scenes and occlusions from the same masks.

Source: Simple Copy-Paste (Ghiasi et al. 2021, arXiv:2012.07177). What differs: an object that an
edge of its image cuts off is pasted at that edge, so that no cut lies open in the scene; sizes are
bounded; background, parts of other objects, objects in several pieces and what could hardly be seen
in its place are not pasted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeseg.data.cutouts import Cutout, PlacedCutout
from edgeseg.data.donors import border_share, is_one_piece, is_part
from edgeseg.data.learned_objects import LearnedObject
from edgeseg.data.mask_patches import MaskPatch
from edgeseg.data.records import ImageRecord
from edgeseg.data.segmentations import CocoRle

_MAX_TRIES = 8
"""Objects of a donor that are cut out and tried; each takes time."""
_KEPT_SHARE = 0.6
"""Least area of a low-res mask as a share of the object's; thin objects become dots in it."""


class PasteConfig(BaseModel):
    """Objects of another image of the same domain, pasted onto the image as it is seen.

    Pasted objects are learned like the image's own; together they are at most `max_instances`.
    Where objects are not learned, as in the encoder stage, nothing is pasted.

    Attributes:
        probability: Share of the images onto which is pasted.
        max_objects: Most objects pasted onto one image; their number is uniform from 1 to this.
        min_scale: Smallest factor of an object's size. At 1 it takes as much of the longest side
            of what is seen as it took of the longest side of its own image.
        max_scale: Largest factor; the factor's logarithm is uniform between the two.
        horizontal_flip: Share of the objects mirrored left to right.
        min_area_share: An object that would cover less than this share of the image is not pasted.
        max_area_share: An object that would cover more than this share is made smaller.
        max_border: An object is taken for background (sky, floor, wall) and not pasted when it
            touches the edge of its image along more than this, in sides of a square with its area.
        min_contrast: Least difference between an object and what it covers, 0..255: the mean of the
            most different colour channel, both blurred a little. Less could hardly be seen.
        max_lost_share: A mask that loses more than this share of what is seen of it to pasted
            objects is dropped.
        edge_px: How soft a pasted object's edge is: standard deviation of a Gaussian, in pixels of
            the image before it is resized for the network. Masks stay sharp.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: float = Field(default=0.3, ge=0, le=1)
    max_objects: int = Field(default=3, ge=1)
    min_scale: float = Field(default=0.5, gt=0)
    max_scale: float = Field(default=1.5, le=10)
    horizontal_flip: float = Field(default=0.5, ge=0, le=1)
    min_area_share: float = Field(default=0.001, ge=0, le=1)
    max_area_share: float = Field(default=0.25, gt=0, le=1)
    max_border: float = Field(default=1.2, ge=0)
    min_contrast: float = Field(default=8.0, ge=0, le=255)
    max_lost_share: float = Field(default=0.5, ge=0, lt=1)
    edge_px: float = Field(default=0.8, ge=0, le=10)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for low, high in (("min_scale", "max_scale"), ("min_area_share", "max_area_share")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} = {getattr(self, low)} is above {high} = {getattr(self, high)}; "
                    "lower it or raise the other"
                )
        return self


@dataclass(frozen=True, eq=False)
class Paste:
    """An image with objects of another one pasted onto it.

    Attributes:
        image: (H, W, 3) uint8 RGB, with the objects in it.
        covered: The pixels of each object, the upper ones last; at least one.
        max_lost_share: A mask that loses more than this share of its area is hidden.
    """

    image: NDArray[np.uint8]
    covered: tuple[MaskPatch, ...]
    max_lost_share: float

    def under(self, patch: MaskPatch) -> MaskPatch | None:
        """Return what is left to see of a mask of the image, or None when it is too little.

        A mask that no object covers is returned as it is.
        """
        return _uncovered(patch, self.covered, self.max_lost_share)

    def objects(self) -> list[MaskPatch]:
        """Return what is to be seen of each pasted object, without those that others hide."""
        seen = [
            _uncovered(patch, self.covered[number:], self.max_lost_share)
            for number, patch in enumerate(self.covered, start=1)
        ]
        return [patch for patch in seen if patch is not None]


def sample_paste(
    donor: ImageRecord,
    config: PasteConfig,
    image: NDArray[np.uint8],
    student_size: int,
    rng: np.random.Generator,
) -> Paste | None:
    """Draw objects of a donor and paste them, or return None when none of them can be used.

    Args:
        donor: The image to take objects from.
        config: What may happen.
        image: (H, W, 3) uint8 RGB, the image onto which is pasted, as it is seen; left as it is.
        student_size: Side S of the student's square input, in pixels; a multiple of 4. Objects too
            thin for their low-res mask are not pasted.
        rng: Source of randomness.

    Raises:
        DataError: The donor or one of its annotations cannot be read or used.
        ImageError: The donor cannot be decoded.
    """
    donor_image = donor.read_image()
    rles = donor.read_masks((donor_image.shape[0], donor_image.shape[1]))
    image_hw = (image.shape[0], image.shape[1])
    wanted = int(rng.integers(1, config.max_objects + 1))
    pasted = image.copy()
    covered: list[MaskPatch] = []
    for rle, scale in islice(_sample_scales(rles, config, image_hw, rng), _MAX_TRIES):
        placed = _sample_place(donor_image, MaskPatch.of_rle(rle), scale, config, image_hw, rng)
        if placed is None or not _is_good_target(placed, pasted, config, student_size):
            continue
        placed.blend(pasted)
        covered.append(placed.patch)
        if len(covered) == wanted:
            break
    return Paste(pasted, tuple(covered), config.max_lost_share) if covered else None


def _sample_place(
    donor_image: NDArray[np.uint8],
    patch: MaskPatch,
    scale: float,
    config: PasteConfig,
    image_hw: tuple[int, int],
    rng: np.random.Generator,
) -> PlacedCutout | None:
    """Cut an object out, flip it or not, scale it and choose its place."""
    is_flipped = bool(rng.random() < config.horizontal_flip)
    if not is_one_piece(patch) or border_share(patch) > config.max_border:
        return None
    margin_px = int(np.ceil((3 * config.edge_px + 1) / scale))  # a Gaussian ends at 3 sigma
    cutout = Cutout.of_image(donor_image, patch, margin_px)
    cutout = (cutout.flipped_x() if is_flipped else cutout).scaled(scale)
    return cutout.placed_at_random(image_hw, config.edge_px, rng)


def _is_good_target(
    placed: PlacedCutout, image: NDArray[np.uint8], config: PasteConfig, student_size: int
) -> bool:
    """Return whether an object can be seen in its place, and its low-res mask is like it."""
    if placed.contrast(image) < config.min_contrast:
        return False
    return LearnedObject.of_patch(placed.patch, student_size).kept_share >= _KEPT_SHARE


def _sample_scales(
    rles: list[CocoRle], config: PasteConfig, image_hw: tuple[int, int], rng: np.random.Generator
) -> Iterator[tuple[CocoRle, float]]:
    """Yield usable objects in random order, each with its pixels along a side per donor pixel.

    Areas, boxes and overlaps come from the run lengths; what is not pasted is not decoded.
    """
    if not rles:
        return
    donor_h, donor_w = rles[0]["size"]
    areas_px = coco_mask.area(rles).astype(np.float64)
    sides = np.asarray(coco_mask.toBbox(rles), np.float64)[:, 2:]
    is_thing = (sides < [donor_w, donor_h]).all(axis=1)  # else background from edge to edge
    height, width = image_hw
    image_px = height * width
    for number in rng.permutation(np.flatnonzero(is_thing)).tolist():
        factor = np.exp(rng.uniform(np.log(config.min_scale), np.log(config.max_scale)))
        scale = min(
            factor * max(image_hw) / max(donor_h, donor_w),
            np.sqrt(config.max_area_share * image_px / areas_px[number]),
            *(np.array([width, height]) / sides[number]).tolist(),
        )
        if areas_px[number] * scale**2 < config.min_area_share * image_px:
            continue
        larger = np.flatnonzero(is_thing & (areas_px > areas_px[number]))
        if not is_part(rles[number], [rles[k] for k in larger]):
            yield rles[number], float(scale)


def _uncovered(
    patch: MaskPatch, above: Sequence[MaskPatch], max_lost_share: float
) -> MaskPatch | None:
    """Return a mask without the pixels of others, or None when it loses too much.

    A mask that loses nothing is returned as it is.
    """
    rows, cols = patch.pixels.shape
    window_xyxy = (patch.left, patch.top, patch.left + cols, patch.top + rows)
    area_px = left_px = patch.area_px
    pixels = patch.pixels
    for other in above:
        covering = other.cropped(window_xyxy)
        if covering is not None:
            pixels = pixels & ~covering.to_mask()
            left_px = cv2.countNonZero(pixels)
    if left_px == area_px:
        return patch
    # The small number is for shares such as 0.9, which floats miss by a hair.
    if left_px < max((1 - max_lost_share) * area_px - 1e-6, 1):
        return None
    tight = MaskPatch.of_mask(pixels)
    left, top = patch.left + tight.left, patch.top + tight.top
    return MaskPatch(np.ascontiguousarray(tight.pixels), left, top, patch.image_hw)
