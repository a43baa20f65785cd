"""Sharpness-aware optimisation: descend by gradients taken at weights where the loss is higher.

A minimum whose surroundings are as low as itself is thought to carry over to data of other kinds.
Three methods, around any optimiser of torch:

- "pooled", Foret et al. 2021, arXiv:2010.01412: climb a distance rho along the gradient of the
  joint batch, take the gradient there, return, descend by it. 2 gradients a step.
- "per_domain": the same for every domain by itself; the mean of the domains' gradients descends.
  Flat in the sum over domains is not flat in each. 2 S gradients of S domains.
- "gradual", DGSAM, Song et al. 2025, arXiv:2503.23430: climb rho along the gradient of one domain
  after the other, in random order, and descend by the very gradients that were climbed along. The
  first domain is visited once more at the end, so S + 1 gradients of S domains; the whole climb is
  up to S rho long, so a rho of "pooled" is S times as bold here.

What differs from DGSAM as published: there the S + 1 gradients are summed and multiplied by
S / (S + 1), S times the scale of the mean over domains. Adam does not notice, but plain gradient
descent, gradient clipping and coupled weight decay do. Here they are divided by S + 1, so they are
on the scale of the mean gradient over the domains, and rates and limits keep their meaning.

At rho = 0 "pooled" is the base step on the joint batch, bit by bit. "per_domain", and "gradual"
without the first gradient, are the base step on the mean over domains of each domain's mean loss.
"gradual" itself is not, except with one domain: the one visited twice weighs double in that step,
which evens out over random orders.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from edgeseg.errors import ConfigError, DivergedError

Method = Literal["gradual", "pooled", "per_domain"]
Gradient = Callable[[], bool]
"""Leaves the gradient of one domain's loss at the present weights in `.grad`, unscaled and summed
over all processes; returns whether there was anything to learn from, on all processes alike."""

_ORDER = 4
"""First word of every seed; `stream_order` and `domain_draws` use 0 to 3."""
_TINY = 1e-12
"""Added to norms, so that a gradient that has vanished moves nothing."""


class SharpnessAware:
    """Takes the steps of an optimiser with gradients of higher ground.

    It holds no state between steps: a checkpoint is that of the optimiser. Between the call of a
    step and its end the weights are elsewhere, so whatever else a forward pass changes (statistics
    other than those of batch norms, memories) has to be kept still by the caller. Needs the memory
    of the weights twice more: a copy to return to, and the sum of the gradients.

    Args:
        optimizer: Holds the parameters that learn. Those without a gradient, or that need none, are
            neither moved nor part of a norm.
        net: Whose batch norms keep their running statistics in all passes.
        rho: Length of an ascent, over all parameters together.
        method: See the module.
        drop_first: Leave the gradient at the unmoved weights out of the descent; "gradual" only,
            the others never use it.
        fixed_order: Visit the domains in the order they are given, for comparison; "gradual" only.
        seed: Of the orders of domains, not negative; equal on all processes.

    Raises:
        ConfigError: A setting is out of range or does not fit the method.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        net: nn.Module,
        rho: float,
        method: Method = "gradual",
        *,
        drop_first: bool = False,
        fixed_order: bool = False,
        seed: int = 0,
    ) -> None:
        if not (rho >= 0 and isfinite(rho)):
            raise ConfigError(f"rho must be a length, zero or more, got {rho}")
        if method != "gradual" and (drop_first or fixed_order):
            raise ConfigError(
                f'drop_first and fixed_order belong to method "gradual", got {method!r}; leave '
                "them out"
            )
        if seed < 0:
            raise ConfigError(f"seed must not be negative, got {seed}")
        self.optimizer = optimizer
        self.net = net
        self.rho = rho
        self.method = method
        self.drop_first = drop_first
        self.fixed_order = fixed_order
        self.seed = seed

    def step(
        self, losses: Sequence[Callable[[], Tensor]], step: int, max_grad_norm: float | None = None
    ) -> float:
        """Take one step of the optimiser, on one process and without loss scaling.

        Args:
            losses: One a domain, or one of the joint batch ("pooled"): computes the loss at the
                present weights, a scalar with its history.
            step: Number of the step; the order of the domains depends on it.
            max_grad_norm: The gradient is clipped to this norm, or not at all.

        Returns:
            Norm of the gradient before clipping.

        Raises:
            ConfigError: There are no losses, or several for "pooled".
            DivergedError: The gradient is not finite. The weights are left as they were.
        """
        self.gather([_backward_of(loss) for loss in losses], step)
        norm = float(clip_grad_norm_(self.parameters(), max_grad_norm or float("inf")))
        if not isfinite(norm):
            raise DivergedError(
                f"the gradient of a sharpness-aware step is {norm}; lower the learning rate or "
                f"rho, which is {self.rho}"
            )
        self.optimizer.step()
        return norm

    def gather(self, gradients: Sequence[Gradient], step: int) -> int:
        """Leave the gradient to descend by in `.grad`, and the weights as they are, bit by bit.

        A gradient that is not finite ends the passes and is left in `.grad`, for whoever descends
        to refuse it or, under loss scaling, to skip the step.

        Args:
            gradients: One a domain, or one of the joint batch ("pooled").
            step: Number of the step; the order of the domains depends on it.

        Returns:
            Number of gradients that were averaged; zero if no domain had anything to learn from.

        Raises:
            ConfigError: There are no gradients, or several for "pooled".
        """
        if not gradients or (self.method == "pooled" and len(gradients) > 1):
            raise ConfigError(
                f"a step of method {self.method!r} takes "
                f"{'one closure, of the joint batch' if gradients else 'a closure a domain'}, got "
                f"{len(gradients)}; give the joint batch, or another method"
            )
        parameters = self.parameters()
        climb = _Climb(self.optimizer, parameters, self.rho)
        try:
            with frozen_statistics(self.net):
                if self.method == "gradual":
                    self._gradual(climb, gradients, step)
                else:
                    _one_by_one(climb, gradients)
        finally:
            climb.restore()
        climb.leave_mean()
        return climb.num_added

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn."""
        groups = self.optimizer.param_groups
        return [p for group in groups for p in group["params"] if p.requires_grad]

    def _gradual(self, climb: "_Climb", gradients: Sequence[Gradient], step: int) -> None:
        order = domain_order(len(gradients), self.seed, step, self.fixed_order)
        for visit, index in enumerate([*order, order[0]]):
            if not climb.take(gradients[index]):
                continue
            if visit > 0 or not self.drop_first:
                climb.add()
            if visit < len(order) and not climb.ascend():
                return


def _one_by_one(climb: "_Climb", gradients: Sequence[Gradient]) -> None:
    """Climb for each gradient from the same start, and add those of the heights."""
    for gradient in gradients:
        if not climb.take(gradient):
            continue
        if not climb.ascend():
            return
        climb.take(gradient)
        climb.add()
        climb.restore()


class _Climb:
    """Moves weights, knows the way back and sums gradients on the way.

    Args:
        optimizer: Clears gradients.
        parameters: What is moved.
        rho: Length of an ascent.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], rho: float
    ) -> None:
        self.num_added = 0
        self._optimizer = optimizer
        self._parameters = parameters
        self._rho = rho
        self._start = [parameter.detach().clone() for parameter in parameters]
        self._sums: list[Tensor | None] = [None] * len(parameters)

    def take(self, gradient: Gradient) -> bool:
        """Compute a gradient at the present weights; nothing of the last one is left."""
        self._optimizer.zero_grad(set_to_none=True)
        torch.clear_autocast_cache()  # holds 16-bit copies of the weights before they moved
        return gradient()

    @torch.no_grad()
    def add(self) -> None:
        """Add the present gradient to the sum."""
        self.num_added += 1
        for index, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                continue
            total = self._sums[index]
            if total is None:
                self._sums[index] = parameter.grad.clone()
            else:
                total.add_(parameter.grad)

    @torch.no_grad()
    def ascend(self) -> bool:
        """Move by rho along the present gradient, or return False if that is not finite."""
        moved: list[Tensor] = [p for p in self._parameters if p.grad is not None]
        gradients = [p.grad for p in moved if p.grad is not None]
        norm = float(get_total_norm(gradients))
        if not isfinite(norm):
            self._sums = [p.grad for p in self._parameters]
            self.num_added = 1
            return False
        if moved:
            torch._foreach_add_(moved, gradients, alpha=self._rho / (norm + _TINY))
        return True

    @torch.no_grad()
    def restore(self) -> None:
        """Return to the start, by copy: adding and subtracting a step would round."""
        for parameter, start in zip(self._parameters, self._start, strict=True):
            parameter.copy_(start)

    def leave_mean(self) -> None:
        """Leave the mean of the added gradients in `.grad`; missing where all missed it."""
        for parameter, total in zip(self._parameters, self._sums, strict=True):
            parameter.grad = None if total is None else total.div_(self.num_added)


def domain_order(num_domains: int, seed: int, step: int, fixed: bool = False) -> list[int]:
    """Return the order in which a step visits the domains: a function of seed and step.

    So it is the same on all processes, and in a resumed run.
    """
    if fixed:
        return list(range(num_domains))
    return np.random.default_rng([_ORDER, seed, step]).permutation(num_domains).tolist()


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms as they are; what they compute is the same.

    A norm in training mode goes on normalising by the statistics of its batch. The counter of
    batches stands still, too, and a batch that is not finite leaves no trace.
    """
    norms = [
        module
        for module in net.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _backward_of(loss: Callable[[], Tensor]) -> Gradient:
    def gradient() -> bool:
        loss().backward()
        return True

    return gradient
