"""What a benchmark runs: a TOML file that a user can write, validated, unknown keys refused.

name = "my laptop"
parts = ["encoder", "decoder", "decoder@64", "end_to_end"]
reference = "EdgeSAM"

[[contender]]
label = "EdgeSAM"
model = "edgesam"
driver = "onnx"
"""

import re
import tomllib
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, field_validator, model_validator

from edgeseg.bench.results import Document
from edgeseg.bench.stopwatch import Rounds
from edgeseg.errors import ConfigError

PARTS = {
    "encoder": "one image to features",
    "decoder": "prompts to low-res masks, in one call; decoder@8 for eight prompts",
    "proposals": "features to boxes",
    "everything": "everything mode on one image that is encoded already",
    "end_to_end": "an image file to the full-size mask of one click",
    "batch": "batch@4: four images in one call of the encoder",
}
"""What can be timed."""
_PART = re.compile(r"([a-z_]+)(?:@([1-9]\d*))?")
_COUNTED = ("decoder", "batch")


class RoundsConfig(Document):
    """How often a contender runs.

    Attributes:
        rounds: Calls that count.
        warmup: Calls before them that do not.
    """

    rounds: int = Field(default=10, ge=1)
    warmup: int = Field(default=2, ge=0)

    @property
    def as_rounds(self) -> Rounds:
        """The same for the stopwatch."""
        return Rounds(self.rounds, self.warmup)


class ContenderConfig(Document):
    """One model in one program.

    Attributes:
        label: Its name in tables.
        model: A folder that `edgeseg export` wrote, a released model, a weight file, or the name of
            a registered network, which then has random weights: they suffice for time.
        driver: What runs it, such as "onnx", "onnx:cuda", "openvino", "pytorch", "pytorch:cuda",
            "coreml", "trtexec", "adb".
        target: What it is exported to when it is no exported folder and the driver needs one.
        image_size: Side of the input; default: the model's own. Only for what is exported here.
        options: Settings of the driver, such as {precision = "float16"}.
        parts: Parts to time instead of the suite's.
        runs: How often, instead of the suite's.
        cold_start: Whether it is also started in a process of its own, instead of what the suite
            says; very slow ones rather not.
    """

    label: str
    model: str
    driver: str = "onnx"
    target: str = "onnx_fp32"
    image_size: int | None = Field(default=None, ge=64, multiple_of=64)
    options: dict[str, str] = Field(default_factory=dict)
    parts: tuple[str, ...] | None = None
    runs: RoundsConfig | None = None
    cold_start: bool | None = None

    @field_validator("parts")
    @classmethod
    def _known_parts(cls, parts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for part in parts or ():
            split_part(part)
        return parts


class SuiteConfig(Document):
    """A suite.

    Attributes:
        name: For reports.
        threads: Threads of one call on a processor.
        rounds: Calls that count, in turns.
        warmup: Calls before them that do not.
        parts: What is timed of each contender.
        cold_start: Start each contender in a process of its own, and measure time and memory.
        reference: Label of the contender that ratios are against, or None.
        contender: The contenders, in order.
    """

    name: str
    threads: int = Field(default=2, ge=1)
    rounds: int = Field(default=10, ge=1)
    warmup: int = Field(default=2, ge=0)
    parts: tuple[str, ...] = ("encoder", "decoder", "end_to_end")
    cold_start: bool = True
    reference: str | None = None
    contender: tuple[ContenderConfig, ...] = Field(min_length=1)

    @field_validator("parts")
    @classmethod
    def _known_parts(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        for part in parts:
            split_part(part)
        return parts

    @model_validator(mode="after")
    def _unique_labels(self) -> Self:
        labels = [contender.label for contender in self.contender]
        twice = {label for label in labels if labels.count(label) > 1}
        if twice:
            raise ValueError(f"labels must differ, got {', '.join(sorted(twice))} more than once")
        if self.reference is not None and self.reference not in labels:
            raise ValueError(f"the reference {self.reference!r} is no contender")
        return self

    def parts_of(self, contender: ContenderConfig) -> tuple[str, ...]:
        """Return what is timed of a contender."""
        return self.parts if contender.parts is None else contender.parts

    def rounds_of(self, contender: ContenderConfig) -> Rounds:
        """Return how often a contender runs."""
        usual = RoundsConfig(rounds=self.rounds, warmup=self.warmup)
        return (contender.runs or usual).as_rounds

    def starts_alone(self, contender: ContenderConfig) -> bool:
        """Whether a contender is also started in a process of its own."""
        return self.cold_start if contender.cold_start is None else contender.cold_start

    @classmethod
    def read(cls, path: Path) -> "SuiteConfig":
        """Read a suite.

        Raises:
            ConfigError: The file is missing or says something that is not understood.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"cannot read the suite {path}: {error}; check the file") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ConfigError(
                f"{path}: {where}: {first['msg']}, got {first['input']!r}; correct the suite"
            ) from None


def split_part(part: str) -> tuple[str, int]:
    """Return the kind of a part and its number of prompts or images, 1 if it has none.

    Raises:
        ValueError: There is no such part.

    >>> split_part("decoder@64")
    ('decoder', 64)
    """
    match = _PART.fullmatch(part)
    kind, count = match.groups() if match else ("", None)
    if kind not in PARTS or (count is not None and kind not in _COUNTED):
        known = ", ".join(PARTS)
        raise ValueError(f"unknown part {part!r}; choose from {known}, decoder@N and batch@N")
    return kind, int(count or 1)
