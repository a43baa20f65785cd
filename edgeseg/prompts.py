"""What a user points at: points, a box and a rough mask, for one object.

`Prompt` is the only prompt type of the project. Training, export, the runtime and the demo all
start from it, so it is validated here, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseg.errors import PromptError

POSITIVE = 1
"""Label of a point on the object."""
NEGATIVE = 0
"""Label of a point that must stay outside the mask."""
BOX_TOP_LEFT = 2
"""Label the network gives to the first corner of a box."""
BOX_BOTTOM_RIGHT = 3
"""Label the network gives to the second corner of a box."""
PADDING = -1
"""Label of SAM's padding point, a token the network was trained with when there is no box."""
ABSENT = -2
"""Label of an empty slot in a batch: it takes no part in attention."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """Points, a box and a mask that together mean one object.

    At least one of the three has to be given. Coordinates are pixels of the original image; the
    centre of the top left pixel is (0.5, 0.5).

    Attributes:
        points_xy: (P, 2) float32, x then y; P may be 0.
        point_labels: (P,) int64, 1 on the object and 0 outside it. Defaults to all ones.
        box_xyxy: (4,) float32, x0 y0 x1 y1 with x0 < x1 and y0 < y1, or None.
        mask_logits: (S/4, S/4) float32, a mask in the frame of the model input at a quarter of its
            side S, such as the low-res logits of an earlier answer, or None.

    Raises:
        PromptError: A shape, a label, a number or the whole prompt makes no sense.

    >>> Prompt(points_xy=[(410, 220)]).point_labels
    array([1])
    """

    points_xy: NDArray[np.float32] = ()  # type: ignore[assignment]
    point_labels: NDArray[np.int64] | None = None  # type: ignore[assignment]
    box_xyxy: NDArray[np.float32] | None = None
    mask_logits: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        points_xy = _points(self.points_xy)
        object.__setattr__(self, "points_xy", points_xy)
        object.__setattr__(self, "point_labels", _labels(self.point_labels, len(points_xy)))
        if self.box_xyxy is not None:
            object.__setattr__(self, "box_xyxy", _box(self.box_xyxy))
        if self.mask_logits is not None:
            object.__setattr__(self, "mask_logits", _mask(self.mask_logits))
        if not len(points_xy) and self.box_xyxy is None and self.mask_logits is None:
            raise PromptError("the prompt is empty; give points_xy, box_xyxy or mask_logits")

    def with_point(self, point_xy: Sequence[float], label: int) -> "Prompt":
        """Return this prompt with one more click, as a refinement does.

        >>> Prompt(box_xyxy=[0, 0, 9, 9]).with_point((4, 5), 0).points_xy
        array([[4., 5.]], dtype=float32)
        """
        return Prompt(
            np.concatenate([self.points_xy, _points([point_xy])]),
            np.append(self.point_labels, label),  # type: ignore[arg-type]
            self.box_xyxy,
            self.mask_logits,
        )


def _array(values: ArrayLike, name: str, dtype: Any) -> NDArray[Any]:
    try:
        array = np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise PromptError(f"{name} must be numbers, got {values!r}") from error
    if not np.isfinite(array).all():
        raise PromptError(f"{name} must be finite, got {array.tolist()}")
    return array


def _points(values: ArrayLike) -> NDArray[np.float32]:
    points_xy = _array(values, "points_xy", np.float32)
    if points_xy.size == 0:
        return np.zeros((0, 2), np.float32)
    if points_xy.ndim != 2 or points_xy.shape[1] != 2:
        raise PromptError(f"points_xy must be (P, 2), x then y, got shape {points_xy.shape}")
    return points_xy


def _labels(values: ArrayLike | None, num_points: int) -> NDArray[np.int64]:
    if values is None:
        return np.ones(num_points, np.int64)
    labels = _array(values, "point_labels", np.int64).reshape(-1)
    if len(labels) != num_points:
        raise PromptError(
            f"point_labels must have one label a point, got {len(labels)} labels "
            f"for {num_points} points"
        )
    if not np.isin(labels, (NEGATIVE, POSITIVE)).all():
        raise PromptError(
            f"point_labels must be 1 (object) or 0 (not object), got {labels.tolist()}"
        )
    return labels


def _box(values: ArrayLike) -> NDArray[np.float32]:
    box = _array(values, "box_xyxy", np.float32)
    if box.shape != (4,) or box[0] >= box[2] or box[1] >= box[3]:
        raise PromptError(
            f"box_xyxy must be (4,) with x0 < x1 and y0 < y1, got {np.asarray(values).tolist()}"
        )
    return box


def _mask(values: ArrayLike) -> NDArray[np.float32]:
    mask = _array(values, "mask_logits", np.float32)
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        raise PromptError(
            f"mask_logits must be square (S/4, S/4) in the model frame, got shape {mask.shape}; "
            "pass the low_res_logits of an earlier answer"
        )
    return mask
