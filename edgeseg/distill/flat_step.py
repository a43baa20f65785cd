"""One sharpness-aware step on a global batch of several domains, on one process or many.

Each domain's images are a batch of their own: their loss is divided by their own counts, so every
domain weighs the same, however many objects its images have. The gradients of a pass are summed
over all processes before anything is measured or moved, so all processes climb to the same place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from edgeseg.data.batches import TrainingBatch
from edgeseg.data.domain_batches import domain_of, pick_images, rows_by_domain
from edgeseg.distill.config import RunConfig
from edgeseg.distill.flat_minima import SharpnessAware
from edgeseg.distill.stages import Stage
from edgeseg.distill.step import (
    BatchLoss,
    StepReport,
    back_propagate,
    batch_loss,
    descend,
    loss_scaler,
    mean_losses,
)
from edgeseg.distill.step_random import StepRandom
from edgeseg.errors import DivergedError


def sharpness_aware_of(
    config: RunConfig, optimizer: torch.optim.Optimizer, net: nn.Module
) -> SharpnessAware | None:
    """Wrap the optimiser of a stage as the run's settings say; None if they do not."""
    flat = config.flat_minima
    if flat is None:
        return None
    return SharpnessAware(
        optimizer,
        net,
        flat.rho,
        flat.method,
        drop_first=flat.drop_first,
        fixed_order=flat.fixed_order,
        seed=config.seed,
    )


@dataclass(frozen=True)
class DomainBatch:
    """Images of one domain with their random numbers.

    Attributes:
        batch: This process's share.
        random: Random numbers of its images.

    Raises:
        DataError: The images are of several domains.
    """

    batch: TrainingBatch
    random: StepRandom

    def __post_init__(self) -> None:
        domain_of(self.batch.domains)


def split_by_domain(batch: TrainingBatch, random: StepRandom) -> list[DomainBatch]:
    """Take a batch apart, domains sorted by name.

    Raises:
        DataError: The domains have different numbers of images.
    """
    return [
        DomainBatch(pick_images(batch, rows), random.of_images(rows))
        for rows in rows_by_domain(batch.domains).values()
    ]


def take_flat_step(
    fabric: Fabric,
    stage: Stage,
    batch: TrainingBatch,
    sharpness_aware: SharpnessAware,
    random: StepRandom,
    step: int,
    stop: bool = False,
) -> StepReport:
    """Take one sharpness-aware step; the arguments are those of `take_step` but for two.

    Args:
        fabric: Device, precision and processes.
        stage: Gives losses and their weights.
        batch: This process's share of the batch: equally many images of each domain, the same
            domains on all processes ("pooled": anything).
        sharpness_aware: Method and optimiser.
        random: Random numbers of this step.
        step: Number of the step; the order of the domains depends on it.
        stop: Whether this process was asked to stop; all processes learn of it.

    Norms that learn their statistics see the joint batch once, at the unmoved weights; the passes
    leave them alone. A domain without any prompt has no say, and a global batch without any changes
    nothing.

    Returns:
        The losses are those of the first visits of the domains, which "gradual" pays at weights
        that climb; "sharpness" is how much higher the weighted loss was at the second visits.

    Raises:
        DataError: The domains of the batch have different numbers of images.
        DivergedError: A loss or a gradient is not finite. The weights are left as they were.
    """
    if sharpness_aware.method == "pooled":
        pieces: Sequence[_Piece] = [_Piece(batch, random)]
    else:
        pieces = [_Piece(each.batch, each.random) for each in split_by_domain(batch, random)]
    optimizer = sharpness_aware.optimizer
    try:
        if _has_learning_norms(stage.student):
            with torch.no_grad(), fabric.autocast():
                stage.losses(batch, random)
        num_gradients = sharpness_aware.gather(
            [_GradientOf(fabric, stage, piece, optimizer, stop) for piece in pieces], step
        )
        visits = _Visits(stage, pieces)
        if not num_gradients:
            return StepReport(visits.losses(), 0.0, visits.stop)
        _scale_gradients(fabric, optimizer)
        return StepReport(visits.losses(), descend(fabric, stage, optimizer), visits.stop)
    except DivergedError as error:
        raise DivergedError(
            f"{error}; or lower flat_minima.rho, which is {sharpness_aware.rho}"
        ) from error


@dataclass
class _Piece:
    """A batch and what its visits measured."""

    batch: TrainingBatch
    random: StepRandom
    visits: list[BatchLoss] = field(default_factory=list)


@dataclass(frozen=True)
class _GradientOf:
    """Computes the gradient of one batch at the present weights."""

    fabric: Fabric
    stage: Stage
    piece: _Piece
    optimizer: torch.optim.Optimizer
    stop: bool

    def __call__(self) -> bool:
        """Leave it in `.grad`, summed over all processes and unscaled."""
        piece = self.piece
        found = batch_loss(self.fabric, self.stage, piece.batch, piece.random, self.stop)
        piece.visits.append(found)
        if not found.has_elements:
            return False
        back_propagate(self.fabric, found.loss, self.optimizer)
        _scale_gradients(self.fabric, self.optimizer, inverse=True)
        return True


@dataclass(frozen=True)
class _Visits:
    """What all passes of a step measured."""

    stage: Stage
    pieces: Sequence[_Piece]

    @property
    def stop(self) -> bool:
        """Whether any process was asked to stop."""
        return any(visit.stop for piece in self.pieces for visit in piece.visits)

    def losses(self) -> dict[str, float]:
        """Return the means over the first visits, and "sharpness"."""
        first = [piece.visits[0] for piece in self.pieces if piece.visits]
        twice = [piece.visits for piece in self.pieces if len(piece.visits) == 2]
        rise = self._total([two[1] for two in twice]) - self._total([two[0] for two in twice])
        return {**self._means(first), "sharpness": rise}

    def _means(self, visits: Sequence[BatchLoss]) -> dict[str, float]:
        totals: Tensor = sum((visit.totals for visit in visits[1:]), visits[0].totals)
        counts: Tensor = sum((visit.counts for visit in visits[1:]), visits[0].counts)
        return mean_losses(self.stage, totals, counts)

    def _total(self, visits: Sequence[BatchLoss]) -> float:
        """Return the mean of the weighted losses of some batches; zero of none."""
        totals = [self._means([visit])["total"] for visit in visits]
        return sum(totals) / max(1, len(totals))


def _scale_gradients(
    fabric: Fabric, optimizer: torch.optim.Optimizer, inverse: bool = False
) -> None:
    """Multiply all gradients by the scale of the loss, or divide them by it.

    A loss scaler unscales once a step only, so the passes divide by themselves, and the gradient to
    descend by is handed over scaled. The scale is a power of two unless someone chose another one,
    so nothing is rounded.
    """
    scaler = loss_scaler(fabric)
    if scaler is None:
        return
    scale = scaler.get_scale()
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, 1 / scale if inverse else scale)


def _has_learning_norms(net: nn.Module) -> bool:
    norm_class = nn.modules.batchnorm._BatchNorm
    return any(isinstance(m, norm_class) and m.training for m in net.modules())
