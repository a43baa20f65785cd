"""Run folders: what was to be done, how far it came, and how good it was on the way."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.errors import EdgesegError, RunError
from edgeseg.inspection.limits import check_text_size
from edgeseg.inspection.settings_facts import STAGES, SettingsFacts, settings_facts
from edgeseg.manifest import sha256_of

CONFIG_NAME = "config.json"
_MAX_EVALUATIONS = 200
_TAIL_BYTES = 2**16


@dataclass(frozen=True)
class StageProgress:
    """How far a stage came.

    Attributes:
        stage: Its name.
        last_step: Of the last row of its metrics.
        loss: Total loss there; None if the row has none.
        images_per_s: Speed there; None if the row has none.
    """

    stage: str
    last_step: int
    loss: float | None
    images_per_s: float | None


@dataclass(frozen=True)
class RunEvaluation:
    """What an evaluation of a run found.

    Attributes:
        name: When it was made, such as "start", "prompt_000500" or "student".
        num_objects: Objects asked for.
        figures: Mean IoU by kind of prompt, or average recall of proposals by their number.
    """

    name: str
    num_objects: int
    figures: Mapping[str, float]


@dataclass(frozen=True)
class RunWeights:
    """A weight file of a run.

    Attributes:
        name: Of the file.
        size_bytes: Of the file.
        sha256: Of the file.
    """

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class RunFacts:
    """What a run folder holds.

    Attributes:
        settings: What is trained, on what, for how long.
        is_finished: Whether the result is there.
        checkpoint: Step and stage of the last one; empty without it, or where PyTorch is absent.
        progress: Of the stages that have metrics.
        evaluations: Oldest first.
        weights: Student before, on the way and after.
    """

    settings: SettingsFacts
    is_finished: bool
    checkpoint: str
    progress: tuple[StageProgress, ...]
    evaluations: tuple[RunEvaluation, ...]
    weights: tuple[RunWeights, ...]

    kind = "run folder"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        state = "finished run" if self.is_finished else "unfinished run"
        done = ", ".join(f"{each.stage} step {each.last_step}" for each in self.progress)
        return f"{state}: {self.settings.sentence}; done: {done or 'nothing yet'}"


def looks_like_run(folder: Path) -> bool:
    """Return whether a folder is a run's: it has settings and something that a run writes."""
    written = ("checkpoints", "start.safetensors", "evaluations", "teacher_masks", "tensorboard")
    return (folder / CONFIG_NAME).is_file() and (
        any((folder / name).exists() for name in written)
        or any((folder / f"{stage}_metrics.csv").is_file() for stage in STAGES)
    )


def describe_run(folder: Path) -> tuple[RunFacts, tuple[str, ...]]:
    """Return what a run folder holds, and notes.

    Raises:
        RunError: Its settings cannot be read.
    """
    tables = _read_json(folder / CONFIG_NAME)
    if not isinstance(tables, dict) or "student" not in tables:
        raise RunError(f"{folder / CONFIG_NAME} is no run's: it has no student; give a run folder")
    checkpoint, notes = _checkpoint(folder / "checkpoints" / "last.pt")
    facts = RunFacts(
        settings=settings_facts(tables),
        is_finished=(folder / "student.safetensors").is_file(),
        checkpoint=checkpoint,
        progress=tuple(filter(None, (_progress(folder, stage) for stage in STAGES))),
        evaluations=_evaluations(folder / "evaluations"),
        weights=tuple(
            RunWeights(path.name, path.stat().st_size, sha256_of(path))
            for path in sorted(folder.glob("*.safetensors"))
            if path.is_file()
        ),
    )
    return facts, (*_settings_notes(tables, folder), *notes)


def _settings_notes(tables: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """Tell when this version of EdgeSeg would not resume with these settings."""
    try:
        from edgeseg.distill.config import parse_config
    except ImportError:  # the extra `train` is absent, so nothing can be resumed anyway
        return ()
    try:
        parse_config(tables, str(folder / CONFIG_NAME))
    except EdgesegError as error:
        return (f"this version of edgeseg does not take the settings: {error}",)
    return ()


def _checkpoint(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return stage and step of a checkpoint, and notes."""
    from edgeseg.inspection.torch_files import (
        RunCheckpointFacts,
        UnreadTorchFacts,
        describe_torch,
    )

    if not path.is_file():
        return "", ()
    try:
        facts, notes = describe_torch(path)
    except EdgesegError as error:
        return "", (str(error),)
    if isinstance(facts, RunCheckpointFacts):
        return f"step {facts.step} of stage {facts.stage!r}", notes
    if isinstance(facts, UnreadTorchFacts):
        return "", tuple(f"{path.name}: {note}" for note in notes)
    return "", (f"{path.name} is no checkpoint of a run: {facts.summary}", *notes)


def _progress(folder: Path, stage: str) -> StageProgress | None:
    """Return the last whole row of a stage's metrics."""
    path = folder / f"{stage}_metrics.csv"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.readline(_TAIL_BYTES).decode("utf-8", "replace").strip().split(",")
        start = max(file.tell(), path.stat().st_size - _TAIL_BYTES)
        file.seek(start)
        lines = file.read(_TAIL_BYTES).decode("utf-8", "replace").splitlines()
    for line in reversed(lines):
        row = dict(zip(head, line.split(","), strict=False))
        if len(row) == len(head) and row.get("step", "").isdecimal():
            return StageProgress(
                stage, int(row["step"]), _number(row.get("total")), _number(row.get("images_per_s"))
            )
    return None


def _evaluations(folder: Path) -> tuple[RunEvaluation, ...]:
    """Return the evaluations that can be read, oldest first."""
    paths = sorted(folder.glob("*.json"), key=lambda path: (path.stat().st_mtime, path.name))
    found = []
    for path in paths[:_MAX_EVALUATIONS]:
        try:
            document = _read_json(path)
            figures = _figures(document)
            num_objects = int(document["num_objects"])
        except (EdgesegError, KeyError, TypeError, ValueError, AttributeError):
            continue  # not written by a run, or half written
        found.append(RunEvaluation(path.stem, num_objects, figures))
    return tuple(found)


def _figures(document: Any) -> dict[str, float]:  # noqa: ANN401 - whatever a file holds
    """Return the means of an evaluation: of masks by kind of prompt, or of proposals."""
    if "rows" not in document:
        return {f"AR@{limit}": float(value) for limit, value in document["mean"].items()}
    return {
        str(row["name"]): float(row["mean"]["iou"])
        for row in document["rows"]
        if row["kind"] == "prompt" and row["mean"] is not None and row["mean"]["iou"] is not None
    }


def _read_json(path: Path) -> Any:  # noqa: ANN401
    check_text_size(path)
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"{path} cannot be read ({type(error).__name__}: {error}); restore it from a copy"
        ) from error


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
