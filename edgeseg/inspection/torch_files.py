"""PyTorch's own files: state dicts of anybody, and checkpoints of a run of ours."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.inspection.description import Facts, TensorFacts, millions, written_counts
from edgeseg.inspection.limits import MAX_TEXT_BYTES
from edgeseg.inspection.tensor_counts import TensorCounts, count_tensors
from edgeseg.torch_archives import check_archive, is_checkpoint, list_records

_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What PyTorch before 1.6 began its files with: a pickle of a magic number."""
_RUN_KEYS = {"stage", "step", "net", "optimizer"}
_WRAPPERS = ("model", "state_dict")


@dataclass(frozen=True)
class StateDictFacts:
    """What a state dict holds.

    Attributes:
        model: Registry name of the network; None if it is none that is known.
        counts: Tensors and numbers.
        inside: Key under which the state dict stands; empty if it is the whole file.
        other_entries: What else the file has beside it, with types.
    """

    model: str | None
    counts: TensorCounts
    inside: str
    other_entries: Mapping[str, str]

    kind = "pytorch weights"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        what = f"weights of `{self.model}`" if self.model else "weights of an unknown network"
        numbers = written_counts(self.counts.numbers_by_type)
        return (
            f"{what}, {millions(self.counts.num_parameters)} parameters ({numbers}), as PyTorch "
            "saves them"
        )


@dataclass(frozen=True)
class RunCheckpointFacts:
    """What a run's checkpoint holds.

    Attributes:
        stage: Stage that was in progress.
        step: Optimiser steps done in it.
        model: Registry name of the student, from the run's settings; None if they are not there.
        counts: Tensors and numbers of the student.
        has_average: Whether averaged weights are kept beside the present ones.
        average_updates: Steps that went into the average.
    """

    stage: str
    step: int
    model: str | None
    counts: TensorCounts
    has_average: bool
    average_updates: int

    kind = "run checkpoint"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        what = f"`{self.model}`" if self.model else "a student"
        return (
            f"training state of {what} after {self.step} steps of stage {self.stage!r}; "
            "`edgeseg distill --resume` continues it"
        )


@dataclass(frozen=True)
class UnreadTorchFacts:
    """A PyTorch file where PyTorch is not installed.

    Attributes:
        num_records: Records of its archive, about one a tensor; None in files before PyTorch 1.6.
    """

    num_records: int | None

    kind = "pytorch file"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        return "a file of PyTorch, which is not installed here"


def looks_like_torch(path: Path, head: bytes) -> bool:
    """Return whether a file is one of PyTorch's, by its archive or its first bytes."""
    if head.startswith(_LEGACY_START):
        return True
    return head.startswith(b"PK") and is_checkpoint(list_records(path) or [])


def describe_torch(path: Path) -> tuple[Facts, tuple[str, ...]]:
    """Return what a PyTorch file holds, and notes.

    Raises:
        WeightsError: It is damaged, too large, a program, or holds Python objects.
    """
    records = list_records(path)
    if records is not None:
        check_archive(path, records)  # before PyTorch, which takes seconds to load
    try:
        from edgeseg.inspection.pytorch_checkpoints import read_checkpoint
    except ImportError as error:
        note = (
            f"its tensors take PyTorch to tell ({error}); run: python -m pip install "
            "'edgeseg[train]'"
        )
        return UnreadTorchFacts(None if records is None else len(records)), (note,)
    content = read_checkpoint(path)
    if isinstance(content, dict) and content.keys() >= _RUN_KEYS:
        return _run_checkpoint(path, content), ()
    inside, state = _state_dict(content)
    counts = count_tensors(_tensors(state))
    others = content if inside and isinstance(content, dict) else {}
    entries = {str(key): type(value).__name__ for key, value in others.items() if key != inside}
    if not counts.num_tensors:
        held = ", ".join(map(repr, list(content)[:5])) if isinstance(content, dict) else ""
        note = f"it holds no state dict but {type(content).__name__} {held}".rstrip()
        return StateDictFacts(None, counts, inside, entries), (note,)
    from edgeseg.modeling.stored_networks import recognise_tensors

    found = recognise_tensors(_shapes(state), path.name)
    notes = (found.problem,) if found.problem else ()
    return StateDictFacts(found.model, counts, inside, entries), notes


def _state_dict(content: Any) -> tuple[str, Mapping[Any, Any]]:  # noqa: ANN401
    """Return the state dict of a file, with the key under which it stands."""
    if not isinstance(content, dict):
        return "", {}
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            return wrapper, content[wrapper]
    return "", content


def _run_checkpoint(path: Path, content: Mapping[str, Any]) -> RunCheckpointFacts:
    net = content["net"] if isinstance(content["net"], dict) else {}
    step, updates = content["step"], content.get("average_updates")
    return RunCheckpointFacts(
        stage=str(content["stage"]),
        step=step if isinstance(step, int) else 0,
        model=_student_of(path),
        counts=count_tensors(_tensors(net)),
        has_average=bool(content.get("average")),
        average_updates=updates if isinstance(updates, int) else 0,
    )


def _student_of(checkpoint: Path) -> str | None:
    """Return the student that the settings of a checkpoint's run name."""
    settings = checkpoint.absolute().parent.parent / "config.json"
    try:
        if settings.stat().st_size > MAX_TEXT_BYTES:
            return None
        model = json.loads(settings.read_text("utf-8"))["student"]["model"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return model if isinstance(model, str) else None


def _tensors(state: Mapping[Any, Any]) -> list[TensorFacts]:
    return [
        TensorFacts(str(name), tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in state.items()
        if _is_tensor(value)
    ]


def _shapes(state: Mapping[Any, Any]) -> dict[str, tuple[int, ...]]:
    return {str(name): tuple(value.shape) for name, value in state.items() if _is_tensor(value)}


def _is_tensor(value: Any) -> bool:  # noqa: ANN401 - torch itself is not imported here
    return hasattr(value, "shape") and hasattr(value, "dtype")
