"""One optimiser step, on one process or many."""

from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from edgeseg.data.batches import TrainingBatch
from edgeseg.distill.losses import Mean
from edgeseg.distill.processes import sum_gradients, sum_over_ranks
from edgeseg.distill.stages import Stage
from edgeseg.distill.step_random import StepRandom
from edgeseg.errors import DivergedError


@dataclass(frozen=True)
class StepReport:
    """What a step measured.

    Attributes:
        losses: Mean of each part over the global batch, and "total" with the stage's weights.
        grad_norm: Norm of the gradient before clipping.
        stop: Whether any process was asked to stop.
    """

    losses: dict[str, float]
    grad_norm: float
    stop: bool


@dataclass(frozen=True)
class BatchLoss:
    """The loss of the global batch of all processes.

    Attributes:
        loss: Scalar; its gradients, summed over the processes, are those of the whole batch.
        totals: (L,) float32, sum of each part of the loss over all processes.
        counts: (L,) float32, number of elements of each part over all processes.
        stop: Whether any process was asked to stop.
    """

    loss: Tensor
    totals: Tensor
    counts: Tensor
    stop: bool

    @property
    def has_elements(self) -> bool:
        """Whether there is anything to learn from, on any process."""
        return bool(self.counts.any())


def take_step(
    fabric: Fabric,
    stage: Stage,
    batch: TrainingBatch,
    optimizer: torch.optim.Optimizer,
    random: StepRandom,
    stop: bool = False,
) -> StepReport:
    """Take one optimiser step on the global batch of all processes.

    Args:
        fabric: Device, precision and processes.
        stage: Gives losses and their weights.
        batch: This process's share of the batch.
        optimizer: Holds the parameters that learn.
        random: Random numbers of this step.
        stop: Whether this process was asked to stop; all processes learn of it.

    A global batch without any prompt changes nothing.

    Raises:
        DivergedError: The loss or the gradient is not finite. The weights are left as they were.
    """
    found = batch_loss(fabric, stage, batch, random, stop)
    losses = mean_losses(stage, found.totals, found.counts)
    if not found.has_elements:
        return StepReport(losses, 0.0, found.stop)
    optimizer.zero_grad(set_to_none=True)
    back_propagate(fabric, found.loss, optimizer)
    return StepReport(losses, descend(fabric, stage, optimizer), found.stop)


def batch_loss(
    fabric: Fabric, stage: Stage, batch: TrainingBatch, random: StepRandom, stop: bool = False
) -> BatchLoss:
    """Compute the loss of a global batch; see `take_step`.

    Raises:
        DivergedError: It is not finite.
    """
    with fabric.autocast():
        parts = stage.losses(batch, random)
    totals, counts, stopping = _global_sums(fabric, stage, parts, stop)
    loss = torch.zeros((), device=fabric.device)
    for index, (name, weight) in enumerate(stage.weights.items()):
        if name in parts and weight:
            loss = loss + weight * parts[name].total / counts[index].clamp(min=1)
    if not all(map(torch.isfinite, totals)):
        value = mean_losses(stage, totals, counts)["total"]
        raise DivergedError(f"the {stage.name} loss is {value}; {_advice(stage)}")
    return BatchLoss(loss, totals, counts, stopping)


def mean_losses(stage: Stage, totals: Tensor, counts: Tensor) -> dict[str, float]:
    """Return the mean of each part of the loss, and "total" with the stage's weights.

    Args:
        stage: Names and weighs the parts.
        totals: (L,) float32, sum of each part.
        counts: (L,) float32, number of elements of each part.
    """
    means = (totals / counts.clamp(min=1)).tolist()
    losses = dict(zip(stage.weights, means, strict=True))
    losses["total"] = sum(weight * losses[name] for name, weight in stage.weights.items())
    return losses


def back_propagate(fabric: Fabric, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Add the gradient of the global batch to `.grad`, scaled if the precision scales losses."""
    scaler = loss_scaler(fabric)
    if loss.requires_grad:
        fabric.backward(loss)
    elif scaler is not None:  # a process without prompts adds nothing, but keeps the common scale
        scaler.scale(loss)
    sum_gradients(fabric, _parameters(optimizer))


def descend(fabric: Fabric, stage: Stage, optimizer: torch.optim.Optimizer) -> float:
    """Unscale and clip the gradient and step along it; return its norm before clipping.

    Raises:
        DivergedError: It is not finite. The weights are left as they were.
    """
    precision = fabric.strategy.precision
    precision.unscale_gradients(optimizer)
    grad_norm = clip_grad_norm_(_parameters(optimizer), stage.config.max_grad_norm)
    # A loss scaler skips the step by itself.
    if not torch.isfinite(grad_norm) and loss_scaler(fabric) is None:
        raise DivergedError(
            f"the gradient of the {stage.name} loss is not finite; {_advice(stage)}"
        )
    precision.optimizer_step(optimizer)
    return float(grad_norm)


def loss_scaler(fabric: Fabric) -> torch.amp.GradScaler | None:
    """Return what scales losses in half precision; other precisions have none."""
    return getattr(fabric.strategy.precision, "scaler", None)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _global_sums(
    fabric: Fabric, stage: Stage, parts: dict[str, Mean], stop: bool
) -> tuple[Tensor, Tensor, bool]:
    zero = torch.zeros((), device=fabric.device)
    found = [parts.get(name, Mean(zero, zero)) for name in stage.weights]
    local = torch.stack(
        [part.total.detach().float() for part in found]
        + [part.count.float() for part in found]
        + [torch.tensor(float(stop), device=fabric.device)]
    )
    summed = sum_over_ranks(fabric, local)
    totals, counts = summed[:-1].chunk(2)
    return totals, counts, bool(summed[-1] > 0)


def _advice(stage: Stage) -> str:
    return (
        f"lower {stage.name}_stage.learning_rate in config.json of the run folder and resume from "
        "the last checkpoint"
    )
