"""Prompts in the sizes that an exported decoder was made for.

Some decoders take any number of prompts N and of points P. Others were exported with fixed numbers,
for devices that want every size known beforehand: their calls are filled up with rows and slots
whose answers nobody reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import PromptError
from edgeseg.prompts import ABSENT
from edgeseg.signature import PromptSlots


@dataclass(frozen=True, eq=False)
class FilledSlots:
    """The prompts of one call of a decoder.

    Attributes:
        points_xy: (N, P, 2) float32, x then y, in model pixels; 0 in absent slots.
        point_labels: (N, P) int64, ABSENT in empty slots.
        mask_logits: (N, 1, S/4, S/4) float in the model frame.
        has_mask: (N,) float32, 1 where a row of `mask_logits` counts, 0 elsewhere.
        num_prompts: How many of the N rows are prompts; the others repeat the last one.
    """

    points_xy: NDArray[np.float32]
    point_labels: NDArray[np.int64]
    mask_logits: NDArray[Any]
    has_mask: NDArray[np.float32]
    num_prompts: int


class EmptyMasks:
    """Mask inputs of prompts without masks: zeros, allocated once and shared by all calls.

    Args:
        side: S/4, the side of a mask input in cells.
        dtype: Element type of the decoder's mask input.
    """

    def __init__(self, side: int, dtype: np.dtype[Any]) -> None:
        self._zeros = _read_only_zeros(0, side, dtype)

    def rows(self, num_prompts: int) -> NDArray[Any]:
        """Return (num_prompts, 1, S/4, S/4) zeros, read-only."""
        zeros = self._zeros
        if len(zeros) < num_prompts:  # two threads may both allocate; either result is right
            zeros = _read_only_zeros(num_prompts, zeros.shape[-1], zeros.dtype)
            self._zeros = zeros
        return zeros[:num_prompts]


def fill_slots(
    points_xy: NDArray[np.float32],
    point_labels: NDArray[np.int64],
    mask_logits: NDArray[np.float32] | None,
    has_mask: NDArray[np.bool_] | None,
    slots: PromptSlots,
    empty_masks: EmptyMasks,
) -> Iterator[FilledSlots]:
    """Cut prompts into calls of a decoder, each of exactly the size it takes.

    Args:
        points_xy: (N, P, 2) float32, in model pixels.
        point_labels: (N, P) int64.
        mask_logits: (N, 1, S/4, S/4) float32, or None when no prompt has a mask.
        has_mask: (N,) bool, or None like it; None beside masks means that all of them count.
        slots: What the decoder takes.
        empty_masks: What to feed when there are no masks.

    Raises:
        PromptError: A prompt has more points than the decoder has slots.
    """
    points_xy, point_labels = _fit_points(points_xy, point_labels, slots.num_points)
    num_prompts = len(points_xy)
    step = slots.num_prompts or num_prompts or 1
    for start in range(0, num_prompts, step):
        part = slice(start, min(start + step, num_prompts))
        num_rows = part.stop - start if slots.num_prompts is None else slots.num_prompts
        masks, counts = empty_masks.rows(num_rows), np.zeros(num_rows, np.float32)
        if mask_logits is not None:
            masks = _repeat_last(mask_logits[part], num_rows)
            counts[: part.stop - start] = 1 if has_mask is None else has_mask[part]
        yield FilledSlots(
            points_xy=_repeat_last(points_xy[part], num_rows),
            point_labels=_repeat_last(point_labels[part], num_rows),
            mask_logits=masks,
            has_mask=counts,
            num_prompts=part.stop - start,
        )


def _fit_points(
    points_xy: NDArray[np.float32], point_labels: NDArray[np.int64], num_slots: int | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Add absent slots, or drop columns that are absent in every prompt."""
    num_points = points_xy.shape[1]
    if num_slots is None or num_slots == num_points:
        return points_xy, point_labels
    if num_slots < num_points:
        if (point_labels[:, num_slots:] != ABSENT).any():
            most = int((point_labels != ABSENT).sum(axis=1).max())
            raise PromptError(
                f"this exported decoder takes at most {num_slots} points and box corners a prompt, "
                f"got {most}; leave some out or export with more point slots"
            )
        return points_xy[:, :num_slots], point_labels[:, :num_slots]
    room = num_slots - num_points
    return (
        np.pad(points_xy, ((0, 0), (0, room), (0, 0))),
        np.pad(point_labels, ((0, 0), (0, room)), constant_values=ABSENT),
    )


def _repeat_last(rows: NDArray[Any], num_rows: int) -> NDArray[Any]:
    """Fill up with the last row: values the network has an answer to, whatever it computes."""
    if len(rows) == num_rows:
        return rows
    return np.concatenate([rows, np.repeat(rows[-1:], num_rows - len(rows), axis=0)])


def _read_only_zeros(num_prompts: int, side: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    zeros = np.zeros((num_prompts, 1, side, side), dtype)
    zeros.flags.writeable = False
    return zeros
