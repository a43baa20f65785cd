"""What a tool is asked to measure: options, exported files, and which call answers which part."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, ValidationError

from edgeseg.bench.driver import Request, ToolReport, exported_card
from edgeseg.bench.results import Document, Measurement, Missing
from edgeseg.bench.suite import ContenderConfig, split_part
from edgeseg.errors import BenchError, ConfigError, ExportError
from edgeseg.export_manifest import ExportedFile, ExportManifest, read_export
from edgeseg.signature import POINTS_XY_MODEL

NUM_POINTS = 2
"""Points of a prompt where a file takes any number: a box, or two clicks."""
_OPEN_POINTS = ("P", "num_points")
_ROLES = ("encoder", "decoder", "proposals")

Options = TypeVar("Options", bound=Document)
Arguments = Annotated[tuple[str, ...], BeforeValidator(shlex.split)]
"""Words of a command line, given as one text."""


@dataclass(frozen=True)
class FileCall:
    """One call of one exported file.

    Attributes:
        part: What it measures.
        path: The file or package.
        file: Its tensors.
        open_sizes: What the letters in its shapes stand for.
        note: What has to be said beside its time, or empty.
    """

    part: str
    path: Path
    file: ExportedFile
    open_sizes: dict[str, int]
    note: str = ""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the sizes of an input, all of them numbers."""
        sizes = next(tensor.shape for tensor in self.file.inputs if tensor.name == name)
        return tuple(self.open_sizes[size] if isinstance(size, str) else size for size in sizes)


def read_options(contender: ContenderConfig, kind: type[Options]) -> Options:
    """Return a contender's options as a driver understands them.

    Raises:
        ConfigError: There is an option that the driver does not have, or a value it cannot use.
    """
    try:
        return kind.model_validate(contender.options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        wrong = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"option {where} of {contender.label!r}: {wrong}, got {first['input']!r}; the driver "
            f"{contender.driver} has the options {', '.join(kind.model_fields)}"
        ) from None


def read_files(request: Request, file_format: str) -> tuple[Path, ExportManifest]:
    """Return the folder and the manifest of what is to be measured.

    Args:
        request: What is wanted.
        file_format: What the tool takes: "onnx" or "coreml".

    Raises:
        ConfigError: The request has no folder.
        ExportError: Its files are of another format.
        WeightsError: The folder is damaged.
    """
    if request.folder is None:
        raise ConfigError(
            f"the driver {request.contender.driver} measures exported files, got none; give a "
            "folder that `edgeseg export` wrote"
        )
    manifest = read_export(request.folder)
    if not manifest.format.startswith(file_format):
        raise ExportError(
            f"{request.folder} holds {manifest.format} files, which the driver "
            f"{request.contender.driver} cannot measure; export a target whose format is "
            f"{file_format}"
        )
    return request.folder, manifest


def plan_calls(
    request: Request, folder: Path, manifest: ExportManifest
) -> tuple[tuple[FileCall, ...], tuple[Missing, ...]]:
    """Find the file that answers each part, or say why none does."""
    calls, missing = [], []
    for part in request.parts:
        kind, count = split_part(part)
        file = manifest.file(kind) if kind in _ROLES else None
        reason = _why_not(manifest, file, kind, count)
        if file is None or reason:
            missing.append(Missing(label=request.contender.label, part=part, reason=reason))
            continue
        letters = {size for spec in file.inputs for size in spec.shape if isinstance(size, str)}
        known = {"N": count} | dict.fromkeys(_OPEN_POINTS, NUM_POINTS)
        sizes = {letter: known.get(letter, manifest.image_size) for letter in sorted(letters)}
        slots = num_slots(file)
        note = "" if slots in (None, count) else f"a call computes all of its {slots} prompts"
        calls.append(FileCall(part, folder / file.path, file, sizes, note))
    return tuple(calls), tuple(missing)


def num_slots(file: ExportedFile) -> int | None:
    """Return the prompts that every call of a decoder computes, or None if it is not fixed."""
    for tensor in file.inputs:
        if tensor.name == POINTS_XY_MODEL and isinstance(tensor.shape[0], int):
            return tensor.shape[0]
    return None


def measure_each(
    calls: Sequence[FileCall], label: str, measure: Callable[[FileCall], Measurement]
) -> tuple[tuple[Measurement, ...], tuple[Missing, ...]]:
    """Measure call by call; one that fails is missing with its reason, and the others go on.

    Raises:
        BenchError: All of them failed.
    """
    measurements, missing, errors = [], [], []
    for call in calls:
        try:
            measurements.append(measure(call))
        except BenchError as error:
            errors.append(error)
            missing.append(Missing(label=label, part=call.part, reason=str(error)))
    if errors and not measurements:
        raise errors[0]
    return tuple(measurements), tuple(missing)


def report_of(
    request: Request,
    manifest: ExportManifest,
    runs_on: str,
    precision: str,
    measurements: Sequence[Measurement],
    missing: Sequence[Missing],
) -> ToolReport:
    """Return a report with the card of the files that a tool ran."""
    card = exported_card(request.contender, manifest, runs_on, precision)
    return ToolReport(card, tuple(measurements), tuple(missing))


def _why_not(manifest: ExportManifest, file: ExportedFile | None, kind: str, count: int) -> str:
    """Return why a part cannot be measured with single files, or an empty text."""
    if kind == "batch":
        return "the exported encoder takes one image a call"
    if kind not in _ROLES:
        return "such a tool times single files, and this needs the program around them"
    if file is None:
        return f"the exported folder has no file for {kind}"
    if kind != "decoder":
        return ""
    if manifest.format == "onnx_sam_compatible":
        return (
            "the size of the masks is one of the inputs of this decoder, and such a tool fills "
            "inputs with random numbers; export another ONNX target"
        )
    slots = num_slots(file)
    if slots is None or count in (1, slots):
        return ""
    return (
        f"the file takes {slots} prompts a call, got {count}; ask for decoder@{slots}, or export "
        "a target that takes any number"
    )
