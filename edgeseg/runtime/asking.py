"""Many prompts that nobody gave, asked a few at a time, and what is good of the answers."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.prompts import Prompt
from edgeseg.runtime.candidates import Candidate, Quality, Window, good_candidates
from edgeseg.runtime.segmenter import EncodedImage, Segmenter

_BOX_TOKENS, _POINT_TOKENS = slice(0, 1), slice(1, 4)
"""A box leaves little doubt, so token 0 answers; a point may mean three things."""


@dataclass(frozen=True, eq=False)
class Asked:
    """N prompts of one kind, boxes or points.

    Attributes:
        prompts: The prompts, in pixels of what the network sees.
        points_xy: (N, 2) float32, their places: the points, or the middles of the boxes.
        chances: (N,) float32, how likely there is an object; 1 where nothing is known.
        tokens: Which mask tokens answer.
    """

    prompts: Sequence[Prompt]
    points_xy: NDArray[np.float32]
    chances: NDArray[np.float32]
    tokens: slice

    @classmethod
    def boxes(cls, boxes_xyxy: NDArray[np.float32], chances: NDArray[np.float32]) -> "Asked":
        """Ask for what is in (N, 4) boxes."""
        prompts = [Prompt(box_xyxy=box) for box in boxes_xyxy]
        middles = np.float32(0.5) * (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:])
        return cls(prompts, middles, chances, _BOX_TOKENS)

    @classmethod
    def points(cls, points_xy: NDArray[np.float32], chance: float = 1.0) -> "Asked":
        """Ask at (N, 2) points."""
        prompts = [Prompt(points_xy=point[None]) for point in points_xy]
        chances = np.full(len(points_xy), chance, np.float32)
        return cls(prompts, points_xy, chances, _POINT_TOKENS)


class StepClock:
    """Adds up where the time goes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        """Count the time since the last lap to a step."""
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._last
        self._last = now


def ask(
    segmenter: Segmenter,
    encoded: EncodedImage,
    asked: Asked,
    window: Window,
    quality: Quality,
    clock: StepClock | None = None,
) -> Iterator[Candidate]:
    """Decode prompts, as many a call as the segmenter takes, and yield the masks that are good.

    Args:
        segmenter: Answers.
        encoded: What it made of the window.
        asked: The prompts.
        window: The part of the image that was encoded.
        quality: What must be true of a mask.
        clock: Counts the steps "decode" and "filter".
    """
    clock = clock or StepClock()
    step = segmenter.max_prompts_a_call
    for start in range(0, len(asked.prompts), step):
        rows = slice(start, start + step)
        logits, scores = segmenter.predict_logits(encoded, asked.prompts[rows])
        clock.lap("decode")
        logits, scores = logits[:, asked.tokens], scores[:, asked.tokens]
        num_answers = scores.shape[1]
        yield from good_candidates(
            logits.reshape(-1, *logits.shape[2:]),
            scores.reshape(-1),
            np.repeat(asked.points_xy[rows], num_answers, axis=0),
            np.repeat(asked.chances[rows], num_answers),
            window,
            quality,
        )
        clock.lap("filter")
