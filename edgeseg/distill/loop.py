"""Runs a stage step by step: schedule, metrics, checkpoints, evaluations, clean stops, resuming.

Every batch and every random number is a function of seed and step, so a checkpoint of weights,
optimiser and step continues exactly where an uninterrupted run would be.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from lightning.fabric import Fabric
from torch import nn

from edgeseg.data.batches import TrainingBatch
from edgeseg.data.broken import BrokenItems
from edgeseg.data.loading import build_loader
from edgeseg.data.training import TrainingDataset
from edgeseg.distill.config import RunConfig
from edgeseg.distill.flat_step import sharpness_aware_of, take_flat_step
from edgeseg.distill.optimization import (
    WeightAverage,
    averaged,
    build_optimizer,
    freeze_norms,
    learning_rate_at,
    set_learning_rate,
)
from edgeseg.distill.run_folder import RunFolder
from edgeseg.distill.stages import Stage
from edgeseg.distill.step import StepReport, take_step
from edgeseg.distill.step_random import StepRandom
from edgeseg.errors import RunError
from edgeseg.modeling.promptable import PromptableNet


class Reporter(Protocol):
    """Shows a run to whoever started it."""

    def start(self, stage: str, first_step: int, num_steps: int) -> None:
        """Begin showing a stage."""

    def step(self, step: int, images_per_s: float, losses: dict[str, float]) -> None:
        """Show that `step` steps are done."""

    def message(self, text: str) -> None:
        """Show a line."""


class Silence:
    """The reporter of all processes but the first."""

    def start(self, stage: str, first_step: int, num_steps: int) -> None:
        """Show nothing."""

    def step(self, step: int, images_per_s: float, losses: dict[str, float]) -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Show nothing."""


@dataclass
class Clock:
    """Where the time of the last steps went, in seconds."""

    loading_s: float = 0.0
    total_s: float = 0.0
    num_steps: int = 0

    def add(self, loading_s: float, total_s: float) -> None:
        """Count one step."""
        self.loading_s += loading_s
        self.total_s += total_s
        self.num_steps += 1


@dataclass
class StageRun:
    """A stage in progress.

    Attributes:
        stage: What is trained.
        fabric: Device, precision and processes.
        folder: Where results go; only the first process writes.
        dataset: The training stream.
        num_steps: Steps of the stage.
        reporter: Shows progress.
        should_stop: Whether the process was asked to stop.
        evaluate: Called with the network to evaluate and the number of steps done.
        broken_items: Counts unreadable records over the whole run.
    """

    stage: Stage
    fabric: Fabric
    folder: RunFolder
    dataset: TrainingDataset
    num_steps: int
    reporter: Reporter
    should_stop: Callable[[], bool]
    evaluate: Callable[[PromptableNet, int], None]
    broken_items: BrokenItems

    def __post_init__(self) -> None:
        config = self.folder.config
        self.config: RunConfig = config
        self.net = self.stage.student
        self.net.requires_grad_(False)
        for part in self.stage.learning_parts():
            part.requires_grad_(True)
        for parameter in _lora_parameters(self.net):
            parameter.requires_grad_(True)
        extra = list(self.stage.extra.parameters()) if self.stage.extra is not None else []
        self.optimizer = build_optimizer(self.net, self.stage.config, extra)
        self.sharpness_aware = sharpness_aware_of(config, self.optimizer, self.net)
        decay = config.engine.ema_decay
        self.average = None if decay is None else WeightAverage(self.net, decay)
        self.first_step = 0

    def state(self, step: int) -> dict[str, Any]:
        """Return everything needed to continue after `step` steps."""
        average, extra = self.average, self.stage.extra
        return {
            "stage": self.stage.name,
            "step": step,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if average is None else average.state,
            "average_updates": 0 if average is None else average.num_updates,
            "extra": None if extra is None else extra.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint of this stage.

        Raises:
            RunError: It does not fit the run's settings.
        """
        try:
            self._load(checkpoint)
        except (KeyError, RuntimeError, ValueError, AttributeError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunError(
                f"the checkpoint of {self.folder.path} does not fit its config.json: {reason}; "
                "restore config.json or start a new run"
            ) from error

    def _load(self, checkpoint: dict[str, Any]) -> None:
        self.net.load_state_dict(checkpoint["net"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        if self.average is not None:
            self.average.load(checkpoint["average"], checkpoint["average_updates"])
        if self.stage.extra is not None:
            self.stage.extra.load_state_dict(checkpoint["extra"])
        self.fabric.strategy.precision.load_state_dict(checkpoint["precision"])
        self.first_step = checkpoint["step"]

    def run(self) -> bool:
        """Train to the end of the stage.

        Returns:
            False if the run was asked to stop first; a checkpoint is written in either case.

        Raises:
            DivergedError: A loss is not finite.
            DataError: Too many records are broken.
        """
        engine = self.config.engine
        if self.fabric.is_global_zero:
            self.folder.forget_metrics_from(self.stage.name, self.first_step + 1)
        self.reporter.start(self.stage.name, self.first_step, self.num_steps)
        clock = Clock()
        self._train_mode()
        for step, batch, loading_s in self._batches():
            started = time.perf_counter()
            report = self._step(step, batch)
            clock.add(loading_s, loading_s + time.perf_counter() - started)
            done = step + 1
            if done % engine.log_every_steps == 0 or done == self.num_steps:
                self._log(done, report, clock)
                clock = Clock()
            if report.stop or done == self.num_steps or done % engine.checkpoint_every_steps == 0:
                self.save(done)
            if report.stop and done < self.num_steps:
                return False
            evaluation = self.config.evaluation
            if evaluation and done % evaluation.every_steps == 0 and done < self.num_steps:
                self.evaluate_now(done)
        return True

    def time_steps(self) -> list[float]:
        """Take all steps without logs, checkpoints or evaluations; return the seconds of each."""
        self._train_mode()
        durations = []
        for step, batch, loading_s in self._batches():
            started = time.perf_counter()
            self._step(step, batch)
            durations.append(loading_s + time.perf_counter() - started)
        return durations

    def save(self, step: int) -> None:
        """Write a checkpoint, from the first process."""
        if self.fabric.is_global_zero:
            self.folder.save_checkpoint(self.state(step))

    def evaluate_now(self, step: int) -> None:
        """Evaluate the averaged weights, or the present ones without averaging."""
        with averaged(self.net, self.average):
            self.evaluate(self.net, step)
        self._train_mode()

    def finish(self) -> None:
        """Make the averaged weights the network's own."""
        if self.average is not None:
            self.net.load_state_dict(self.average.state)

    def _train_mode(self) -> None:
        self.net.train()
        learns = any(p.requires_grad for p in self.net.image_encoder.parameters())
        if self.config.engine.norms == "frozen" or not learns:
            freeze_norms(self.net)
        head = self.net.proposal_head
        if head is not None:  # it starts from nothing, so its norms have statistics to learn
            head.train(any(p.requires_grad for p in head.parameters()))

    def _batches(self) -> Iterator[tuple[int, TrainingBatch, float]]:
        """Yield step, batch on the device, and the seconds spent waiting for it."""
        loader = iter(
            build_loader(
                self.dataset,
                self.first_step,
                self.num_steps - self.first_step,
                self.stage.config.batch_size,
                self.fabric.global_rank,
                self.fabric.world_size,
                self.config.data.workers,
                broken_items=self.broken_items,
                pin_memory=self.fabric.device.type == "cuda",
            )
        )
        for step in range(self.first_step, self.num_steps):
            started = time.perf_counter()
            batch = next(loader).to(self.fabric.device, non_blocking=True)
            yield step, batch, time.perf_counter() - started

    def _step(self, step: int, batch: TrainingBatch) -> StepReport:
        config = self.stage.config
        local_size = config.batch_size // self.fabric.world_size
        first = step * config.batch_size + self.fabric.global_rank * local_size
        random = StepRandom(
            self.config.seed,
            range(first, first + local_size),
            batch.counts,
            self.fabric.device,
            progress=step / self.num_steps,
        )
        set_learning_rate(self.optimizer, learning_rate_at(step, self.num_steps, config))
        stop, flat = self.should_stop(), self.sharpness_aware
        if flat is None:
            report = take_step(self.fabric, self.stage, batch, self.optimizer, random, stop)
        else:
            report = take_flat_step(self.fabric, self.stage, batch, flat, random, step, stop)
        if self.average is not None:
            self.average.update(self.net)
        return report

    def _log(self, step: int, report: StepReport, clock: Clock) -> None:
        images = clock.num_steps * self.stage.config.batch_size
        images_per_s = images / max(clock.total_s, 1e-9)
        values = {
            **report.losses,
            "grad_norm": report.grad_norm,
            "learning_rate": learning_rate_at(step - 1, self.num_steps, self.stage.config),
            "images_per_s": images_per_s,
            "loading_share": clock.loading_s / max(clock.total_s, 1e-9),
        }
        if self.fabric.is_global_zero:
            self.folder.log(self.stage.name, step, values)
        self.reporter.step(step, images_per_s, report.losses)


def _lora_parameters(net: nn.Module) -> Iterator[nn.Parameter]:
    for name, parameter in net.named_parameters():
        if ".parametrizations." in name and not name.endswith(".original"):
            yield parameter
