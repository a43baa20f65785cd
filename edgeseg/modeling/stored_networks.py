"""Which network a weight file is for, from names and shapes alone; nothing is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeseg.errors import EdgesegError, WeightsError
from edgeseg.modeling.checkpoints import load_state, recognise
from edgeseg.modeling.registry import build_model


@dataclass(frozen=True)
class Recognised:
    """Which network a weight file is for.

    Attributes:
        model: Registry name; None if it is none that is known.
        problem: Why it is not known, or what does not fit; empty if all is well.
    """

    model: str | None
    problem: str = ""


def recognise_tensors(shapes: Mapping[str, tuple[int, ...]], source: str) -> Recognised:
    """Return which network tensors of these names and shapes are for, and what does not fit.

    Nothing is loaded and no network takes memory: all of it happens on PyTorch's device `meta`.

    Args:
        shapes: Of the tensors, by name.
        source: What to call the file in a message.
    """
    try:
        state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        model = recognise(state, {}, source)
    except WeightsError as error:
        return Recognised(None, str(error))
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes that no tensor has
        return Recognised(None, f"{source} has impossible shapes: {str(error).splitlines()[0]}")
    return Recognised(model, _misfit(model, state, source))


def _misfit(model: str, state: dict[str, Tensor], source: str) -> str:
    """Return how a state does not fit its network, empty if it does."""
    try:
        with torch.device("meta"):
            load_state(build_model(model), state, source)
    except EdgesegError as error:
        return str(error)
    return ""
