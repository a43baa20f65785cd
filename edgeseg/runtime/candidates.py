"""Masks that were answered to prompts nobody asked, before it is decided which of them stay.

Thousands of them may be held at once, so of each only the logits around the mask are kept: what is
needed to bring it to the size of the image, exactly.

Source: the filters of SAM's automatic mask generator (Kirillov et al. 2023, arXiv:2304.02643).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgeseg.geometry import ModelFrame
from edgeseg.mask_crop import MaskCrop, tight_rectangle
from edgeseg.postprocess import content_logits, crop_of_logits, stability_score
from edgeseg.proposals import kept_boxes
from edgeseg.runtime.masks import Masks

_OUTSIDE = np.float32(-100.0)
"""Logit of the cells that are not kept; they are all outside the mask."""


@dataclass(frozen=True)
class Window:
    """The part of an image that the network saw.

    Attributes:
        frame: Its place in the model input.
        offset_xy: Column and row of its top left pixel in the image.
        image_hw: Height and width of the whole image, in pixels.
    """

    frame: ModelFrame
    offset_xy: tuple[int, int]
    image_hw: tuple[int, int]

    @classmethod
    def whole(cls, frame: ModelFrame) -> "Window":
        """Return the window that is the whole image."""
        return cls(frame, (0, 0), frame.image_hw)

    @property
    def xywh(self) -> tuple[int, int, int, int]:
        """Left, top, width and height, in pixels of the image."""
        height, width = self.frame.image_hw
        return (*self.offset_xy, width, height)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One mask.

    Attributes:
        window: Where it was found.
        cells: (h, w) float32, its low-res logits, with one cell around the mask.
        offset_xy: Column and row of the first of them among those of the window.
        score: The model's own estimate of its IoU.
        confidence: What decides between two equal masks; the higher the better.
        stability: How little it changes when its threshold moves, 0..1.
        box_xyxy: (4,) float32, its box in pixels of the image, as exact as a low-res cell.
        point_xy: (2,) float32, the point or the middle of the box it answers, in image pixels.
    """

    window: Window
    cells: NDArray[np.float32]
    offset_xy: tuple[int, int]
    score: float
    confidence: float
    stability: float
    box_xyxy: NDArray[np.float32]
    point_xy: NDArray[np.float32]

    @cached_property
    def num_cells(self) -> int:
        """Number of low-res cells on the object."""
        return int(np.count_nonzero(self.cells > 0))

    @property
    def low_res_logits(self) -> NDArray[np.float32]:
        """(S/4, S/4) float32 logits of the window, far below zero where they were not kept."""
        side = self.window.frame.image_size // 4
        logits = np.full((side, side), _OUTSIDE, np.float32)
        (x, y), (height, width) = self.offset_xy, self.cells.shape
        logits[y : y + height, x : x + width] = self.cells
        return logits

    def crop(self) -> MaskCrop:
        """Return the mask at the size of the image."""
        crop = crop_of_logits(self.low_res_logits, self.window.frame)
        left, top = self.window.offset_xy
        x, y = crop.offset_xy
        return MaskCrop(crop.pixels, (left + x, top + y), self.window.image_hw)


def grid_points(image_hw: tuple[int, int], points_per_side: int) -> NDArray[np.float32]:
    """Return the points of an even grid, (points_per_side ** 2, 2) float32, x y in image pixels.

    >>> grid_points((4, 8), 2).tolist()
    [[2.0, 1.0], [6.0, 1.0], [2.0, 3.0], [6.0, 3.0]]
    """
    height, width = image_hw
    steps = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(steps * width, steps * height)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


@dataclass(frozen=True)
class Quality:
    """What must be true of a mask.

    Attributes:
        min_score: Smallest IoU that the model predicts.
        min_stability: Smallest stability.
        stability_offset: Distance of the two thresholds of stability from zero, in logits.
    """

    min_score: float
    min_stability: float
    stability_offset: float = 1.0


def good_candidates(
    logits: NDArray[np.float32],
    scores: NDArray[np.float32],
    points_xy: NDArray[np.float32],
    chances: NDArray[np.float32],
    window: Window,
    quality: Quality,
) -> Iterator[Candidate]:
    """Yield the masks that the model believes in and that do not hang on their threshold.

    Args:
        logits: (M, S/4, S/4) float32, low-res logits in the model frame.
        scores: (M,) float32, predicted IoU.
        points_xy: (M, 2) float32, what each one answers, in pixels of the window.
        chances: (M,) float32, how likely there is an object at all; a mask's confidence is its
            score times this.
        window: The part of the image in the model input.
        quality: What must be true of a mask.
    """
    frame, offset = window.frame, quality.stability_offset
    cells_xy = frame.image_size / logits.shape[-1] / frame.scale_xy  # image pixels a cell
    height, width = frame.image_hw
    bottom_right = np.array([width, height, width, height], np.float32)
    shift = np.array(window.offset_xy, np.float32)
    for index in np.flatnonzero(scores >= quality.min_score).tolist():
        content = content_logits(logits[index], frame)
        left, top, right, bottom = tight_rectangle(content > 0)
        if right == left:
            continue
        # No cell outside this rectangle is above either threshold.
        x0, y0, x1, y1 = tight_rectangle(content > -abs(offset))
        stability = float(stability_score(content[y0:y1, x0:x1], offset))
        if stability < quality.min_stability:
            continue
        x0, y0 = max(0, left - 1), max(0, top - 1)
        edges = np.array([left, top, right, bottom], np.float32) * np.tile(cells_xy, 2)
        yield Candidate(
            window=window,
            cells=content[y0 : bottom + 1, x0 : right + 1].copy(),
            offset_xy=(x0, y0),
            score=float(scores[index]),
            confidence=float(scores[index] * chances[index]),
            stability=stability,
            box_xyxy=np.minimum(edges, bottom_right) + np.tile(shift, 2),
            point_xy=points_xy[index] + shift,
        )


def to_masks(candidates: Sequence[Candidate], frame: ModelFrame) -> tuple[list[Candidate], Masks]:
    """Bring masks to the size of the image.

    A lone cell may fall between the pixels of a small image; such a mask is left out.

    Args:
        candidates: Masks of one image.
        frame: Of the whole image.

    Returns:
        The candidates that are left, and their masks in the same order; `low_res_logits` are those
        of their windows, `prompt_indices` are all 0.
    """
    pairs = [(candidate, candidate.crop()) for candidate in candidates]
    pairs = [(candidate, crop) for candidate, crop in pairs if crop.pixels.size]
    side = frame.image_size // 4
    logits = [candidate.low_res_logits for candidate, _ in pairs]
    masks = Masks(
        crops=tuple(crop for _, crop in pairs),
        image_hw=frame.image_hw,
        low_res_logits=np.array(logits, np.float32).reshape(-1, side, side),
        scores=np.array([candidate.score for candidate, _ in pairs], np.float32),
        prompt_indices=np.zeros(len(pairs), np.int64),
    )
    return [candidate for candidate, _ in pairs], masks


def without_equal_boxes(candidates: Sequence[Candidate], max_iou: float) -> list[Candidate]:
    """Leave out masks whose boxes overlap that of a better one too much, as SAM's generator does.

    Returns:
        The others, best first.
    """
    boxes = np.array([c.box_xyxy for c in candidates], np.float32).reshape(-1, 4)
    confidences = np.array([c.confidence for c in candidates], np.float32)
    return [candidates[index] for index in kept_boxes(boxes, confidences, max_iou)]


def without_equal_masks(candidates: Sequence[Candidate], max_iou: float) -> list[Candidate]:
    """Leave out masks of one window that overlap a better one too much, cell by cell.

    Two objects with one box, such as a ring and what is in it, both stay.

    Returns:
        The others, best first.
    """
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: -c.confidence):  # stable: earlier ones first
        if all(mask_iou(candidate, other) <= max_iou for other in kept):
            kept.append(candidate)
    return kept


def mask_iou(first: Candidate, second: Candidate) -> float:
    """Return the IoU of two masks of one window at low resolution."""
    (ax, ay), (ah, aw) = first.offset_xy, first.cells.shape
    (bx, by), (bh, bw) = second.offset_xy, second.cells.shape
    left, top = max(ax, bx), max(ay, by)
    right, bottom = min(ax + aw, bx + bw), min(ay + ah, by + bh)
    if left >= right or top >= bottom:
        return 0.0
    ours = first.cells[top - ay : bottom - ay, left - ax : right - ax] > 0
    theirs = second.cells[top - by : bottom - by, left - bx : right - bx] > 0
    both = np.count_nonzero(ours & theirs)
    either = first.num_cells + second.num_cells - both
    return both / either
