"""What an exported model is asked, to find out whether it is equal to PyTorch.

Each case aims at a way in which exports of this family went wrong: x and y swapped (points off the
diagonal on images that are not square), masks shifted or scaled (odd, tiny and very large images),
the padding point dropped (a point without a box), one prompt only (8 and 64 at once), mask prompts
or negative points ignored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.geometry import ModelFrame
from edgeseg.prompts import Prompt

LARGE_HW = (1500, 4000)
_SIZES_HW = {"wide": (211, 389), "tall": (388, 213), "tiny": (5, 7), "large": LARGE_HW}


@dataclass(frozen=True, eq=False)
class ProofImage:
    """One image and the sets of prompts it is asked with, each set in one call.

    Attributes:
        name: Said in reports.
        image: (H, W, 3) uint8 RGB.
        prompt_sets: Prompts by the name of their set.
    """

    name: str
    image: NDArray[np.uint8]
    prompt_sets: dict[str, tuple[Prompt, ...]]


def build_proof_images(
    image_size: int,
    photos: Sequence[tuple[str, NDArray[np.uint8]]] = (),
    max_points: int | None = None,
    with_masks: bool = True,
) -> Iterator[ProofImage]:
    """Build the images of a proof, the same ones every time.

    Args:
        image_size: Side S of the model input, in pixels.
        photos: Real images with their names, beside the five random ones.
        max_points: Most points and box corners of a prompt; None means any number.
        with_masks: Whether the file takes mask prompts.
    """
    generator = np.random.default_rng(0)
    sizes_hw = {"square": (image_size, image_size), **_SIZES_HW}
    images = [(name, random_image(size_hw, generator)) for name, size_hw in sizes_hw.items()]
    for name, image in [*images, *photos]:
        hw = image.shape[0], image.shape[1]
        sets = _prompt_sets(ModelFrame(hw, image_size), generator, with_masks)
        if name == "square":
            sets["64 prompts"] = tuple(_point(hw, generator) for _ in range(64))
        yield ProofImage(name, image, _that_fit(sets, max_points))


def random_image(size_hw: tuple[int, int], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw an image with soft blobs and fine noise, (H, W, 3) uint8: it has edges at all scales."""
    height, width = size_hw
    blobs = generator.uniform(0, 255, (6, 8, 3)).astype(np.float32)
    soft = cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = generator.integers(-20, 21, (height, width, 3), np.int16)
    return np.clip(soft + noise, 0, 255).astype(np.uint8)


def _prompt_sets(
    frame: ModelFrame, generator: np.random.Generator, with_masks: bool
) -> dict[str, tuple[Prompt, ...]]:
    hw = frame.image_hw
    sets = {
        "point": (_point(hw, generator),),
        "box": (_box(hw, generator),),
        "mixed labels": (_points(hw, generator, [1, 0, 1, 0, 1]),),
        "box and points": (_box(hw, generator, [1, 0]),),
    }
    eight = [prompts[0] for prompts in sets.values()] * 2
    if with_masks:
        sets["mask"] = (_mask(frame, generator, ()),)
        sets["point and mask"] = (_mask(frame, generator, (1,)),)
        eight = eight[:6] + [sets["mask"][0], sets["point and mask"][0]]
    return {**sets, "8 prompts": tuple(eight)}


def _that_fit(
    sets: dict[str, tuple[Prompt, ...]], max_points: int | None
) -> dict[str, tuple[Prompt, ...]]:
    if max_points is None:
        return sets
    kept = {
        name: tuple(prompt for prompt in prompts if _num_slots(prompt) <= max_points)
        for name, prompts in sets.items()
    }
    return {name: prompts for name, prompts in kept.items() if prompts}


def _num_slots(prompt: Prompt) -> int:
    return len(prompt.points_xy) + (0 if prompt.box_xyxy is None else 2)


def _point(hw: tuple[int, int], generator: np.random.Generator) -> Prompt:
    return _points(hw, generator, [1])


def _points(hw: tuple[int, int], generator: np.random.Generator, labels: list[int]) -> Prompt:
    return Prompt(points_xy=_places(hw, generator, len(labels)), point_labels=labels)


def _places(hw: tuple[int, int], generator: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Draw (count, 2) places on an image; x is far right where y is far up, and the reverse."""
    along = generator.uniform(0.05, 0.45, count)
    flip = generator.integers(0, 2, count).astype(bool)
    x = np.where(flip, 1 - along, along)
    y = np.where(flip, along, 1 - along)
    return np.stack([x * hw[1], y * hw[0]], axis=1).astype(np.float32)


def _box(hw: tuple[int, int], generator: np.random.Generator, labels: Sequence[int] = ()) -> Prompt:
    (height, width), (a, b) = hw, generator.uniform(0.05, 0.3, 2)
    box = [a * width, b * height, (a + 0.55) * width, (b + 0.3) * height]
    points_xy = _places(hw, generator, len(labels))
    return Prompt(points_xy=points_xy, point_labels=list(labels), box_xyxy=box)


def _mask(frame: ModelFrame, generator: np.random.Generator, labels: Sequence[int]) -> Prompt:
    side = frame.image_size // 4
    soft = generator.uniform(-8, 8, (4, 5)).astype(np.float32)
    logits = cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR)
    points_xy = _places(frame.image_hw, generator, len(labels))
    return Prompt(points_xy=points_xy, point_labels=list(labels), mask_logits=logits)
