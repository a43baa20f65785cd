"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

import sys
import time

import typer

PLAIN_INTERVAL_S = 20.0
"""Seconds between two lines when the output is no terminal."""


class PlainReporter:
    """Writes lines to stderr."""

    def __init__(self) -> None:
        self._num_steps = 0
        self._first_step = 0
        self._stage = ""
        self._started = self._last = time.monotonic()

    def start(self, stage: str, first_step: int, num_steps: int) -> None:
        """Begin a stage."""
        self._stage, self._first_step, self._num_steps = stage, first_step, num_steps
        self._started = time.monotonic()
        resumed = f" from step {first_step}" if first_step else ""
        self.message(f"stage {stage}: {num_steps} steps{resumed}")

    def step(self, step: int, images_per_s: float, losses: dict[str, float]) -> None:
        """Write a line if the last one is old enough or the stage is done."""
        now = time.monotonic()
        if now - self._last < PLAIN_INTERVAL_S and step < self._num_steps:
            return
        self._last = now
        self.message(f"{self._stage} {self._status(step, images_per_s, losses)}")

    def message(self, text: str) -> None:
        """Write a line."""
        typer.echo(text, err=True)

    def close(self) -> None:
        """Nothing is open."""

    def _status(self, step: int, images_per_s: float, losses: dict[str, float]) -> str:
        done = max(1, step - self._first_step)
        left_s = (time.monotonic() - self._started) / done * (self._num_steps - step)
        parts = ", ".join(f"{name} {value:.4f}" for name, value in losses.items() if value)
        return (
            f"step {step}/{self._num_steps}, {images_per_s:.1f} images/s, "
            f"{_duration(left_s)} left, {parts}"
        )


class BarReporter(PlainReporter):
    """Shows a rich progress bar on stderr."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=Console(stderr=True),
        )
        self._progress.start()
        self._task: TaskID | None = None

    def start(self, stage: str, first_step: int, num_steps: int) -> None:
        """Begin a stage with a new bar."""
        self._task = self._progress.add_task(
            stage, total=num_steps, completed=first_step, status=""
        )

    def step(self, step: int, images_per_s: float, losses: dict[str, float]) -> None:
        """Move the bar."""
        assert self._task is not None
        status = f"{images_per_s:.1f} images/s, loss {losses['total']:.4f}"
        self._progress.update(self._task, completed=step, status=status)

    def message(self, text: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(text, highlight=False)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


def build_reporter() -> PlainReporter:
    """Return a bar for a terminal, lines otherwise."""
    return BarReporter() if sys.stderr.isatty() else PlainReporter()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
