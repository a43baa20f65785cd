"""The interface between the harness and whatever runs a model.

A driver either runs in this process (`CallDriver`), so that its calls are timed in turns with those
of others, or starts a tool that measures by itself (`ToolDriver`), such as `trtexec` or a phone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgeseg.bench.results import ContenderCard, Measurement, Missing
from edgeseg.bench.stopwatch import Rounds
from edgeseg.bench.suite import ContenderConfig
from edgeseg.export_manifest import ExportManifest


@dataclass(frozen=True)
class Request:
    """What is wanted of a driver.

    Attributes:
        contender: The model and how it is to run.
        folder: What `edgeseg export` wrote for it; None for drivers that need no files.
        parts: What to time; see `edgeseg.bench.suite.PARTS`.
        rounds: How often.
        threads: Threads of one call on a processor.
        photo: An image file, for the parts that start from one.
    """

    contender: ContenderConfig
    folder: Path | None
    parts: tuple[str, ...]
    rounds: Rounds
    threads: int
    photo: Path


@dataclass(frozen=True)
class Opened:
    """A model that is loaded and can be timed.

    Attributes:
        card: What it is.
        calls: One call of each part; it has finished its work when it returns, or returns a
            `DeviceTime`.
        missing: Parts that it cannot run, and why.
    """

    card: ContenderCard
    calls: Mapping[str, Callable[[], object]]
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True)
class ToolReport:
    """What a tool measured.

    Attributes:
        card: What it ran.
        measurements: Not in turns with other contenders.
        missing: Parts that it cannot run, and why.
    """

    card: ContenderCard
    measurements: tuple[Measurement, ...] = field(default=())
    missing: tuple[Missing, ...] = ()


class Driver(Protocol):
    """What all drivers have."""

    @property
    def name(self) -> str:
        """As suites call it, such as "onnx:cuda"."""

    @property
    def about(self) -> str:
        """Where it runs, in words, for `edgeseg bench drivers`."""

    @property
    def target(self) -> str | None:
        """Export target it needs files of by default, or None if it needs no files."""

    @property
    def untested(self) -> str:
        """What it was tested with, if it never ran on its device; empty otherwise."""

    def unavailable(self) -> str | None:
        """Return why it cannot run here and what to do about it, or None."""


@runtime_checkable
class CallDriver(Driver, Protocol):
    """Runs models in this process."""

    def open(self, request: Request) -> Opened:
        """Load a model.

        Raises:
            EdgesegError: The model cannot be loaded.
        """


@runtime_checkable
class ToolDriver(Driver, Protocol):
    """Starts a tool that measures by itself."""

    def measure(self, request: Request) -> ToolReport:
        """Run a model.

        Raises:
            BenchError: The tool failed, or its output is not understood.
        """


def exported_card(
    contender: ContenderConfig, manifest: ExportManifest, runs_on: str, precision: str | None = None
) -> ContenderCard:
    """Return what is known of exported files that are run.

    Args:
        contender: Whose files they are.
        manifest: Of their folder.
        runs_on: What really runs them.
        precision: Of the run, where it is not that of the files.
    """
    return ContenderCard(
        label=contender.label,
        model=manifest.model,
        driver=contender.driver,
        runs_on=runs_on,
        precision=precision or manifest.precision,
        image_size=manifest.image_size,
        weights_sha256=manifest.weights_sha256,
        size_bytes={file.role: file.size_bytes for file in manifest.files},
    )
