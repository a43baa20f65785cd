"""Boxes that probably hold an object, found before anyone has clicked."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError
from edgeseg.geometry import ModelFrame

MAX_PROPOSALS = 1000
"""Cells that are looked at, the most confident first; the others are background."""
_MIN_SIDE_PX = 1.0
"""A box must be this large inside the image to hold anything."""


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
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    frame: ModelFrame,
    max_proposals: int = MAX_PROPOSALS,
) -> Proposals:
    """Bring what a network proposes into the frame of the image.

    Args:
        boxes_xyxy: (A, 4) float32 in model pixels; they may reach beyond the image.
        scores: (A,) float32.
        frame: The place of the image in the model input.
        max_proposals: Most boxes to keep, the most confident.
    """
    height, width = frame.image_hw
    order = np.argsort(-scores, kind="stable")[: max(0, max_proposals)]
    boxes = boxes_xyxy[order] / np.tile(frame.scale_xy, 2)
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    is_large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= _MIN_SIDE_PX
    return Proposals(boxes[is_large].astype(np.float32), scores[order][is_large])
