"""The settings of a run: one TOML file, validated, with unknown keys refused.

A table that is absent is switched off: no [teacher] means ground truth alone, no [encoder_stage]
means that the run starts with prompts in the loop. Paths may hold environment variables such as
`$EDGESEG_DATA`; relative ones are relative to the working directory.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from edgeseg.data.augmentation import AugmentationConfig
from edgeseg.data.sources import SourceConfig
from edgeseg.distill.stage_config import (
    EncoderStageConfig,
    FlatMinimaConfig,
    PromptStageConfig,
    ProposalStageConfig,
    ScheduleConfig,
    Table,
)
from edgeseg.errors import ConfigError
from edgeseg.evaluation.config import EvaluationConfig, GrabCutConfig


class StudentConfig(Table):
    """The network that learns.

    Attributes:
        model: Registry name, such as "edgeseg_s".
        image_size: Side of its square input in pixels, a multiple of 64; default: the model's own.
        imagenet: Start the backbone from ImageNet weights.
        weights: Start from these weights (a name, folder or file), all of them.
        decoder: Where prompt encoder and mask decoder start from: "teacher" copies the teacher's,
            "random" leaves them as built, anything else is a SAM or EdgeSAM checkpoint.
    """

    model: str
    image_size: int | None = Field(default=None, ge=64, multiple_of=64)
    imagenet: bool = False
    weights: str | None = None
    decoder: str = "random"


class LabelSettings(Table):
    """Which of a teacher's answers become the masks of images without annotations.

    The defaults suit SAM; a teacher that is less sure of itself needs smaller thresholds.

    Attributes:
        points_per_side: Points along each side of the grid that asks for them.
        min_score: Smallest IoU the teacher predicts for its answer.
        min_stability: Smallest stability score.
        max_overlap: Largest IoU with a better answer.
        min_area_share: Smallest area, as a share of the image.
        max_masks: Most masks of an image, best first.
    """

    points_per_side: int = Field(default=16, ge=1, le=64)
    min_score: float = Field(default=0.7, ge=0, le=1)
    min_stability: float = Field(default=0.8, ge=0, le=1)
    max_overlap: float = Field(default=0.7, ge=0, le=1)
    min_area_share: float = Field(default=0.0005, ge=0, le=1)
    max_masks: int = Field(default=64, ge=1)


class TeacherConfig(Table):
    """The network that is followed.

    Attributes:
        weights: A released model's name, a model folder, an official SAM or EdgeSAM `.pth`, or our
            `.safetensors`.
        model: Registry name, for weight files that do not tell.
        image_size: Side of its input in pixels; default: as trained.
        cache: Folder of cached embeddings; absent: they are computed on the fly.
        labels: How it labels images without annotations, if there are any.
    """

    weights: str
    model: str | None = None
    image_size: int | None = Field(default=None, ge=64, multiple_of=64)
    cache: Path | None = None
    labels: LabelSettings = LabelSettings()


class DataConfig(Table):
    """Images and masks.

    Attributes:
        train: Sources to learn from.
        validation: Sources to evaluate on.
        balance_domains: Draw every domain equally often, however many images it has.
        max_broken_share: Share of unreadable records above which the run stops.
        workers: Processes that load images; 0 loads in the training process.
    """

    train: tuple[SourceConfig, ...] = Field(min_length=1)
    validation: tuple[SourceConfig, ...] = ()
    balance_domains: bool = False
    max_broken_share: float = Field(default=0.05, ge=0, le=1)
    workers: int = Field(default=1, ge=0)


class EngineConfig(Table):
    """Where and how a run computes.

    Attributes:
        accelerator: "auto", "cpu", "cuda" or "mps".
        precision: Of the arithmetic; weights are kept in fp32.
        norms: "frozen" keeps batch norm statistics as they are, for ImageNet weights and small
            batches; "batch" learns them, over all processes together.
        ema_decay: Decay of an exponential moving average of the weights, which is then what is
            evaluated and saved; None leaves it out.
        log_every_steps: Steps between two rows of metrics.
        checkpoint_every_steps: Steps between two checkpoints.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    norms: Literal["frozen", "batch"] = "frozen"
    ema_decay: float | None = Field(default=None, ge=0, lt=1)
    log_every_steps: int = Field(default=20, ge=1)
    checkpoint_every_steps: int = Field(default=200, ge=1)


class RunEvaluationConfig(EvaluationConfig):
    """Evaluations during a run: those of `edgeseg evaluate`, made small.

    Attributes:
        every_steps: Steps between two evaluations; there is one after each stage in any case.
        panel_images: Images of the picture panel.
    """

    max_images_a_domain: int | None = Field(default=8, ge=1)
    max_objects_an_image: int | None = Field(default=8, ge=1)
    boundary: bool = False
    grabcut: GrabCutConfig | None = None
    every_steps: int = Field(default=1000, ge=1)
    panel_images: int = Field(default=6, ge=0)


class RunConfig(Table):
    """A whole run."""

    seed: int = Field(default=0, ge=0)
    student: StudentConfig
    teacher: TeacherConfig | None = None
    data: DataConfig
    augmentation: AugmentationConfig | None = None
    engine: EngineConfig = EngineConfig()
    flat_minima: FlatMinimaConfig | None = None
    encoder_stage: EncoderStageConfig | None = None
    prompt_stage: PromptStageConfig | None = None
    proposal_stage: ProposalStageConfig | None = None
    evaluation: RunEvaluationConfig | None = None

    @property
    def needs_masks(self) -> bool:
        """Whether a stage learns from objects, so that every image needs some."""
        return self.prompt_stage is not None or self.proposal_stage is not None

    @property
    def stages(self) -> tuple[ScheduleConfig, ...]:
        """The stages there are, in order."""
        stages = (self.encoder_stage, self.prompt_stage, self.proposal_stage)
        return tuple(stage for stage in stages if stage is not None)

    @model_validator(mode="after")
    def _draws_domains(self) -> Self:
        flat = self.flat_minima
        if flat is not None and flat.needs_domains and not self.data.balance_domains:
            raise ValueError(
                "[flat_minima] takes equally many images of each domain, so set "
                "data.balance_domains = true"
            )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.encoder_stage is None and not self.needs_masks:
            raise ValueError("give [encoder_stage], [prompt_stage] or [proposal_stage]")
        if self.teacher is None:
            if self.encoder_stage is not None:
                raise ValueError("[encoder_stage] follows a teacher, so give [teacher]")
            if self.prompt_stage is not None and self.prompt_stage.targets.teacher:
                raise ValueError(
                    "prompt_stage.targets.teacher is above zero, so give [teacher] or set it to 0"
                )
            if self.student.decoder == "teacher":
                raise ValueError('student.decoder = "teacher" needs [teacher]')
        elif self.teacher.cache is not None and self.augmentation is not None:
            raise ValueError(
                "cached teacher embeddings belong to images as they are; remove [augmentation] or "
                "teacher.cache"
            )
        if self.evaluation is not None and not self.data.validation:
            raise ValueError("[evaluation] needs data.validation")
        return self


def read_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's settings.

    Args:
        path: A TOML file.
        overrides: "table.key=value" each, the value written as in TOML; plain text is taken as a
            string.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value is out of range.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for override in overrides:
        _override(tables, override)
    return parse_config(tables, str(path))


def parse_config(tables: dict[str, Any], source: str) -> RunConfig:
    """Validate nested tables; see `read_config`."""
    try:
        return RunConfig.model_validate(tables)
    except ValidationError as error:
        problems = "; ".join(_problem(d["type"], d["loc"], d["msg"]) for d in error.errors())
        raise ConfigError(f"{source}: {problems}") from error


def _problem(kind: str, keys: tuple[str | int, ...], message: str) -> str:
    place = ".".join(str(key) for key in keys)
    if kind == "extra_forbidden":
        return f"{place} is unknown; known here are {', '.join(_known_keys(keys[:-1]))}"
    message = message.removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _known_keys(table: Sequence[str | int]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in table:
        if isinstance(part, str):
            model = _table_class(model.model_fields[part].annotation) or model
    return sorted(model.model_fields)


def _table_class(annotation: object) -> type[BaseModel] | None:
    """Find the table class inside `Table`, `Table | None` or `tuple[Table, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_table_class(inner) for inner in getattr(annotation, "__args__", ()))
    return next((inner for inner in found if inner is not None), None)


def _override(tables: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"an override must be table.key=value, got {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *parents, last = key.strip().split(".")
    for parent in parents:
        tables = tables.setdefault(parent, {})
        if not isinstance(tables, dict):
            raise ConfigError(f"cannot set {key.strip()}: {parent} is not a table")
    tables[last] = value
