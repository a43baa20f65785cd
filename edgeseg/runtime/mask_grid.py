"""Everything in an image by a grid of points, as SAM's automatic mask generator finds it.

Slow and exhaustive: every point is asked, on the whole image and, if wanted, again on enlarged
parts of it. `everything` is the fast way. Options and defaults are those of SAM's generator.

Source: Kirillov et al. 2023, Segment Anything, arXiv:2304.02643, appendix B.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError
from edgeseg.geometry import ModelFrame
from edgeseg.mask_crop import MaskCrop, crop_mask
from edgeseg.proposals import kept_boxes
from edgeseg.runtime.asking import Asked, StepClock, ask
from edgeseg.runtime.candidates import (
    Candidate,
    Quality,
    Window,
    grid_points,
    without_equal_boxes,
)
from edgeseg.runtime.everything import EverythingMasks, check_share, gather
from edgeseg.runtime.segmenter import Segmenter

_EDGE_PX = 20
"""A mask that ends this close to the edge of an enlarged part was cut off there."""


@dataclass(frozen=True)
class GridSettings:
    """The options of SAM's automatic mask generator, by its names.

    Attributes:
        points_per_side: Points along each side of the grid.
        pred_iou_thresh: Smallest IoU that the model predicts for a mask.
        stability_score_thresh: Smallest stability of a mask.
        stability_score_offset: Distance of the two thresholds from zero, in logits.
        box_nms_thresh: Largest IoU of the boxes of two masks found in one part of the image.
        crop_n_layers: Layers of enlarged parts; layer i has 4 ** i of them.
        crop_nms_thresh: Largest IoU of the boxes of two masks found in different parts.
        crop_overlap_ratio: Overlap of the parts of the first layer, as a share of the image's
            shorter side; each further layer halves it.
        crop_n_points_downscale_factor: Each layer has this many times fewer points a side.
        min_mask_region_area: Holes and islands of fewer pixels are removed; 0 keeps them.

    Raises:
        ConfigError: A setting is out of range.
    """

    points_per_side: int = 32
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0

    def __post_init__(self) -> None:
        for name in ("box_nms_thresh", "crop_nms_thresh", "crop_overlap_ratio"):
            check_share(name, getattr(self, name))
        for name, least in (
            ("points_per_side", 1),
            ("crop_n_layers", 0),
            ("crop_n_points_downscale_factor", 1),
            ("min_mask_region_area", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more, got {getattr(self, name)}")


def segment_grid(
    segmenter: Segmenter, image: NDArray[np.uint8], settings: GridSettings | None = None
) -> EverythingMasks:
    """Ask at every point of a grid and keep the masks that are good and different.

    Args:
        segmenter: Any model.
        image: (H, W, 3) uint8 RGB.
        settings: See `GridSettings`.

    Raises:
        ImageError: The image is not (H, W, 3) uint8.
    """
    settings = settings or GridSettings()
    clock = StepClock()
    image_hw = (image.shape[0], image.shape[1])
    quality = Quality(
        settings.pred_iou_thresh, settings.stability_score_thresh, settings.stability_score_offset
    )
    found: list[Candidate] = []
    num_prompts = 0
    for layer, left, top, right, bottom in crop_windows(
        image_hw, settings.crop_n_layers, settings.crop_overlap_ratio
    ):
        encoded = segmenter.encode(np.ascontiguousarray(image[top:bottom, left:right]))
        clock.lap("encode")
        window = Window(encoded.frame, (left, top), image_hw)
        factor = settings.crop_n_points_downscale_factor**layer
        points = grid_points(encoded.frame.image_hw, settings.points_per_side // factor)
        num_prompts += len(points)
        answers = ask(segmenter, encoded, Asked.points(points), window, quality, clock)
        inside = [c for c in answers if not is_cut_off(c.box_xyxy, window.xywh, image_hw)]
        found += without_equal_boxes(inside, settings.box_nms_thresh)
        clock.lap("filter")
    if settings.crop_n_layers:
        found = _best_of_parts(found, settings.crop_nms_thresh)
    masks = gather(found, ModelFrame(image_hw, segmenter.backend.image_size), num_prompts, clock)
    if settings.min_mask_region_area:
        masks = _without_specks(masks, settings)
        clock.lap("filter")
    return masks


def crop_windows(
    image_hw: tuple[int, int], num_layers: int, overlap_ratio: float
) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield layer, left, top, right and bottom edge of the whole image and of its parts.

    Layer i lays 2 ** i parts along each side.

    >>> list(crop_windows((100, 200), 1, 0.1))[:3]
    [(0, 0, 0, 200, 100), (1, 0, 0, 105, 55), (1, 95, 0, 200, 55)]
    """
    height, width = image_hw
    yield 0, 0, 0, width, height
    for layer in range(1, num_layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(height, width) * 2 / count)
        part_w = -(-(overlap * (count - 1) + width) // count)
        part_h = -(-(overlap * (count - 1) + height) // count)
        for row in range(count):
            for column in range(count):
                left, top = column * (part_w - overlap), row * (part_h - overlap)
                yield layer, left, top, min(left + part_w, width), min(top + part_h, height)


def is_cut_off(
    box_xyxy: NDArray[np.float32], part_xywh: tuple[int, int, int, int], image_hw: tuple[int, int]
) -> bool:
    """Whether a mask ends where a part of the image does, and the image does not.

    Args:
        box_xyxy: (4,) float32, the mask's box in pixels of the image.
        part_xywh: Left, top, width and height of the part, in pixels of the image.
        image_hw: Height and width of the image.
    """
    left, top, width, height = part_xywh
    part = np.array([left, top, left + width, top + height], np.float32)
    whole = np.array([0, 0, image_hw[1], image_hw[0]], np.float32)
    at_part = np.abs(box_xyxy - part) <= _EDGE_PX
    at_image = np.abs(box_xyxy - whole) <= _EDGE_PX
    return bool((at_part & ~at_image).any())


def _best_of_parts(candidates: Sequence[Candidate], max_iou: float) -> list[Candidate]:
    """Of equal masks keep the one from the smallest part: there the object was largest."""
    boxes = np.array([c.box_xyxy for c in candidates], np.float32).reshape(-1, 4)
    sizes = [c.window.xywh[2] * c.window.xywh[3] for c in candidates]
    preferred = -np.array(sizes, np.float64)
    kept = [candidates[index] for index in kept_boxes(boxes, preferred, max_iou)]
    return sorted(kept, key=lambda candidate: -candidate.confidence)


def _without_specks(found: EverythingMasks, settings: GridSettings) -> EverythingMasks:
    """Fill small holes and remove small islands; a mask that becomes equal to another goes."""
    smallest = settings.min_mask_region_area
    crops, changed = [], []
    for crop in found.masks.crops:
        cleaned, is_changed = clean_mask(crop, smallest)
        crops.append(cleaned)
        changed.append(is_changed)
    cleaned_masks = replace(found, masks=replace(found.masks, crops=tuple(crops)))
    preferred = 1.0 - np.array(changed, np.float32)  # untouched ones first
    max_iou = max(settings.box_nms_thresh, settings.crop_nms_thresh)
    kept = kept_boxes(cleaned_masks.masks.boxes_xyxy, preferred, max_iou)
    return cleaned_masks.take(sorted(kept))  # best first, as they were


def clean_mask(crop: MaskCrop, min_area_px: int) -> tuple[MaskCrop, bool]:
    """Return a mask without small holes and islands, and whether there were any.

    A mask that is nothing but small islands keeps the largest.
    """
    # A rim of background, so that a hole is what does not reach it.
    pixels = np.pad(crop.pixels, 1).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - pixels, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    outside = labels[0, 0]
    holes = [n for n in range(1, count) if n != outside and areas[n] < min_area_px]
    filled = pixels | np.isin(labels, holes)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        filled.astype(np.uint8), connectivity=8
    )
    areas = stats[:, cv2.CC_STAT_AREA]
    islands = [n for n in range(1, count) if areas[n] < min_area_px]
    if not holes and not islands:
        return crop, False
    kept = [n for n in range(1, count) if n not in islands] or [1 + int(areas[1:].argmax())]
    tight = crop_mask(np.isin(labels, kept)[1:-1, 1:-1])
    (x, y), (inner_x, inner_y) = crop.offset_xy, tight.offset_xy
    return MaskCrop(tight.pixels, (x + inner_x, y + inner_y), crop.image_hw), True
