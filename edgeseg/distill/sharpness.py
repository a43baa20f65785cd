"""How sharp a minimum is: how much the loss of each domain rises a small distance away.

Two ways away, both of length rho over all weights together. Random directions say how the loss
behaves around the weights; the direction of the gradient says, to first order, how bad it gets
(Foret et al. 2021, arXiv:2010.01412). Figures of two networks are comparable when their weights
are: the same architecture, from the same start. A network whose weights are twice as large is half
as sharp by this measure and answers the same where norms undo it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from edgeseg.distill.flat_minima import frozen_statistics
from edgeseg.errors import ConfigError, DataError, DivergedError

Loss = Callable[[], Tensor]
"""Computes a loss at the present weights, a scalar; the same one whenever the weights are."""


@dataclass(frozen=True)
class SharpnessReport:
    """Sharpness of one domain; all in units of the loss.

    Attributes:
        loss: At the weights themselves, mean over the batches.
        random_rise: Mean rise of the loss over the random directions.
        random_spread: Standard deviation of that rise over the directions; zero for one.
        ascent_rise: Rise of the loss along its own gradient.
    """

    loss: float
    random_rise: float
    random_spread: float
    ascent_rise: float


def measure_sharpness(
    net: nn.Module,
    losses: Mapping[str, Sequence[Loss]],
    rho: float,
    num_directions: int = 10,
    seed: int = 0,
    parameters: Iterable[nn.Parameter] | None = None,
) -> dict[str, SharpnessReport]:
    """Measure how much the loss of each domain rises at a distance rho.

    All domains are measured in the same directions. Weights are put back bit by bit, also after an
    error; running statistics, gradients and torch's global random numbers are left alone. The
    caller chooses between training and eval mode.

    Args:
        net: Whose weights are moved.
        losses: The losses of each domain's batches; their mean is the domain's loss.
        rho: Length of the move, above zero.
        num_directions: Random directions, from a normal distribution over all weights.
        seed: Of the directions.
        parameters: The weights to move; default: all of the network's that need gradients.

    Returns:
        A report a domain.

    Raises:
        ConfigError: A number is out of range, or no parameter needs gradients.
        DataError: A domain has no batch, or there is no domain.
        DivergedError: A loss is not finite.
    """
    chosen = net.parameters() if parameters is None else parameters
    moved = [parameter for parameter in chosen if parameter.requires_grad]
    _check(moved, losses, rho, num_directions)
    with frozen_statistics(net):
        start = {name: _mean_loss(name, batches) for name, batches in losses.items()}
        rises = _random_rises(moved, losses, start, rho, num_directions, seed)
        return {
            name: SharpnessReport(
                loss=start[name],
                random_rise=sum(rises[name]) / num_directions,
                random_spread=_spread(rises[name]),
                ascent_rise=_ascent_rise(moved, name, batches, start[name], rho),
            )
            for name, batches in losses.items()
        }


def _check(
    moved: Sequence[nn.Parameter],
    losses: Mapping[str, Sequence[Loss]],
    rho: float,
    num_directions: int,
) -> None:
    if not (rho > 0 and math.isfinite(rho)) or num_directions < 1:
        raise ConfigError(
            "sharpness is measured at a distance rho above zero in one direction or more, got rho "
            f"{rho} and {num_directions} directions"
        )
    if not moved:
        raise ConfigError(
            "sharpness is measured by moving weights, but none of those given needs gradients; "
            "call requires_grad_(True) on what shall be moved"
        )
    empty = [name for name, batches in losses.items() if not batches]
    if empty or not losses:
        raise DataError(
            f"every domain needs a batch to measure its loss on, got none for "
            f"{', '.join(empty) or 'any domain'}; leave such domains out"
        )


def _random_rises(
    moved: list[nn.Parameter],
    losses: Mapping[str, Sequence[Loss]],
    start: Mapping[str, float],
    rho: float,
    num_directions: int,
    seed: int,
) -> dict[str, list[float]]:
    generator = torch.Generator().manual_seed(seed)
    rises: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(num_directions):
        # Drawn on the CPU, so that a seed means the same directions on any device.
        noise = [torch.randn(p.shape, generator=generator) for p in moved]
        direction = [n.to(p.device, p.dtype) for n, p in zip(noise, moved, strict=True)]
        with _Moved(moved, direction, rho):
            for name, batches in losses.items():
                rises[name].append(_mean_loss(name, batches) - start[name])
    return rises


def _ascent_rise(
    moved: list[nn.Parameter], name: str, batches: Sequence[Loss], start: float, rho: float
) -> float:
    gradients = [torch.zeros_like(parameter) for parameter in moved]
    for batch in batches:
        with torch.enable_grad():
            loss = batch()
        # Not `backward`, which would add to the gradients that someone may hold.
        found = torch.autograd.grad(loss, moved, allow_unused=True)
        for gradient, part in zip(gradients, found, strict=True):
            if part is not None:
                gradient += part / len(batches)
    with _Moved(moved, gradients, rho):
        return _mean_loss(name, batches) - start


class _Moved:
    """Keeps weights moved by rho along a direction inside a `with` block."""

    def __init__(self, moved: list[nn.Parameter], direction: list[Tensor], rho: float) -> None:
        self._moved = moved
        self._direction = direction
        self._rho = rho

    @torch.no_grad()
    def __enter__(self) -> None:
        self._start = [parameter.detach().clone() for parameter in self._moved]
        norm = float(get_total_norm(self._direction))
        weights: list[Tensor] = list(self._moved)
        torch._foreach_add_(weights, self._direction, alpha=self._rho / (norm + 1e-12))

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for parameter, start in zip(self._moved, self._start, strict=True):
            parameter.copy_(start)


@torch.no_grad()
def _mean_loss(name: str, batches: Sequence[Loss]) -> float:
    value = sum(float(batch()) for batch in batches) / len(batches)
    if not math.isfinite(value):
        raise DivergedError(
            f"the loss of {name} is {value} where its sharpness is measured; use a smaller rho or "
            "leave the domain out"
        )
    return value


def _spread(values: Sequence[float]) -> float:
    if len(values) == 1:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
