"""Prompts of several objects as the arrays a mask decoder takes in one call."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import PromptError
from edgeseg.geometry import ModelFrame
from edgeseg.prompts import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, Prompt


@dataclass(frozen=True, eq=False)
class PackedPrompts:
    """N prompts of one image in one set of arrays.

    The slots of a prompt are its points, then the two corners of its box, then absent slots up to
    the longest prompt. P is at least 1.

    Attributes:
        points_xy: (N, P, 2) float32, x then y, in model pixels; 0 in absent slots.
        point_labels: (N, P) int64, 1 object, 0 not object, 2 and 3 box corners, ABSENT nothing.
        mask_logits: (N, 1, S/4, S/4) float32 in the model frame, 0 where a prompt has no mask;
            None when no prompt has one.
        has_mask: (N,) bool, true where a prompt has a mask; None when no prompt has one.
    """

    points_xy: NDArray[np.float32]
    point_labels: NDArray[np.int64]
    mask_logits: NDArray[np.float32] | None
    has_mask: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.points_xy)


def pack_prompts(prompts: Sequence[Prompt], frame: ModelFrame) -> PackedPrompts:
    """Bring prompts into the model frame and into arrays of one length.

    Args:
        prompts: N prompts in pixels of the original image; they may differ in kind and length.
        frame: The place of the image in the model input.

    Raises:
        PromptError: A point lies outside the image, a box misses it, or a mask prompt has the
            size of another model.

    >>> packed = pack_prompts(
    ...     [Prompt(points_xy=[(320, 240)]), Prompt(box_xyxy=[0, 0, 640, 480])],
    ...     ModelFrame((480, 640), 512),
    ... )
    >>> packed.point_labels.tolist()
    [[1, -2], [2, 3]]
    """
    slots = [_slots(prompt, frame) for prompt in prompts]
    longest = max([1, *(len(labels) for _, labels in slots)])
    points_xy = np.zeros((len(slots), longest, 2), np.float32)
    point_labels = np.full((len(slots), longest), ABSENT, np.int64)
    for row, (points, labels) in enumerate(slots):
        points_xy[row, : len(labels)] = points
        point_labels[row, : len(labels)] = labels
    return PackedPrompts(points_xy, point_labels, *_masks(prompts, frame))


def _slots(prompt: Prompt, frame: ModelFrame) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    _check_on_image(prompt, frame.image_hw)
    points_xy, labels = frame.to_model_xy(prompt.points_xy), np.asarray(prompt.point_labels)
    if prompt.box_xyxy is not None:
        corners_xy = frame.to_model_box(prompt.box_xyxy).reshape(2, 2)
        points_xy = np.concatenate([points_xy, corners_xy])
        labels = np.append(labels, [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT])
    return points_xy, labels


def _check_on_image(prompt: Prompt, image_hw: tuple[int, int]) -> None:
    height, width = image_hw
    outside = (prompt.points_xy < 0) | (prompt.points_xy > (width, height))  # (P, 2)
    if outside.any():
        point = prompt.points_xy[outside.any(axis=1)][0].tolist()
        raise PromptError(
            f"points_xy must lie on the image, {width} wide and {height} high, got {point}; "
            "give x before y, in pixels of the original image"
        )
    if prompt.box_xyxy is None:
        return
    x0, y0, x1, y1 = prompt.box_xyxy.tolist()
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        raise PromptError(
            f"box_xyxy must overlap the image, {width} wide and {height} high, got "
            f"{[x0, y0, x1, y1]}; give x0 y0 x1 y1 in pixels of the original image"
        )


def _masks(
    prompts: Sequence[Prompt], frame: ModelFrame
) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_] | None]:
    has_mask = np.array([prompt.mask_logits is not None for prompt in prompts], np.bool_)
    if not has_mask.any():
        return None, None
    side = frame.image_size // 4
    mask_logits = np.zeros((len(prompts), 1, side, side), np.float32)
    for row, prompt in enumerate(prompts):
        if prompt.mask_logits is None:
            continue
        if prompt.mask_logits.shape != (side, side):
            raise PromptError(
                f"mask_logits must be ({side}, {side}) for a model with {frame.image_size} pixel "
                f"input, got {prompt.mask_logits.shape}; pass low_res_logits of the same model"
            )
        mask_logits[row, 0] = prompt.mask_logits
    return mask_logits, has_mask
