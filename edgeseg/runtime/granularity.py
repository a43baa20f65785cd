"""What one click means: the part, the object or the group, told by region proposals.

A single point fits objects of every size. Each level of the proposal head has a box for the click
and says how likely that one is meant; likely boxes that agree are merged, weighted by these
chances, and the box goes along with the point.

Source: the proposal-guided point prompt of EdgeSAM (Zhou et al. 2023, arXiv:2312.06660), which
merges the K nearest proposals by their confidence. Confidences of detections do not compare across
sizes (a small object is always less certain to be there), so the chances are learned for clicks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseg.errors import ConfigError
from edgeseg.prompts import Prompt
from edgeseg.proposals import Proposals
from edgeseg.runtime.candidates import (
    Quality,
    Window,
    good_candidates,
    to_masks,
    without_equal_masks,
)
from edgeseg.runtime.everything import check_share
from edgeseg.runtime.masks import Masks
from edgeseg.runtime.segmenter import EncodedImage, Segmenter

_MAX_MASK_IOU = 0.8
"""Masks that overlap more than this are the same answer."""


@dataclass(frozen=True)
class GranularitySettings:
    """How a box is made for a click.

    Attributes:
        num_merged: Most boxes that are merged, K.
        weight_power: Boxes are averaged with their chances to this power; 0 averages evenly.
        min_iou: Smallest IoU with the likeliest box of those merged with it.
        min_chance: Smallest chance of a box; a click that has none stays alone.

    Raises:
        ConfigError: A setting is out of range.
    """

    num_merged: int = 2
    weight_power: float = 1.0
    min_iou: float = 0.5
    min_chance: float = 0.0

    def __post_init__(self) -> None:
        check_share("min_iou", self.min_iou)
        check_share("min_chance", self.min_chance)
        if self.num_merged < 1:
            raise ConfigError(f"num_merged must be 1 or more, got {self.num_merged}; 2 suits most")
        if self.weight_power < 0:
            raise ConfigError(f"weight_power must be 0 or more, got {self.weight_power}")


@dataclass(frozen=True, eq=False)
class ClickBox:
    """A box that a click may mean.

    Attributes:
        box_xyxy: (4,) float32, x0 y0 x1 y1 in image pixels; the point is inside.
        chance: That of the likeliest of the boxes it was merged of, 0..1.
    """

    box_xyxy: NDArray[np.float32]
    chance: float


def click_boxes(
    proposals: Proposals, settings: GranularitySettings | None = None
) -> Iterator[ClickBox]:
    """Yield the boxes that a click may mean, the likeliest first, each made of other proposals.

    Args:
        proposals: Of the click, see `Segmenter.propose_for_click`; the likeliest first.
        settings: See `GranularitySettings`.
    """
    settings = settings or GranularitySettings()
    boxes, chances = proposals.boxes_xyxy, proposals.scores
    is_free = chances >= settings.min_chance
    while is_free.any():
        likeliest = int(is_free.argmax())  # they are in order
        same = is_free & (box_ious(boxes[likeliest], boxes) >= settings.min_iou)
        rows = np.flatnonzero(same)[: settings.num_merged]
        shares = np.maximum(chances[rows], np.finfo(np.float32).tiny) ** settings.weight_power
        box = (boxes[rows] * (shares / shares.sum())[:, None]).sum(axis=0)
        yield ClickBox(box.astype(np.float32), float(chances[likeliest]))
        is_free[rows] = False


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
        Up to `max_masks` masks. The first has the largest expected IoU: the one that is predicted,
        times the chance of the box it answers. `prompt_indices` are 0.

    Raises:
        WeightsError: The model has no proposals.
        ImageError: The image was encoded by another model.
        ConfigError: `max_masks` is below 1.
    """
    if max_masks < 1:
        raise ConfigError(f"max_masks must be 1 or more, got {max_masks}; 3 are what SAM gives")
    point = np.asarray(point_xy, np.float32)
    proposals = segmenter.propose_for_click(encoded, point)
    boxes = list(islice(click_boxes(proposals, settings), max_masks))
    prompts = [Prompt([point], box_xyxy=likely.box_xyxy) for likely in boxes]
    logits, scores = segmenter.predict_logits(encoded, [*prompts, Prompt([point])])
    answers = np.concatenate([logits[:-1, 0], logits[-1, 1:]])  # a box is answered by token 0
    answer_scores = np.concatenate([scores[:-1, 0], scores[-1, 1:]])
    # What a box is answered with is worth its predicted IoU only if the box is meant.
    chances = np.array([likely.chance for likely in boxes] + [1.0] * (len(answers) - len(boxes)))
    found = good_candidates(
        answers,
        answer_scores,
        np.tile(point, (len(answers), 1)),
        chances.astype(np.float32),
        Window.whole(encoded.frame),
        Quality(min_score=-np.inf, min_stability=0.0),
    )
    kept = without_equal_masks(list(found), _MAX_MASK_IOU)[:max_masks]
    _, masks = to_masks(kept, encoded.frame)
    return masks
