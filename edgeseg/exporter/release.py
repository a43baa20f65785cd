"""One model to one folder of files that were proven equal to PyTorch before they were kept."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg import __version__
from edgeseg.data.records import ImageRecord
from edgeseg.errors import ConfigError, ExportError
from edgeseg.export_manifest import (
    ExportedFile,
    ExportedTensor,
    ExportManifest,
    hash_of,
    size_of,
    write_export,
)
from edgeseg.exporter.targets import ExportTarget
from edgeseg.exporter.verification import Photos, VerificationReport, verify_export
from edgeseg.exporter.written_files import ExportFacts, WrittenFile, write_files
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
from edgeseg.signature import PADDING_RGB
from edgeseg.versions import installed_versions

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "coremltools")


@dataclass(frozen=True)
class ExportResult:
    """What was kept.

    Attributes:
        folder: Where the files are.
        manifest: What stands in its `export.json`.
        report: What the proof found; a part that was skipped says why.
    """

    folder: Path
    manifest: ExportManifest
    report: VerificationReport


def export_model(
    net: PromptableNet,
    out: Path,
    target: ExportTarget,
    facts: ExportFacts,
    *,
    calibration: Sequence[NDArray[np.uint8]] = (),
    photos: Photos = (),
    records: Sequence[ImageRecord] = (),
    progress: Callable[[str], None] | None = None,
) -> ExportResult:
    """Write the files of a target, check them, and keep them only if they are equal to PyTorch.

    Args:
        net: The network, with its weights.
        out: Folder to write; must not exist or be empty.
        target: Format, precision, sizes, and what the proof demands.
        facts: What the files say about the weights.
        calibration: (H, W, 3) uint8 RGB images; static int8 needs them, and float16 keeps tensors
            that would overflow on them in float32. No more than `target.num_calibration_images`
            are used.
        photos: Real images with names, asked in the proof beside random ones.
        records: Labelled images to measure accuracy on, for a target that limits its loss.
        progress: Told what is being done.

    Raises:
        ExportError: A file cannot be made, would not run where the target says, or differs from
            PyTorch; nothing is left behind.
        ConfigError: The folder is not empty, or there are no calibration images for int8.
        MissingExtraError: A converter is not installed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty; choose another folder or remove it")
    if target.calibration is not None and not calibration:
        raise ConfigError(
            f"the target {target.name} needs calibration images; give a folder of photographs like "
            "those the model will see (--calibrate)"
        )
    say = progress or (lambda _: None)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        used = calibration[: target.num_calibration_images]
        written = write_files(net, staging, target, facts, used, say)
        manifest = _manifest(net, target, facts, staging, written)
        write_export(staging, manifest)
        report = verify_export(
            staging, net, target.tolerance, photos=photos, records=records, progress=say
        )
        _check(report, target)
        figures = tuple(
            figure for part in report.parts if part.report for figure in part.report.figures()
        )
        accuracy = tuple(
            row for part in report.parts if part.report for row in part.report.accuracy
        )
        manifest = manifest.model_copy(update={"parity": figures, "accuracy": accuracy})
        write_export(staging, manifest)
        if out.exists():
            out.rmdir()
        staging.chmod(0o755)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ExportResult(out, manifest, report)


def _check(report: VerificationReport, target: ExportTarget) -> None:
    for part in report.parts:
        if part.status == "FAIL":
            raise ExportError(
                f"the {part.part} of {target.name} is not equal to PyTorch: {part.reason}; nothing "
                "was kept"
            )
        if part.report is None:
            raise ExportError(
                f"the {part.part} of {target.name} could not be run, so nothing was kept: "
                f"{part.reason}"
            )


def _manifest(
    net: PromptableNet,
    target: ExportTarget,
    facts: ExportFacts,
    folder: Path,
    written: Sequence[WrittenFile],
) -> ExportManifest:
    red, green, blue = PIXEL_MEAN.tolist()
    deviations = PIXEL_STD.tolist()
    padding = f"RGB {PADDING_RGB}" if target.normalises else "zeros after normalisation"
    precision: str = target.precision
    if target.compression is not None:
        precision = f"{precision}, {target.compression.kind} weights"
    return ExportManifest(
        model=net.name,
        target=target.name,
        format=target.format,
        precision=precision,
        image_size=net.image_size,
        normalises=target.normalises,
        pixel_mean=(red, green, blue),
        pixel_std=(deviations[0], deviations[1], deviations[2]),
        padding=f"{padding}, at the right and bottom",
        files=tuple(_exported(folder, file) for file in written),
        versions={"edgeseg": __version__, **installed_versions(_PACKAGES)},
        weights_sha256=facts.weights_sha256,
        licence=facts.licence,
    )


def _exported(folder: Path, file: WrittenFile) -> ExportedFile:
    path = folder / file.name
    inputs, outputs = (
        tuple(ExportedTensor(name=t.name, shape=t.shape, dtype=t.dtype) for t in tensors)
        for tensors in (file.spec.inputs, file.spec.outputs)
    )
    return ExportedFile(
        path=file.name,
        role=file.role,
        sha256=hash_of(path),
        size_bytes=size_of(path),
        inputs=inputs,
        outputs=outputs,
        notes=file.notes,
    )
