"""Prompts for the objects of one image, answered, and refined by simulated clicks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.prompt_sampling import next_click
from edgeseg.errors import ConfigError
from edgeseg.evaluation.config import Start
from edgeseg.evaluation.objects import TargetObject
from edgeseg.geometry import ModelFrame
from edgeseg.mask_crop import MaskCrop, joint_window
from edgeseg.postprocess import choose_mask, crop_of_logits
from edgeseg.prompt_packing import pack_prompts
from edgeseg.prompts import Prompt

_PROMPTS_A_CALL = 64  # bounds the memory of the four low-res masks each prompt is answered with


class Encoded(Protocol):
    """An encoded image, of which only the place in the model input is looked at."""

    @property
    def frame(self) -> ModelFrame:
        """The place of the image in the model input."""


E = TypeVar("E", bound=Encoded)
E_contra = TypeVar("E_contra", bound=Encoded, contravariant=True)


class PromptableSegmenter(Protocol[E]):
    """What can be evaluated; `edgeseg.runtime.Segmenter` is one."""

    def encode(self, image: NDArray[np.uint8]) -> E:
        """Encode one image, (H, W, 3) uint8 RGB."""

    def predict_logits(
        self, encoded: E, prompts: Sequence[Prompt]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (N, 4, S/4, S/4) low-res logits and (N, 4) predicted IoU for N prompts."""


@runtime_checkable
class ClickingSegmenter(Protocol[E_contra]):
    """A segmenter that knows which box a click probably means."""

    def click_prompt(self, encoded: E_contra, point_xy: NDArray[np.float32]) -> Prompt:
        """Return the point, with a box if the model proposes one."""


@dataclass(frozen=True, eq=False)
class Round:
    """The answers to one round of prompts for the objects of an image.

    Attributes:
        num_clicks: Refinement clicks given so far.
        masks: The chosen mask of each object.
        scores: (N,) float32, predicted IoU of those masks.
        token_masks: The masks of all four tokens for each object; empty after the first round.
        token_scores: (N, 4) float32, predicted IoU of the four tokens in the first round.
        teacher_masks: The masks the teacher chose for the same prompts, or None.
    """

    num_clicks: int
    masks: list[MaskCrop]
    scores: NDArray[np.float32]
    token_masks: list[list[MaskCrop]]
    token_scores: NDArray[np.float32]
    teacher_masks: list[MaskCrop] | None


class ImageAnswers:
    """A segmenter, an encoded image, and its answers so far for the objects of a prompt series.

    Args:
        segmenter: Answers prompts.
        encoded: The image, as the segmenter encoded it.
        feed_mask: Give the chosen low-res logits back with each later prompt.
    """

    def __init__(
        self, segmenter: PromptableSegmenter[Any], encoded: Encoded, feed_mask: bool
    ) -> None:
        self.segmenter = segmenter
        self.encoded = encoded
        self.feed_mask = feed_mask
        self.masks: dict[int, MaskCrop] = {}
        self.scores: dict[int, float] = {}
        self.token_masks: dict[int, list[MaskCrop]] = {}
        self.token_scores: dict[int, NDArray[np.float32]] = {}
        self._low_res_logits: dict[int, NDArray[np.float32]] = {}

    def ask(self, prompts: dict[int, Prompt], all_tokens: bool = False) -> None:
        """Answer prompts by object number; objects without a prompt keep their answers."""
        numbers = list(prompts)
        for start in range(0, len(numbers), _PROMPTS_A_CALL):
            part = numbers[start : start + _PROMPTS_A_CALL]
            self._ask_part(part, [prompts[number] for number in part], all_tokens)

    def _ask_part(self, numbers: list[int], prompts: list[Prompt], all_tokens: bool) -> None:
        labels = pack_prompts(prompts, self.encoded.frame).point_labels
        if self.feed_mask:
            prompts = [
                replace(prompt, mask_logits=self._low_res_logits.get(number))
                for number, prompt in zip(numbers, prompts, strict=True)
            ]
        has_mask = np.array([prompt.mask_logits is not None for prompt in prompts])
        logits, scores = self.segmenter.predict_logits(self.encoded, prompts)
        tokens = choose_mask(scores, labels, has_mask)
        for row, number in enumerate(numbers):
            token = int(tokens[row])
            if all_tokens:
                crops = [crop_of_logits(answer, self.encoded.frame) for answer in logits[row]]
                self.token_masks[number], self.token_scores[number] = crops, scores[row]
                self.masks[number] = crops[token]
            else:
                self.masks[number] = crop_of_logits(logits[row, token], self.encoded.frame)
            self.scores[number] = float(scores[row, token])
            if self.feed_mask:
                self._low_res_logits[number] = logits[row, token].copy()


def prompt_rounds(
    student: ImageAnswers,
    teacher: ImageAnswers | None,
    targets: list[TargetObject],
    start: Start,
    num_clicks: int,
) -> Iterator[Round]:
    """Prompt every object, then click where the student is wrong.

    A click goes to the point farthest from the border in the largest region where the student's
    chosen mask and the truth differ. An object without any such region gets no click and keeps its
    answer. The teacher gets the student's prompts, in its own frame.

    Args:
        student: Fresh answers of the segmenter that is evaluated.
        teacher: Fresh answers of the teacher on the same image, or None.
        targets: The objects of the image.
        start: The first prompt.
        num_clicks: Rounds of refinement after the first.

    Yields:
        One round after another, `num_clicks` + 1 in all.
    """
    numbers = range(len(targets))
    prompts = {number: _first_prompt(student, targets[number], start) for number in numbers}
    asked = dict(prompts)
    for round_number in range(num_clicks + 1):
        if round_number:
            asked = _clicked(prompts, student, targets)
            prompts.update(asked)
        student.ask(asked, all_tokens=round_number == 0)
        if teacher is not None:
            teacher.ask(asked)
        yield Round(
            num_clicks=round_number,
            masks=[student.masks[number] for number in numbers],
            scores=np.array([student.scores[number] for number in numbers], np.float32),
            token_masks=[] if round_number else [student.token_masks[n] for n in numbers],
            token_scores=np.array([student.token_scores[n] for n in numbers], np.float32),
            teacher_masks=None if teacher is None else [teacher.masks[n] for n in numbers],
        )


def _first_prompt(student: ImageAnswers, target: TargetObject, start: Start) -> Prompt:
    if start != "click":
        return target.first_prompt(start)
    segmenter = student.segmenter
    if not isinstance(segmenter, ClickingSegmenter):
        raise ConfigError(
            f'the prompt set "click" needs a model with proposals, got {type(segmenter).__name__}; '
            'measure "center"'
        )
    return segmenter.click_prompt(student.encoded, target.center_xy)


def _clicked(
    prompts: dict[int, Prompt], student: ImageAnswers, targets: list[TargetObject]
) -> dict[int, Prompt]:
    """Return the prompts of the objects that are not right yet, with one more click."""
    clicked = {}
    for number, target in enumerate(targets):
        # One pixel around both masks tells the image border from the border of the window.
        prediction, truth, (x, y) = joint_window(student.masks[number], target.mask, margin_px=1)
        click = next_click(prediction, truth)
        if click is not None:
            point_xy, label = click
            place = float(point_xy[0]) + x, float(point_xy[1]) + y
            clicked[number] = prompts[number].with_point(place, label)
    return clicked
