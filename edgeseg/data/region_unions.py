"""Groups as well as parts: an object may become the union of itself and its neighbours.

Annotators draw one level of a scene: garments but not outfits, or regions but not things. The union
of regions that lie together is a region too, and costs no annotation. Most unions are bad targets,
so one is used only if a person could mean it with one box: its members touch along a border, none
holds another, together they fill their box, and the box tells the union from its members.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pydantic import BaseModel, ConfigDict, Field

from edgeseg.data.mask_patches import MaskPatch
from edgeseg.data.segmentations import CocoRle

_MAX_TRIES = 6
"""Neighbours tried for one union; every one has to be decoded, which takes time."""


class UnionConfig(BaseModel):
    """Objects that become the union of themselves and neighbouring masks of their image.

    An object stays as it is when no union with its neighbours keeps the limits.

    Attributes:
        probability: Share of the objects for which a union is looked for.
        max_members: Most masks of one union; the number wanted is uniform from 2 to this.
        max_gap: Widest gap between two masks that count as touching, as a share of the longest
            side of the image; at least one pixel.
        min_contact: Least length along which two masks touch, as a share of the side of a square
            with the area of the smaller one. Parts that are `max_gap` away count as nothing, parts
            without a gap in full.
        max_overlap: Largest share of the smaller mask that may lie in the other one. Masks that
            hold one another are a whole and its part, and their union would be the whole again.
        min_fill: Least share of its bounding box that a union fills; scattered unions fill little.
        min_member_share: Least share of a union that each member must add.
        max_area_share: Largest union, as a share of the image that is seen.
        max_box_iou: Largest IoU of the union's box with the box of a part of it. With equal boxes
            one prompt would have two answers.
        max_border: A mask is taken for background (sky, road, wall) and stays alone when the sides
            of its box that lie on the image's edge are together longer than this, in sides of a
            square with its area.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: float = Field(default=0.5, ge=0, le=1)
    max_members: int = Field(default=3, ge=2)
    max_gap: float = Field(default=0.005, ge=0, le=0.1)
    min_contact: float = Field(default=0.3, ge=0, le=1)
    max_overlap: float = Field(default=0.1, ge=0, le=1)
    min_fill: float = Field(default=0.55, ge=0, le=1)
    min_member_share: float = Field(default=0.1, ge=0, le=0.5)
    max_area_share: float = Field(default=0.4, gt=0, le=1)
    max_box_iou: float = Field(default=0.8, gt=0, le=1)
    max_border: float = Field(default=0.8, ge=0)

    def gap_px(self, image_hw: tuple[int, int]) -> int:
        """Return the widest gap in an image of this height and width, in pixels."""
        return max(1, round(self.max_gap * max(image_hw)))


class RegionUnions:
    """Draws unions of the masks of one image as one view shows it; no union comes twice.

    Args:
        rles: All masks of the image.
        patch_of: Gives the mask of a number as it is seen, in pixels as large as those of the
            image, or None when it is hidden.
        config: The limits of a union.
        rng: Source of randomness.
    """

    def __init__(
        self,
        rles: Sequence[CocoRle],
        patch_of: Callable[[int], MaskPatch | None],
        config: UnionConfig,
        rng: np.random.Generator,
    ) -> None:
        self._rles = rles
        self._patch_of = patch_of
        self._config = config
        self._rng = rng
        self._regions: _Regions | None = None  # until the first union is wanted
        self._made: set[frozenset[int]] = set()

    def vary(self, index: int, patch: MaskPatch) -> MaskPatch:
        """Return a union with this object in it, or the object as it is.

        Args:
            index: Number of the object.
            patch: The object as it is seen.
        """
        if self._rng.random() >= self._config.probability:
            return patch
        if self._regions is None:
            self._regions = _Regions(self._rles, self._config)
        members, union = self._grow(index, patch, self._regions)
        if members in self._made:
            return patch
        self._made.add(members)
        return union

    def _grow(
        self, index: int, patch: MaskPatch, regions: "_Regions"
    ) -> tuple[frozenset[int], MaskPatch]:
        """Add neighbours one by one, at random, until there are enough or none fits."""
        wanted = int(self._rng.integers(2, self._config.max_members + 1))
        members, union = {index}, patch
        waiting = regions.neighbours(index)
        known = {index, *waiting}
        for _ in range(_MAX_TRIES):
            if not waiting or len(members) == wanted:
                break
            candidate = waiting.pop(int(self._rng.integers(len(waiting))))
            other = self._patch_of(candidate)
            joined = other and join_regions(union, other, self._config, regions.gap_px)
            if joined is None:
                continue
            members.add(candidate)
            union = joined
            waiting += [k for k in regions.neighbours(candidate) if k not in known]
            known.update(waiting)
        return frozenset(members), union


class _Regions:
    """What the run lengths of an image's masks tell without decoding them.

    Args:
        rles: All masks of the image.
        config: The limits of a union.
    """

    def __init__(self, rles: Sequence[CocoRle], config: UnionConfig) -> None:
        height, width = rles[0]["size"]
        self.gap_px = config.gap_px((height, width))
        self._config = config
        self._areas_px = coco_mask.area(list(rles)).astype(np.float64)
        boxes_xywh = np.asarray(coco_mask.toBbox(list(rles)), np.float64)
        sides = boxes_xywh[:, 2:]
        self._start = boxes_xywh[:, :2]
        self._end = self._start + sides
        self._box_px = sides.prod(axis=1)
        on_edge = (self._start == 0).astype(int) + (self._end == [width, height])  # (N, 2) in 0..2
        border_px = (on_edge * sides[:, ::-1]).sum(axis=1)  # a box's left side is its height long
        self._is_part = border_px <= config.max_border * np.sqrt(self._areas_px)

    def neighbours(self, index: int) -> list[int]:
        """Return the masks near one, and of a size, that a union of the two is not ruled out."""
        if not self._is_part[index]:
            return []
        gap_px = np.maximum(self._start - self._end[index], self._start[index] - self._end)
        near = self._is_part & (gap_px.max(axis=1) < self.gap_px)
        near[index] = False

        sides = np.maximum(self._end, self._end[index]) - np.minimum(
            self._start, self._start[index]
        )
        union_box_px = sides.prod(axis=1)
        area_px = self._areas_px + self._areas_px[index]  # at most; less where they overlap
        smaller_px = np.minimum(self._areas_px, self._areas_px[index])
        near &= (
            np.maximum(self._box_px, self._box_px[index]) <= self._config.max_box_iou * union_box_px
        )
        near &= smaller_px >= self._config.min_member_share * area_px
        near &= area_px >= self._config.min_fill * union_box_px
        return np.flatnonzero(near).tolist()


def join_regions(
    first: MaskPatch, second: MaskPatch, config: UnionConfig, gap_px: int
) -> MaskPatch | None:
    """Return the union of two regions of one image, or None when it is no good target.

    Args:
        first: A mask, or a union already.
        second: A mask of the same image.
        config: The limits of a union.
        gap_px: Widest gap between regions that count as touching, in pixels.
    """
    left, top = min(first.left, second.left), min(first.top, second.top)
    ends = [np.add([patch.left, patch.top], patch.pixels.shape[::-1]) for patch in (first, second)]
    right, bottom = np.maximum(*ends).tolist()
    box_px = (right - left) * (bottom - top)
    if max(first.pixels.size, second.pixels.size) > config.max_box_iou * box_px:
        return None  # a box inside another one has their areas' ratio as IoU
    window_xyxy = (left, top, right, bottom)
    one, other = _in_window(first, window_xyxy), _in_window(second, window_xyxy)
    union = MaskPatch(one | other, left, top, first.image_hw)
    areas_px = first.area_px, second.area_px
    if not _has_good_size(union, areas_px, config):
        return None
    contact_px = _contact_length(one, other, gap_px)
    touch = contact_px > 0 and contact_px >= config.min_contact * np.sqrt(min(areas_px))
    return union if touch else None


def _has_good_size(union: MaskPatch, areas_px: tuple[int, int], config: UnionConfig) -> bool:
    area_px, smaller_px = union.area_px, min(areas_px)
    height, width = union.image_hw
    overlap_px = sum(areas_px) - area_px
    return (
        overlap_px <= config.max_overlap * smaller_px
        and area_px - max(areas_px) >= config.min_member_share * area_px
        and area_px >= config.min_fill * union.pixels.size
        and area_px <= config.max_area_share * height * width
    )


def _contact_length(one: NDArray[np.uint8], other: NDArray[np.uint8], gap_px: int) -> float:
    """Return the length along which two masks of one window touch, in pixels.

    It is the area that the first one gains in the second one when it grows by the widest gap, over
    that gap: parts that have a gap between them count less.
    """
    side = 2 * gap_px + 1
    grown = cv2.dilate(one, np.ones((side, side), np.uint8))
    return np.count_nonzero(np.logical_and(grown > one, other)) / gap_px


def _in_window(patch: MaskPatch, window_xyxy: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Return the mask in a window around it, uint8."""
    x0, y0, x1, y1 = window_xyxy
    rows, cols = patch.pixels.shape
    left, top = patch.left - x0, patch.top - y0
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    mask[top : top + rows, left : left + cols] = patch.pixels
    return mask
