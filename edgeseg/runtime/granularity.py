"""What one click means: the part, the object or the group, told by region proposals.

A single point fits objects of every size. Proposals that hold the point say which sizes there are
and how likely each is; the likely ones that agree are merged into a box, weighted by confidence,
and the box goes along with the point.

Source: the proposal-guided point prompt of EdgeSAM (Zhou et al. 2023, arXiv:2312.06660). There the
K nearest proposals are merged; here a proposal's weight is its confidence times how near its middle
is to the point, measured in its own size, and only boxes that mean the same object are merged.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseg.errors import ConfigError
from edgeseg.prompts import Prompt
from edgeseg.proposals import Proposals
from edgeseg.runtime.candidates import Window, good_candidates, without_equal_masks
from edgeseg.runtime.everything import StepClock, check_share, gather
from edgeseg.runtime.masks import Masks
from edgeseg.runtime.segmenter import EncodedImage, Segmenter

_MAX_MASK_IOU = 0.8
"""Masks that overlap more than this are the same answer."""
_POINT_CHANCE = 0.5
"""Confidence of what a point alone is answered with, beside a box that was proposed."""


@dataclass(frozen=True)
class GranularitySettings:
    """How a box is made for a click.

    Attributes:
        num_merged: Most proposals that are merged, K.
        weight_power: Proposals are averaged with their weights to this power; 0 averages evenly.
        sharpness: How much a proposal loses whose middle is far from the point; 0: nothing.
        min_iou: Smallest IoU with the best proposal of those merged with it.
        min_confidence: Smallest confidence of the best proposal; below it a click stays alone.

    Raises:
        ConfigError: A setting is out of range.
    """

    num_merged: int = 5
    weight_power: float = 1.0
    sharpness: float = 2.0
    min_iou: float = 0.6
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        check_share("min_iou", self.min_iou)
        check_share("min_confidence", self.min_confidence)
        if self.num_merged < 1:
            raise ConfigError(f"num_merged must be 1 or more, got {self.num_merged}; 5 suits most")
        if self.weight_power < 0 or self.sharpness < 0:
            raise ConfigError(
                "weight_power and sharpness must be 0 or more, got "
                f"{self.weight_power} and {self.sharpness}"
            )


@dataclass(frozen=True, eq=False)
class ClickBox:
    """A box that a click may mean.

    Attributes:
        box_xyxy: (4,) float32, x0 y0 x1 y1 in image pixels; the point is inside.
        confidence: Weight of its best proposal, 0..1.
    """

    box_xyxy: NDArray[np.float32]
    confidence: float


def click_boxes(
    point_xy: NDArray[np.float32],
    proposals: Proposals,
    settings: GranularitySettings | None = None,
) -> Iterator[ClickBox]:
    """Yield the boxes that a click may mean, the likeliest first, each from other proposals.

    Args:
        point_xy: (2,) float32, in pixels of the image.
        proposals: Of the image; they may overlap.
        settings: See `GranularitySettings`.
    """
    settings = settings or GranularitySettings()
    boxes = proposals.boxes_xyxy
    inside = (boxes[:, :2] <= point_xy).all(axis=1) & (boxes[:, 2:] >= point_xy).all(axis=1)
    boxes, scores = boxes[inside], proposals.scores[inside]
    middles, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    distances = np.abs((point_xy - middles) / sizes * 2).max(axis=1, initial=0)  # 1 at an edge
    weights = scores * np.exp(-settings.sharpness * distances**2)
    is_free = np.ones(len(boxes), np.bool_)
    while is_free.any():
        best = int(np.where(is_free, weights, -1).argmax())
        if weights[best] < settings.min_confidence:
            return
        same = is_free & (box_ious(boxes[best], boxes) >= settings.min_iou)
        rows = np.flatnonzero(same)
        rows = rows[np.argsort(-weights[rows], kind="stable")][: settings.num_merged]
        shares = weights[rows] ** settings.weight_power
        if not shares.sum() > 0:
            return
        merged = (boxes[rows] * (shares / shares.sum())[:, None]).sum(axis=0)
        yield ClickBox(merged.astype(np.float32), float(weights[best]))
        is_free &= ~same


def box_ious(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the IoU of one box, (4,), with each of (M, 4) boxes: (M,) float32.

    >>> box_ious(np.float32([0, 0, 2, 2]), np.float32([[0, 0, 2, 1], [2, 2, 3, 3]])).tolist()
    [0.5, 0.0]
    """
    top_left, bottom_right = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    both = (bottom_right - top_left).clip(min=0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - both
    return (both / np.maximum(areas, np.finfo(np.float32).tiny)).astype(np.float32)


def segment_click(
    segmenter: Segmenter,
    encoded: EncodedImage,
    point_xy: ArrayLike,
    max_masks: int = 3,
    settings: GranularitySettings | None = None,
) -> Masks:
    """Return what one click may mean: different masks, such as part, object and group.

    Asked are the boxes that proposals make likely, each with the point, and the point alone, whose
    three answers are of different sizes, too.

    Args:
        segmenter: A model with proposals.
        encoded: What `Segmenter.encode` returned.
        point_xy: x and y in pixels of the image.
        max_masks: Most masks.
        settings: See `GranularitySettings`.

    Returns:
        Up to `max_masks` masks, the best-scored first. `prompt_indices` are 0.

    Raises:
        WeightsError: The model has no proposals.
        ImageError: The image was encoded by another model.
        ConfigError: `max_masks` is below 1.
    """
    if max_masks < 1:
        raise ConfigError(f"max_masks must be 1 or more, got {max_masks}; 3 are what SAM gives")
    point = np.asarray(point_xy, np.float32)
    boxes = list(islice(click_boxes(point, segmenter.propose(encoded), settings), max_masks))
    prompts = [Prompt([point], box_xyxy=likely.box_xyxy) for likely in boxes]
    logits, scores = segmenter.predict_logits(encoded, [*prompts, Prompt([point])])
    answers = np.concatenate([logits[:-1, 0], logits[-1, 1:]])  # a box is answered by token 0
    answer_scores = np.concatenate([scores[:-1, 0], scores[-1, 1:]])
    # Boxes come first, so that they win over a point's answer of the same confidence.
    chances = np.array([1.0] * len(boxes) + [_POINT_CHANCE] * (len(answers) - len(boxes)))
    found = good_candidates(
        answers,
        answer_scores,
        np.tile(point, (len(answers), 1)),
        Window.whole(encoded.frame),
        min_score=-np.inf,
        min_stability=0.0,
        chances=chances.astype(np.float32),
    )
    kept = without_equal_masks(list(found), _MAX_MASK_IOU)[:max_masks]
    kept.sort(key=lambda candidate: -candidate.score)
    masks = gather(kept, encoded.frame, len(prompts) + 1, StepClock()).masks
    return replace(masks, prompt_indices=np.zeros(len(masks), np.int64))
