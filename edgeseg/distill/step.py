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
    with fabric.autocast():
        parts = stage.losses(batch, random)
    totals, counts, stopping = _global_sums(fabric, stage, parts, stop)
    loss = torch.zeros((), device=fabric.device)
    for index, (name, weight) in enumerate(stage.weights.items()):
        if name in parts and weight:
            loss = loss + weight * parts[name].total / counts[index].clamp(min=1)
    means = (totals / counts.clamp(min=1)).tolist()
    losses = dict(zip(stage.weights, means, strict=True))
    losses["total"] = sum(weight * losses[name] for name, weight in stage.weights.items())
    if not all(map(torch.isfinite, totals)):
        raise DivergedError(f"the {stage.name} loss is {losses['total']}; {_advice(stage)}")
    if not counts.any():
        return StepReport(losses, 0.0, stopping)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    grad_norm = _descend(fabric, stage, loss, parameters, optimizer)
    return StepReport(losses, grad_norm, stopping)


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


def _descend(
    fabric: Fabric,
    stage: Stage,
    loss: Tensor,
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> float:
    optimizer.zero_grad(set_to_none=True)
    precision = fabric.strategy.precision
    scaler = getattr(precision, "scaler", None)
    if loss.requires_grad:
        fabric.backward(loss)
    elif scaler is not None:  # a process without prompts adds nothing, but keeps the common scale
        scaler.scale(loss)
    sum_gradients(fabric, parameters)
    precision.unscale_gradients(optimizer)
    grad_norm = clip_grad_norm_(parameters, stage.config.max_grad_norm)
    if not torch.isfinite(grad_norm) and scaler is None:  # a loss scaler skips the step by itself
        raise DivergedError(
            f"the gradient of the {stage.name} loss is not finite; {_advice(stage)}"
        )
    precision.optimizer_step(optimizer)
    return float(grad_norm)


def _advice(stage: Stage) -> str:
    return (
        f"lower {stage.name}_stage.learning_rate in config.json of the run folder and resume from "
        "the last checkpoint"
    )
