"""Prompts from command line options."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import PromptError
from edgeseg.prompts import POSITIVE, Prompt
from edgeseg.runtime.everything import EverythingSettings
from edgeseg.runtime.mask_grid import GridSettings
from edgeseg.runtime.segmenter import EncodedImage, Segmenter


def parse_prompts(points: Sequence[str], boxes: Sequence[str], each: bool) -> list[Prompt]:
    """Turn options into prompts.

    Args:
        points: "x,y" or "x,y,label" each, in pixels of the image.
        boxes: "x0,y0,x1,y1" each.
        each: Every point is an object of its own; otherwise they mean one object together, with
            the box if there is one.

    Raises:
        PromptError: A text is malformed, there is no prompt, or points could belong to several
            boxes.

    >>> parse_prompts(["3,4", "5,6,0"], [], each=False)[0].point_labels.tolist()
    [1, 0]
    """
    clicks = [_numbers(text, "--point", (2, 3)) for text in points]
    frames = [_numbers(text, "--box", (4,)) for text in boxes]
    labels = [int(click[2]) if len(click) == 3 else 1 for click in clicks]
    if not clicks and not frames:
        raise PromptError("there is no prompt; give --point X,Y or --box X0,Y0,X1,Y1")
    if each:
        alone = [Prompt([c[:2]], [label]) for c, label in zip(clicks, labels, strict=True)]
        return [*alone, *(Prompt(box_xyxy=frame) for frame in frames)]
    if clicks and len(frames) > 1:
        raise PromptError(
            f"{len(clicks)} points could belong to any of {len(frames)} boxes; give one box, or "
            "--each to make every point and box an object of its own"
        )
    if clicks:
        return [Prompt([c[:2] for c in clicks], labels, frames[0] if frames else None)]
    return [Prompt(box_xyxy=frame) for frame in frames]


def parse_everything(
    everything: bool, grid: int | None, max_prompts: int | None, prompting: Sequence[str]
) -> EverythingSettings | GridSettings | None:
    """Turn options into the settings of a search for everything, or None if they ask for none.

    Args:
        everything: Whether proposals are to be the prompts.
        grid: Points along each side of a grid that asks instead, or None.
        max_prompts: Most proposals, or None for the default.
        prompting: Names of the options given that say something about prompts.

    Raises:
        PromptError: The options contradict each other.
    """
    if not everything and grid is None:
        if max_prompts is not None:
            raise PromptError("--max-prompts belongs to --everything; give that, too")
        return None
    if prompting:
        asked = "--everything" if everything else "--grid"
        raise PromptError(f"{asked} needs no prompts; leave {' and '.join(prompting)} out")
    if grid is not None:
        if max_prompts is not None:
            raise PromptError("--grid asks at every point; leave --max-prompts out")
        return GridSettings(points_per_side=grid)
    settings = EverythingSettings()
    return settings if max_prompts is None else replace(settings, max_prompts=max_prompts)


def is_single_point(prompt: Prompt) -> bool:
    """Whether a prompt is one point on the object and nothing else."""
    return prompt.box_xyxy is None and np.asarray(prompt.point_labels).tolist() == [POSITIVE]


def single_point(prompts: Sequence[Prompt], others: Sequence[str]) -> NDArray[np.float32]:
    """Return the point of the only prompt, (2,) float32 x y.

    Args:
        prompts: What was given.
        others: Names of options given that do not go with it.

    Raises:
        PromptError: There are more prompts or options, or it is more than a point on the object.
    """
    if len(prompts) != 1 or not is_single_point(prompts[0]) or others:
        raise PromptError("--granularities takes one --point on the object, and nothing else")
    return np.asarray(prompts[0].points_xy, np.float32)[0]


def with_proposals(
    segmenter: Segmenter, encoded: EncodedImage, prompts: Sequence[Prompt]
) -> list[Prompt]:
    """Give every prompt that is a single point the box that the model proposes for it."""
    return [
        segmenter.click_prompt(encoded, prompt.points_xy[0]) if is_single_point(prompt) else prompt
        for prompt in prompts
    ]


def _numbers(text: str, option: str, lengths: tuple[int, ...]) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in lengths:
        wanted = "X0,Y0,X1,Y1" if option == "--box" else "X,Y or X,Y,LABEL"
        raise PromptError(f"{option} must be {wanted} in pixels, got {text!r}")
    return numbers
