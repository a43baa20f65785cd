"""What a benchmark writes down: every sample, what ran, on what, and what could not run.

The same document comes from the harness here, from `trtexec`, from a phone over `adb` and from the
app in `export/iphone`, so they are compared and rendered alike.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeseg.bench.summary import Summary, summarise
from edgeseg.errors import ConfigError
from edgeseg.files import write_atomically


class Document(BaseModel):
    """A part of the file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ContenderCard(Document):
    """One model in one program.

    Attributes:
        label: Its name in tables, unique in a result.
        model: Registry name, such as "edgeseg_s".
        driver: What ran it, such as "onnx", "onnx:cuda" or "trtexec".
        runs_on: What really ran it, such as an execution provider or a compute unit.
        precision: Of the weights and activations, such as "float32".
        image_size: Side of the square input, in pixels.
        weights_sha256: Hash of the weights; empty for random ones.
        size_bytes: Size of each file, by role; empty where nothing was exported.
        num_parameters: Parameters by part ("encoder", "decoder", "proposals"), where counted.
        macs: Multiply-accumulates of one call by part, where counted.
        num_activations: Numbers that convolutions and products write in one call, where counted.
    """

    label: str
    model: str
    driver: str
    runs_on: str
    precision: str
    image_size: int
    weights_sha256: str = ""
    size_bytes: dict[str, int] = Field(default_factory=dict)
    num_parameters: dict[str, int] = Field(default_factory=dict)
    macs: dict[str, int] = Field(default_factory=dict)
    num_activations: dict[str, int] = Field(default_factory=dict)


class Measurement(Document):
    """All samples of one part of one contender.

    Attributes:
        label: Of the contender.
        part: "encoder", "decoder@8", "proposals", "everything", "end_to_end" or "batch@4".
        samples_ms: One number a timed call, in order, in milliseconds. Tools that only report a
            summary give none.
        reported: What such a tool says instead.
        in_turns: Whether call k of all contenders belongs to one round.
        num_warmup: Calls before that did not count.
        clock: What measured: "wall clock", "CUDA events", or a tool's name.
    """

    label: str
    part: str
    samples_ms: tuple[float, ...] = ()
    reported: Summary | None = None
    in_turns: bool
    num_warmup: int
    clock: str = "wall clock"

    @property
    def summary(self) -> Summary:
        """Percentiles and spread."""
        return self.reported if self.reported is not None else summarise(self.samples_ms)


class ColdStart(Document):
    """A contender in a process of its own, from nothing to the first mask.

    Attributes:
        label: Of the contender.
        import_ms: Importing the programs.
        load_ms: Opening the files.
        first_call_ms: The first image and prompt.
        second_call_ms: The same again.
        peak_memory_mb: Largest resident size of the process, in MB (1e6 bytes).
        base_memory_mb: Its resident size after the imports, before the model was loaded.
    """

    label: str
    import_ms: float
    load_ms: float
    first_call_ms: float
    second_call_ms: float
    peak_memory_mb: float
    base_memory_mb: float


class Missing(Document):
    """What was asked and not measured.

    Attributes:
        label: Of the contender.
        part: The part, or empty for all.
        reason: Why, in words.
    """

    label: str
    part: str = ""
    reason: str


class BenchResult(Document):
    """A run of a suite.

    Attributes:
        format: Version of this layout.
        suite: Name of the suite.
        created_utc: When it ended, ISO 8601.
        machine: What it ran on.
        threads: Threads of one call on a processor.
        contenders: What ran.
        measurements: Latencies.
        cold_starts: Start-up and memory.
        missing: What did not run, and why.
    """

    format: Literal[1] = 1
    suite: str
    created_utc: str
    machine: dict[str, Any]
    threads: int
    contenders: tuple[ContenderCard, ...]
    measurements: tuple[Measurement, ...]
    cold_starts: tuple[ColdStart, ...] = ()
    missing: tuple[Missing, ...] = ()

    def parts(self) -> list[str]:
        """Return the parts that were measured, in order."""
        return list(dict.fromkeys(measurement.part for measurement in self.measurements))

    def find(self, label: str, part: str) -> Measurement | None:
        """Return the samples of a contender's part, or None."""
        for measurement in self.measurements:
            if (measurement.label, measurement.part) == (label, part):
                return measurement
        return None

    def card(self, label: str) -> ContenderCard:
        """Return what is known of a contender.

        Raises:
            ConfigError: The result has none of this label.
        """
        for contender in self.contenders:
            if contender.label == label:
                return contender
        labels = ", ".join(contender.label for contender in self.contenders)
        raise ConfigError(f"the result has no contender {label!r}; it has {labels}")

    def write(self, path: Path) -> None:
        """Write the result as JSON."""
        text = self.model_dump_json(indent=1) + "\n"
        write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))

    @classmethod
    def read(cls, path: Path) -> "BenchResult":
        """Read a result.

        Raises:
            ConfigError: The file is missing, or is no result of a benchmark.
        """
        try:
            return cls.model_validate_json(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the result {path}: {error}; give a file that edgeseg bench wrote"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ConfigError(
                f"{path} is no result of edgeseg bench: {where}: {first['msg']}; give a file that "
                "it wrote"
            ) from None

    def to_csv(self) -> str:
        """Return one line a measurement: contender, part, figures, and what ran it."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(self._lines())
        return text.getvalue()

    def _lines(self) -> Iterator[list[object]]:
        for measurement in self.measurements:
            card = self.card(measurement.label)
            summary = measurement.summary
            figures = [getattr(summary, name) for name in _FIGURES]
            what = [card.label, card.model, card.driver, card.runs_on, card.precision]
            yield [*what, card.image_size, measurement.part, *figures, measurement.clock]


_FIGURES = tuple(Summary.model_fields)
_COLUMNS = (
    "label", "model", "driver", "runs_on", "precision", "image_size", "part", *_FIGURES, "clock",
)  # fmt: skip
