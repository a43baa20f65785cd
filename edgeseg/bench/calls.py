"""One call of each part of a loaded model, the same for every program that runs it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.bench.results import Missing
from edgeseg.bench.suite import split_part
from edgeseg.errors import EdgesegError
from edgeseg.geometry import ModelFrame
from edgeseg.images import read_image
from edgeseg.prompts import Prompt
from edgeseg.runtime.backend import Backend, ProposingBackend, takes_rgb
from edgeseg.runtime.model_input import model_input
from edgeseg.runtime.segmenter import Segmenter

Call = Callable[[], object]


def segmenter_calls(
    segmenter: Segmenter, parts: Sequence[str], photo: Path, label: str
) -> tuple[dict[str, Call], tuple[Missing, ...]]:
    """Prepare every part on a photograph.

    The encoder starts from pixels that are scaled and padded already, the decoder from features;
    "everything" starts from the decoded photograph, "end_to_end" from its file.

    Args:
        segmenter: The model.
        parts: See `edgeseg.bench.suite.PARTS`.
        photo: An image file.
        label: Of the contender, for what is missing.

    Returns:
        A call for each part that this model has, and the other parts with the reason.

    Raises:
        ImageError: The photograph cannot be read.
    """
    image = read_image(photo)
    backend = segmenter.backend
    pixels = model_input(image, backend.image_size, takes_rgb(backend))
    features = encoded_if_needed(backend, pixels, parts)
    frame = ModelFrame((image.shape[0], image.shape[1]), backend.image_size)
    calls: dict[str, Call] = {}
    missing = []
    for part in parts:
        kind, count = split_part(part)
        if kind == "encoder":
            calls[part] = partial(backend.encode, pixels)
        elif kind == "decoder":
            points_xy, labels = clicks(frame, count)
            calls[part] = partial(backend.decode, features, points_xy, labels, None, None)
        elif kind == "end_to_end":
            calls[part] = partial(segment_file, segmenter, photo)
        elif kind == "batch":
            missing.append(_missing(label, part, "its encoder takes one image a call"))
        elif (reason := why_no_proposals(segmenter, features)) is not None:
            missing.append(_missing(label, part, reason))
        elif kind == "proposals":
            assert isinstance(backend, ProposingBackend)
            calls[part] = partial(backend.propose, features)
        else:
            calls[part] = partial(segmenter.segment_everything, image)
    return calls, tuple(missing)


def encoded_if_needed(
    backend: Backend, pixels: NDArray[Any], parts: Sequence[str]
) -> tuple[NDArray[Any], ...]:
    """Return features for the parts that start from them; some encoders take minutes."""
    starts_later = {"decoder", "proposals", "everything"}
    if starts_later.isdisjoint(split_part(part)[0] for part in parts):
        return ()
    return backend.encode(pixels)


def clicks(frame: ModelFrame, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return `count` prompts of one click each, spread over the image.

    Returns:
        (count, 1, 2) float32, x then y in model pixels, and (count, 1) int64 labels.
    """
    height, width = frame.content_hw
    spread = np.random.default_rng(0).uniform(0.05, 0.95, (count, 1, 2))
    points_xy = (spread * [width, height]).astype(np.float32)
    return points_xy, np.ones((count, 1), np.int64)


def segment_file(segmenter: Segmenter, photo: Path) -> NDArray[np.bool_]:
    """Read a file, encode it, and return the full-size mask of a click in its middle."""
    image = read_image(photo)
    click = Prompt(points_xy=[(image.shape[1] / 2, image.shape[0] / 2)], point_labels=[1])
    return segmenter.segment(segmenter.encode(image), click).masks


def why_no_proposals(segmenter: Segmenter, features: tuple[NDArray[np.float32], ...]) -> str | None:
    """Return why a model proposes nothing, or None if it does."""
    backend = segmenter.backend
    if not isinstance(backend, ProposingBackend):
        return "its backend has no proposals"
    try:
        backend.propose(features)
    except EdgesegError as error:
        return str(error)
    return None


def _missing(label: str, part: str, reason: str) -> Missing:
    return Missing(label=label, part=part, reason=reason)
