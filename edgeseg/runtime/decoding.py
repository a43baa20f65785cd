"""Prompts on an encoded image to low-res logits, a few prompts at a time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import PromptError, WeightsError
from edgeseg.geometry import ModelFrame
from edgeseg.postprocess import choose_mask
from edgeseg.prompt_packing import PackedPrompts, pack_prompts
from edgeseg.prompts import Prompt
from edgeseg.runtime.backend import Backend

Features = tuple[NDArray[np.generic], ...]


def decode_prompts(
    backend: Backend,
    features: Features,
    frame: ModelFrame,
    prompts: Sequence[Prompt],
    max_prompts_a_call: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Answer N prompts on one image.

    Args:
        backend: The network.
        features: What it made of the image.
        frame: The place of the image in the model input.
        prompts: In pixels of the original image.
        max_prompts_a_call: Prompts decoded in one call of the backend.

    Returns:
        Low-res logits, (N, 4, S/4, S/4) float32, predicted IoU, (N, 4) float32, and the token that
        answers each prompt, (N,) int64.

    Raises:
        PromptError: A prompt does not fit the image or the model.
        WeightsError: The backend answers with arrays of another shape.
    """
    side = backend.image_size // 4
    logits = np.zeros((len(prompts), 4, side, side), np.float32)
    scores = np.zeros((len(prompts), 4), np.float32)
    tokens = np.zeros(len(prompts), np.int64)
    for start in range(0, len(prompts), max_prompts_a_call):
        part = slice(start, start + max_prompts_a_call)
        packed = pack_prompts(_check_prompts(prompts[part]), frame)
        logits[part], scores[part] = _answer(backend, features, packed, side)
        tokens[part] = choose_mask(scores[part], packed.point_labels, packed.has_mask)
    return logits, scores, tokens


def _answer(
    backend: Backend, features: Features, packed: PackedPrompts, side: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    logits, scores = backend.decode(
        features, packed.points_xy, packed.point_labels, packed.mask_logits, packed.has_mask
    )
    expected = (len(packed), 4, side, side), (len(packed), 4)
    if (logits.shape, scores.shape) != expected:  # would broadcast to wrong masks silently
        raise WeightsError(
            f"the model {backend.name} must answer {len(packed)} prompts with arrays "
            f"{expected}, got {(logits.shape, scores.shape)}; load a promptable model with "
            f"{backend.image_size} pixel input"
        )
    return logits, scores


def _check_prompts(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    for prompt in prompts:
        if not isinstance(prompt, Prompt):
            raise PromptError(
                f"prompts must be Prompt objects, got {type(prompt).__name__}; "
                "write Prompt(points_xy=[(x, y)]) or Prompt(box_xyxy=[x0, y0, x1, y1])"
            )
    return prompts
