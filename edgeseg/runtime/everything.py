"""Everything in an image: proposals become prompts, and of the masks the good and different stay.

A grid of points asks a thousand times and mostly gets the same masks again; a proposal asks once
where something is. `mask_grid` has the grid.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError
from edgeseg.geometry import ModelFrame
from edgeseg.prompts import Prompt
from edgeseg.runtime.candidates import (
    Candidate,
    Window,
    good_candidates,
    grid_points,
    without_equal_masks,
)
from edgeseg.runtime.masks import Masks
from edgeseg.runtime.segmenter import EncodedImage, Segmenter


@dataclass(frozen=True)
class EverythingSettings:
    """How many proposals are tried and what must be true of a mask.

    Attributes:
        max_prompts: Most proposals decoded, the most confident.
        min_proposal_score: Smallest confidence of a proposal.
        max_box_iou: Largest IoU of two proposals.
        min_score: Smallest IoU that the model predicts for its mask.
        min_stability: Smallest stability of the mask.
        max_mask_iou: Largest IoU of two masks.
        fill_points_per_side: Points along each side of a grid that asks where no mask is yet;
            0 asks nothing more.

    Raises:
        ConfigError: A setting is out of range.
    """

    max_prompts: int = 100
    min_proposal_score: float = 0.02
    max_box_iou: float = 0.8
    min_score: float = 0.3
    min_stability: float = 0.5
    max_mask_iou: float = 0.8
    fill_points_per_side: int = 0

    def __post_init__(self) -> None:
        for name in ("min_proposal_score", "max_box_iou", "min_score", "min_stability"):
            check_share(name, getattr(self, name))
        check_share("max_mask_iou", self.max_mask_iou)
        if self.max_prompts < 0 or self.fill_points_per_side < 0:
            raise ConfigError(
                "max_prompts and fill_points_per_side must be 0 or more, got "
                f"{self.max_prompts} and {self.fill_points_per_side}"
            )


@dataclass(frozen=True, eq=False)
class EverythingMasks:
    """M masks of one image, best first.

    Attributes:
        masks: The masks; `scores` are the IoU the model predicts, `low_res_logits` are those of the
            part of the image each was found in.
        stability: (M,) float32, how little each changes when its threshold moves.
        points_xy: (M, 2) float32, the point, or the middle of the box, that each one answers.
        windows_xywh: (M, 4) int64, the part of the image each was found in.
        num_prompts: Prompts that were decoded.
        seconds: Where the time went, by step.
    """

    masks: Masks
    stability: NDArray[np.float32]
    points_xy: NDArray[np.float32]
    windows_xywh: NDArray[np.int64]
    num_prompts: int
    seconds: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.masks)

    def take(self, indices: Sequence[int]) -> "EverythingMasks":
        """Return some of the masks, in the order of the indices."""
        rows = np.asarray(indices, np.intp)
        return replace(
            self,
            masks=self.masks.take(rows),
            stability=self.stability[rows],
            points_xy=self.points_xy[rows],
            windows_xywh=self.windows_xywh[rows],
        )

    def to_sam(self, with_pixels: bool = False) -> list[dict[str, Any]]:
        """Return the masks as SAM's automatic mask generator does, largest first.

        Args:
            with_pixels: Give each "segmentation" as (H, W) bool instead of COCO run lengths.
        """
        masks = self.masks
        rows = []
        areas = masks.areas_px.tolist()
        rles = [] if with_pixels else masks.to_rle()
        for index in np.argsort(-masks.areas_px, kind="stable").tolist():
            x0, y0, x1, y1 = masks.boxes_xyxy[index].tolist()
            rows.append(
                {
                    "segmentation": masks.crops[index].to_mask() if with_pixels else rles[index],
                    "area": areas[index],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "predicted_iou": float(masks.scores[index]),
                    "point_coords": [self.points_xy[index].tolist()],
                    "stability_score": float(self.stability[index]),
                    "crop_box": self.windows_xywh[index].tolist(),
                }
            )
        return rows

    def summary(self) -> str:
        """Return in one line how many prompts ran and where the time went."""
        steps = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.seconds.items())
        return f"{len(self)} masks from {self.num_prompts} prompts: {steps}"


class StepClock:
    """Adds up where the time goes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        """Count the time since the last lap to a step."""
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._last
        self._last = now


def segment_everything(
    segmenter: Segmenter,
    image: NDArray[np.uint8] | EncodedImage,
    settings: EverythingSettings | None = None,
) -> EverythingMasks:
    """Find what can be segmented in an image, from the model's own proposals.

    Args:
        segmenter: A model with proposals.
        image: (H, W, 3) uint8 RGB, or what `Segmenter.encode` made of it.
        settings: See `EverythingSettings`.

    Raises:
        WeightsError: The model has no proposals.
        ImageError: The image is not (H, W, 3) uint8, or was encoded by another model.
    """
    settings = settings or EverythingSettings()
    clock = StepClock()
    encoded = image if isinstance(image, EncodedImage) else segmenter.encode(image)
    clock.lap("encode")
    proposals = segmenter.propose(encoded)
    proposals = proposals.take(np.flatnonzero(proposals.scores >= settings.min_proposal_score))
    proposals = proposals.suppressed(settings.max_box_iou)
    boxes = proposals.boxes_xyxy[: settings.max_prompts]
    clock.lap("propose")
    found: list[Candidate] = []
    prompts = [Prompt(box_xyxy=box) for box in boxes]
    middles = np.float32(0.5) * (boxes[:, :2] + boxes[:, 2:])
    asked = _Asked(prompts, middles, proposals.scores)
    for candidates in _answers(segmenter, encoded, asked, settings, clock):
        found += candidates
    kept = without_equal_masks(found, settings.max_mask_iou)
    num_prompts = len(prompts)
    if settings.fill_points_per_side:
        points = free_points(kept, encoded.frame, settings.fill_points_per_side)
        prompts = [Prompt(points_xy=point[None]) for point in points]
        num_prompts += len(prompts)
        # A point that nothing was proposed for comes after all proposals.
        asked = _Asked(prompts, points, np.full(len(points), settings.min_proposal_score))
        for candidates in _answers(segmenter, encoded, asked, settings, clock):
            kept += candidates
        kept = without_equal_masks(kept, settings.max_mask_iou)
    clock.lap("filter")
    return gather(kept, encoded.frame, num_prompts, clock)


@dataclass(frozen=True, eq=False)
class _Asked:
    """Prompts of one kind, boxes or points, with their places and the chance of an object."""

    prompts: Sequence[Prompt]
    points_xy: NDArray[np.float32]
    chances: NDArray[np.floating]


def _answers(
    segmenter: Segmenter,
    encoded: EncodedImage,
    asked: _Asked,
    settings: EverythingSettings,
    clock: StepClock,
) -> Iterator[list[Candidate]]:
    """Decode a few prompts at a time and keep what is good of the answers."""
    step = segmenter.max_prompts_a_call
    for start in range(0, len(asked.prompts), step):
        rows = slice(start, start + step)
        part = asked.prompts[rows]
        logits, scores = segmenter.predict_logits(encoded, part)
        clock.lap("decode")
        # A box leaves little doubt, so token 0 answers; a point may mean three things.
        tokens = slice(0, 1) if part[0].box_xyxy is not None else slice(1, 4)
        chosen, chosen_scores = logits[:, tokens], scores[:, tokens]
        points, chances = (
            np.repeat(values[rows][: len(part)], chosen.shape[1], axis=0).astype(np.float32)
            for values in (asked.points_xy, asked.chances)
        )
        yield list(
            good_candidates(
                chosen.reshape(-1, *chosen.shape[2:]),
                chosen_scores.reshape(-1),
                points,
                Window.whole(encoded.frame),
                settings.min_score,
                settings.min_stability,
                chances=chances,
            )
        )
        clock.lap("filter")


def free_points(
    candidates: Sequence[Candidate], frame: ModelFrame, points_per_side: int
) -> NDArray[np.float32]:
    """Return the points of a grid over the image, (K, 2) float32 x y, on which no mask lies."""
    points = grid_points(frame.image_hw, points_per_side)
    taken = np.zeros((frame.image_size // 4,) * 2, np.bool_)
    for candidate in candidates:
        (x, y), (height, width) = candidate.offset_xy, candidate.cells.shape
        taken[y : y + height, x : x + width] |= candidate.cells > 0
    cells = (frame.to_model_xy(points) / 4).astype(np.intp).clip(0, len(taken) - 1)
    return points[~taken[cells[:, 1], cells[:, 0]]]


def gather(
    candidates: Sequence[Candidate],
    frame: ModelFrame,
    num_prompts: int,
    clock: StepClock,
) -> EverythingMasks:
    """Bring the masks that stay to the size of the image.

    A lone cell may fall between the pixels of a small image; such a mask is left out.

    Args:
        candidates: The masks, best first.
        frame: Of the whole image.
        num_prompts: Prompts that were decoded.
        clock: Has counted the time so far.
    """
    pairs = [(c, crop) for c in candidates if (crop := c.crop()).pixels.size]
    side = frame.image_size // 4
    logits = [candidate.low_res_logits for candidate, _ in pairs]
    masks = Masks(
        crops=tuple(crop for _, crop in pairs),
        image_hw=frame.image_hw,
        low_res_logits=np.array(logits, np.float32).reshape(-1, side, side),
        scores=np.array([candidate.score for candidate, _ in pairs], np.float32),
        prompt_indices=np.arange(len(pairs)),
    )
    clock.lap("upsample")
    return EverythingMasks(
        masks,
        np.array([candidate.stability for candidate, _ in pairs], np.float32),
        np.array([c.point_xy for c, _ in pairs], np.float32).reshape(-1, 2),
        np.array([c.window.xywh for c, _ in pairs], np.int64).reshape(-1, 4),
        num_prompts,
        clock.seconds,
    )


def check_share(name: str, value: float) -> None:
    """Raise unless a setting is in 0..1.

    Raises:
        ConfigError: With its name and value.
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} must be in 0..1, got {value}")
