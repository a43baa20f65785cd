"""What a user points at: points, a box and a rough mask, for one object.

`Prompt` is the only prompt type of the project. Training, export, the runtime and the demo all
start from it, so it is validated here, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False, init=False)
class Prompt:
    """Points, a box and a mask that together mean one object.

    At least one of the three has to be given. Coordinates are pixels of the original image; the
    centre of the top left pixel is (0.5, 0.5). Anything array-like is taken and copied.

    Attributes:
        points_xy: (P, 2) float32, x then y; P may be 0.
        point_labels: (P,) int64, 1 on the object and 0 outside it. Defaults to all ones.
        box_xyxy: (4,) float32, x0 y0 x1 y1 with x0 < x1 and y0 < y1, or None.
        mask_logits: (S/4, S/4) float32, above zero on the object, a mask in the frame of the model
            input at a quarter of its side S, such as the low-res logits of an earlier answer, or
            None.

    Raises:
        PromptError: A shape, a label, a number or the whole prompt makes no sense.

    >>> Prompt(points_xy=[(410, 220)]).point_labels
    array([1])
    """

    points_xy: NDArray[np.float32]
    point_labels: NDArray[np.int64]
    box_xyxy: NDArray[np.float32] | None
    mask_logits: NDArray[np.float32] | None

    def __init__(
        self,
        points_xy: ArrayLike = (),
        point_labels: ArrayLike | None = None,
        box_xyxy: ArrayLike | None = None,
        mask_logits: ArrayLike | None = None,
    ) -> None:
        points = _points(points_xy)
        values = {
            "points_xy": points,
            "point_labels": _labels(point_labels, len(points)),
            "box_xyxy": None if box_xyxy is None else _box(box_xyxy),
            "mask_logits": None if mask_logits is None else _mask(mask_logits),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if not len(points) and self.box_xyxy is None and self.mask_logits is None:
            raise PromptError("the prompt is empty; give points_xy, box_xyxy or mask_logits")

    def with_point(self, point_xy: Sequence[float], label: int) -> "Prompt":
        """Return this prompt with one more click, as a refinement does.

        >>> Prompt(box_xyxy=[0, 0, 9, 9]).with_point((4, 5), 0).points_xy
        array([[4., 5.]], dtype=float32)
        """
        return Prompt(
            np.concatenate([self.points_xy, _points([point_xy])]),
            np.append(self.point_labels, label),
            self.box_xyxy,
            self.mask_logits,
        )


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float32]:
    """Return a float32 copy of any shape."""
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, refused below
            array = np.array(values, np.float32)
    except (TypeError, ValueError) as error:
        raise PromptError(
            f"{name} must be numbers in rows of one length, got {values!r}; give a list"
        ) from error
    if not np.isfinite(array).all():
        raise PromptError(
            f"{name} must be finite, got {array[~np.isfinite(array)][0]}; check how it was computed"
        )
    return array


def _points(values: ArrayLike) -> NDArray[np.float32]:
    points_xy = _numbers(values, "points_xy")
    if points_xy.size == 0:
        return np.zeros((0, 2), np.float32)
    if points_xy.ndim != 2 or points_xy.shape[1] != 2:
        raise PromptError(
            f"points_xy must be (P, 2), x then y, got shape {points_xy.shape}; "
            "write [(x, y)] for one point"
        )
    return points_xy


def _labels(values: ArrayLike | None, num_points: int) -> NDArray[np.int64]:
    if values is None:
        return np.ones(num_points, np.int64)
    labels = _numbers(values, "point_labels").reshape(-1)
    if len(labels) != num_points:
        raise PromptError(
            f"point_labels must have one label a point, got {len(labels)} for {num_points} points; "
            "give 1 (object) or 0 (not object) for each, or none at all for all ones"
        )
    if not np.isin(labels, (NEGATIVE, POSITIVE)).all():
        raise PromptError(
            f"point_labels must be 1 (object) or 0 (not object), got {labels.tolist()}"
        )
    return labels.astype(np.int64)


def _box(values: ArrayLike) -> NDArray[np.float32]:
    box = _numbers(values, "box_xyxy")
    if box.shape != (4,) or box[0] >= box[2] or box[1] >= box[3]:
        raise PromptError(
            f"box_xyxy must be (4,) with x0 < x1 and y0 < y1, got {box.tolist()}; "
            "give two opposite corners, x before y, one box a prompt"
        )
    return box


def _mask(values: ArrayLike) -> NDArray[np.float32]:
    mask = _numbers(values, "mask_logits")
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        raise PromptError(
            f"mask_logits must be square (S/4, S/4) in the model frame, got shape {mask.shape}; "
            "pass the low_res_logits of an earlier answer"
        )
    return mask
