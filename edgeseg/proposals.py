"""Boxes that probably hold an object, found before anyone has clicked."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseg.errors import ConfigError
from edgeseg.geometry import ModelFrame
from edgeseg.signature import PROPOSAL_STRIDES

MAX_PROPOSALS = 1000
"""Cells that are looked at, the most confident first; the others are background."""
_MIN_SIDE_PX = 1.0
"""A box must be this large inside the image to hold anything."""


@dataclass(frozen=True, eq=False)
class CellProposals:
    """What each cell of a network's levels says of an image; A cells, finest level first.

    Attributes:
        boxes_xyxy: (A, 4) float32, x0 y0 x1 y1 in model pixels; may reach beyond the image.
        scores: (A,) float32 in 0..1, chance of an object centred there times the IoU its box is
            expected to have.
        click_logits: (A,) float32; their softmax over the cells that hold a click, one of each
            level, is the chance of each of their boxes to be meant.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    click_logits: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Proposals:
    """M boxes on one image, the most confident first.

    Attributes:
        boxes_xyxy: (M, 4) float32, x0 y0 x1 y1 in pixels of the image, inside it.
        scores: (M,) float32 in 0..1, chance of an object times the IoU its box is expected to have.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, indices: Sequence[int] | NDArray[np.intp]) -> "Proposals":
        """Return some of them, in the order of the indices."""
        rows = np.asarray(indices, np.intp)
        return Proposals(self.boxes_xyxy[rows], self.scores[rows])

    def suppressed(self, max_iou: float) -> "Proposals":
        """Leave out every box that overlaps a more confident one too much.

        Args:
            max_iou: Largest IoU of two boxes that stay, 0..1.

        Raises:
            ConfigError: `max_iou` is not in 0..1.
        """
        if not 0 <= max_iou <= 1:
            raise ConfigError(f"max_iou must be in 0..1, got {max_iou}; 0.7 suits most")
        return self.take(kept_boxes(self.boxes_xyxy, self.scores, max_iou))


def kept_boxes(
    boxes_xyxy: NDArray[np.float32], scores: NDArray[np.floating], max_iou: float
) -> list[int]:
    """Return which boxes are left by non-maximum suppression, best first.

    Args:
        boxes_xyxy: (M, 4) float32.
        scores: (M,) float; of two equal ones the first is better.
        max_iou: Largest IoU of two boxes that stay.

    >>> boxes = np.float32([[0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12]])
    >>> kept_boxes(boxes, np.float32([0.5, 0.9, 0.1]), 0.5)
    [1, 2]
    """
    if not len(boxes_xyxy):
        return []
    sizes = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    boxes_xywh = np.concatenate([boxes_xyxy[:, :2], sizes], axis=1).astype(np.float64)
    # OpenCV leaves out boxes without a positive score and computes in float32: give it ranks.
    ranks = np.empty(len(scores), np.float32)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores), 0, -1)
    kept = cv2.dnn.NMSBoxes(boxes_xywh.tolist(), ranks.tolist(), 0.0, max_iou)
    return [int(index) for index in kept]


def read_proposals(
    cells: CellProposals, frame: ModelFrame, max_proposals: int = MAX_PROPOSALS
) -> Proposals:
    """Bring what a network proposes into the frame of the image.

    Args:
        cells: What its cells say.
        frame: The place of the image in the model input.
        max_proposals: Most boxes to keep, the most confident.
    """
    order = np.argsort(-cells.scores, kind="stable")[: max(0, max_proposals)]
    boxes = _in_image(cells.boxes_xyxy[order], frame)
    is_large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= _MIN_SIDE_PX
    return Proposals(boxes[is_large], cells.scores[order][is_large])


def click_proposals(cells: CellProposals, point_xy: ArrayLike, frame: ModelFrame) -> Proposals:
    """Return the boxes that a click may mean, one of each level, the likeliest first.

    Args:
        cells: What the network's cells say.
        point_xy: x and y of the click, in pixels of the image.
        frame: The place of the image in the model input.

    Returns:
        Boxes that hold the click; the scores are the chances of each, which sum to 1.
    """
    point = np.asarray(point_xy, np.float32)
    under = cells_under(frame.to_model_xy(point), frame.image_size)
    logits = cells.click_logits[under]
    chances = np.exp(logits - logits.max())
    chances /= chances.sum()
    boxes = _in_image(cells.boxes_xyxy[under], frame)
    boxes[:, :2] = np.minimum(boxes[:, :2], np.floor(point))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], np.floor(point) + 1)
    order = np.argsort(-chances, kind="stable")
    return Proposals(boxes[order], chances[order].astype(np.float32))


def cells_under(point_xy_model: NDArray[np.float32], image_size: int) -> NDArray[np.intp]:
    """Return the cell of each level that holds a point, given in model pixels.

    >>> cells_under(np.float32([9, 0]), 64).tolist()
    [1, 64, 80, 84]
    """
    found, first = [], 0
    for stride in PROPOSAL_STRIDES:
        side = image_size // stride
        column, row = np.clip(point_xy_model // stride, 0, side - 1).astype(int).tolist()
        found.append(first + row * side + column)
        first += side * side
    return np.array(found, np.intp)


def _in_image(boxes_xyxy_model: NDArray[np.float32], frame: ModelFrame) -> NDArray[np.float32]:
    """Bring (M, 4) boxes from the model frame into the image and cut them at its edges."""
    height, width = frame.image_hw
    boxes = boxes_xyxy_model / np.tile(frame.scale_xy, 2)
    edges = np.array([width, height, width, height], np.float32)
    return np.clip(boxes, 0, edges).astype(np.float32)
