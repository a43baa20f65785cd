"""Everything in an image: proposals become prompts, and of the masks the good and different stay.

A grid of points asks a thousand times and mostly gets the same masks again; a proposal asks once
where something is. `mask_grid` has the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError
from edgeseg.geometry import ModelFrame
from edgeseg.run_lengths import encode_crop
from edgeseg.runtime.asking import Asked, StepClock, ask
from edgeseg.runtime.candidates import (
    Candidate,
    Quality,
    Window,
    grid_points,
    to_masks,
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
            part of the image each was found in, and `prompt_indices` say nothing.
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
        masks, areas, boxes = self.masks, self.masks.areas_px, self.masks.boxes_xyxy.tolist()
        rows = []
        for index in np.argsort(-areas, kind="stable").tolist():
            crop = masks.crops[index]
            x0, y0, x1, y1 = boxes[index]
            rows.append(
                {
                    "segmentation": crop.to_mask() if with_pixels else encode_crop(crop),
                    "area": int(areas[index]),
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
    window = Window.whole(encoded.frame)
    quality = Quality(settings.min_score, settings.min_stability)
    asked = Asked.boxes(boxes, proposals.scores[: len(boxes)])
    kept = list(ask(segmenter, encoded, asked, window, quality, clock))
    kept = without_equal_masks(kept, settings.max_mask_iou)
    num_prompts = len(boxes)
    if settings.fill_points_per_side:
        points = free_points(kept, encoded.frame, settings.fill_points_per_side)
        # A point that nothing was proposed for comes after all proposals.
        asked = Asked.points(points, settings.min_proposal_score)
        kept += ask(segmenter, encoded, asked, window, quality, clock)
        kept = without_equal_masks(kept, settings.max_mask_iou)
        num_prompts += len(points)
    clock.lap("filter")
    return gather(kept, encoded.frame, num_prompts, clock)


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
    """Bring the masks that stay to the size of the image; see `to_masks`.

    Args:
        candidates: The masks, best first.
        frame: Of the whole image.
        num_prompts: Prompts that were decoded.
        clock: Has counted the time so far.
    """
    found, masks = to_masks(candidates, frame)
    clock.lap("upsample")
    return EverythingMasks(
        masks,
        np.array([candidate.stability for candidate in found], np.float32),
        np.array([candidate.point_xy for candidate in found], np.float32).reshape(-1, 2),
        np.array([candidate.window.xywh for candidate in found], np.int64).reshape(-1, 4),
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
