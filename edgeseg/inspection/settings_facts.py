"""The settings of a run in a few lines, from tables that may be of another version of EdgeSeg."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STAGES = ("encoder", "prompt", "proposal")
"""Names of the stages, in order; `[NAME_stage]` in the settings, `NAME_metrics.csv` in a run."""


@dataclass(frozen=True)
class SettingsFacts:
    """What a run trains, on what, and for how long.

    Attributes:
        student: Registry name.
        student_image_size: In pixels; None for the student's own.
        student_starts_from: Weights, "ImageNet" or "random".
        teacher: As it is named; None without one.
        train: Sources of training images.
        validation: Sources of validation images.
        stages: Name -> its length, in words.
        seed: Of all random numbers.
    """

    student: str
    student_image_size: int | None
    student_starts_from: str
    teacher: str | None
    train: tuple[str, ...]
    validation: tuple[str, ...]
    stages: Mapping[str, str]
    seed: int | None

    @property
    def sentence(self) -> str:
        """What happens, in one sentence."""
        size = f" at {self.student_image_size} px" if self.student_image_size else ""
        teacher = f" follows {self.teacher}" if self.teacher else " learns from annotations"
        stages = ", ".join(f"{name} {length}" for name, length in self.stages.items())
        return f"`{self.student}`{size}{teacher}; {stages or 'no stages'}"


def settings_facts(tables: Mapping[str, Any]) -> SettingsFacts:
    """Return the facts of settings; what is missing or of another type is left out."""
    student, data = _table(tables, "student"), _table(tables, "data")
    teacher = _table(tables, "teacher").get("weights")
    size, seed = student.get("image_size"), tables.get("seed")
    weights, imagenet = student.get("weights"), student.get("imagenet")
    return SettingsFacts(
        student=str(student.get("model", "unknown")),
        student_image_size=size if isinstance(size, int) else None,
        student_starts_from=str(weights) if weights else "ImageNet" if imagenet else "random",
        teacher=None if teacher is None else str(teacher),
        train=_sources(data.get("train")),
        validation=_sources(data.get("validation")),
        stages={
            name: _length(_table(tables, f"{name}_stage"))
            for name in STAGES
            if _table(tables, f"{name}_stage")
        },
        seed=seed if isinstance(seed, int) else None,
    )


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = tables.get(name)
    return found if isinstance(found, dict) else {}


def _sources(sources: object) -> tuple[str, ...]:
    if not isinstance(sources, list):
        return ()
    tables = [source for source in sources if isinstance(source, dict)]
    parts = [(each.get("format"), each.get("path"), each.get("split")) for each in tables]
    return tuple(" ".join(str(part) for part in each if part) for each in parts)


def _length(stage: Mapping[str, Any]) -> str:
    steps, epochs = stage.get("steps"), stage.get("epochs")
    length = f"{steps} steps" if steps else f"{epochs} epochs" if epochs else "of unknown length"
    return f"{length} of {stage['batch_size']} images" if "batch_size" in stage else length
