"""Run every file of an exported folder against PyTorch: PASS, FAIL, or SKIP if it was not run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.records import ImageRecord
from edgeseg.errors import MissingExtraError, PlatformError, WeightsError
from edgeseg.evaluation import EvaluationConfig, EvaluationReport, evaluate
from edgeseg.export_manifest import ExportManifest, read_export
from edgeseg.exporter.proof import (
    Answerer,
    CaseParity,
    PairAnswerer,
    ProofReport,
    compare,
)
from edgeseg.exporter.proof_cases import build_proof_images
from edgeseg.exporter.runners import CandidateFile, open_fused, open_pair
from edgeseg.exporter.targets import ToleranceConfig
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
from edgeseg.runtime.segmenter import Segmenter

Status = Literal["PASS", "FAIL", "SKIP"]
Photos = Sequence[tuple[str, NDArray[np.uint8]]]

ACCURACY = EvaluationConfig(
    prompt_sets=("box", "center"), boundary=False, grabcut=None, max_objects_an_image=4
)
"""How mIoU is measured where a tolerance asks for it."""


@dataclass(frozen=True)
class PartResult:
    """What became of one file, or of the pair of encoder and decoder.

    Attributes:
        part: "pair" or "fused".
        status: FAIL: it was run and differs. SKIP: it was not run, or not all that was demanded.
        reason: Why it was skipped or failed, in words; empty for PASS.
        report: What was found, or None if it was not run.
    """

    part: str
    status: Status
    reason: str = ""
    report: ProofReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the result in numbers and strings."""
        report = self.report
        return {
            "part": self.part,
            "status": self.status,
            "reason": self.reason,
            "runner": report.runner if report else None,
            "miou_loss": report.miou_loss if report else None,
            "figures": [figure.model_dump() for figure in report.figures()] if report else [],
        }


@dataclass(frozen=True)
class VerificationReport:
    """Results of all parts of a folder."""

    folder: Path
    parts: tuple[PartResult, ...]

    @property
    def status(self) -> Status:
        """FAIL if any part failed, else SKIP if any was skipped, else PASS."""
        found = {part.status for part in self.parts}
        if "FAIL" in found:
            return "FAIL"
        return "PASS" if found == {"PASS"} else "SKIP"

    def as_dict(self) -> dict[str, Any]:
        """Return the report in numbers and strings, for JSON."""
        return {
            "folder": str(self.folder),
            "status": self.status,
            "parts": [part.as_dict() for part in self.parts],
        }


class ReferenceBackend(TorchBackend):
    """The network in PyTorch, fed what the exported files are fed.

    Args:
        net: The network.
        normalises: Take the bytes that a file with normalisation inside takes, padded with a colour
            that is zero but for rounding, and normalise them here.
    """

    def __init__(self, net: PromptableNet, normalises: bool) -> None:
        super().__init__(net, fused=True)
        self.normalises = normalises

    def encode(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Encode (S, S, 3) uint8 or (1, 3, S, S) float32; see `edgeseg.runtime.backend.Backend`."""
        if self.normalises:
            planes = ((pixels.astype(np.float32) - PIXEL_MEAN) / PIXEL_STD).transpose(2, 0, 1)
            pixels = np.ascontiguousarray(planes[None])
        return super().encode(pixels)


def verify_export(
    folder: Path,
    net: PromptableNet,
    tolerance: ToleranceConfig,
    *,
    photos: Photos = (),
    records: Sequence[ImageRecord] = (),
    half_arithmetic: bool = False,
    progress: Callable[[str], None] | None = None,
) -> VerificationReport:
    """Compare every file of a folder with a network in PyTorch.

    Args:
        folder: What an exporter wrote, with its manifest.
        net: The network with the weights that were exported.
        tolerance: How far they may be apart.
        photos: Real images with names, asked beside the random ones.
        records: Labelled images, for a tolerance with `max_miou_loss`.
        half_arithmetic: Let the interpreter of Core ML programs round to float16 after every
            operation, as a device may.
        progress: Told what is being compared.

    Raises:
        WeightsError: The folder is damaged, or of another model than the network.
    """
    manifest = read_export(folder)
    if (manifest.model, manifest.image_size) != (net.name, net.image_size):
        raise WeightsError(
            f"{folder} holds {manifest.model} with {manifest.image_size} pixel input, got weights "
            f"of {net.name} with {net.image_size}; give the weights that were exported"
        )
    reference = PairAnswerer(Segmenter(ReferenceBackend(net, manifest.normalises)))
    say = progress or (lambda _: None)
    parts = []
    roles = {file.role for file in manifest.files}
    if {"encoder", "decoder"} <= roles:
        say("encoder and decoder")
        result = _verify("pair", folder, manifest, reference, tolerance, photos, half_arithmetic)
        parts.append(_with_accuracy(result, folder, manifest, net, records, half_arithmetic))
    if "fused" in roles:
        say("fused")
        parts.append(
            _verify("fused", folder, manifest, reference, tolerance, photos, half_arithmetic)
        )
    return VerificationReport(folder, tuple(parts))


def _verify(
    part: str,
    folder: Path,
    manifest: ExportManifest,
    reference: Answerer,
    tolerance: ToleranceConfig,
    photos: Photos,
    half_arithmetic: bool,
) -> PartResult:
    file = CandidateFile(folder, manifest, half_arithmetic)
    try:
        candidate = open_pair(file) if part == "pair" else open_fused(file)
    except (MissingExtraError, PlatformError) as error:
        return PartResult(part, "SKIP", str(error))
    images = build_proof_images(
        manifest.image_size, photos, candidate.max_points, with_masks=part == "pair"
    )
    cases: tuple[CaseParity, ...] = tuple(
        compare(reference, candidate.answerer, images, manifest.image_size, candidate.features)
    )
    report = ProofReport(part, candidate.runner, tolerance, cases)
    if report.passed:
        return PartResult(part, "PASS", report=report)
    return PartResult(part, "FAIL", _shortened(report.failures), report)


def _with_accuracy(
    result: PartResult,
    folder: Path,
    manifest: ExportManifest,
    net: PromptableNet,
    records: Sequence[ImageRecord],
    half_arithmetic: bool,
) -> PartResult:
    """Measure the mIoU that is lost, where the tolerance asks for it."""
    if result.report is None or result.report.tolerance.max_miou_loss is None:
        return result
    if not records:
        reason = "mIoU was not compared; give labelled images"
        return result if result.status == "FAIL" else replace(result, status="SKIP", reason=reason)
    candidate = open_pair(CandidateFile(folder, manifest, half_arithmetic)).answerer
    assert isinstance(candidate, PairAnswerer)
    ours = evaluate(Segmenter(TorchBackend(net, fused=True)), records, ACCURACY)
    theirs = evaluate(candidate.segmenter, records, ACCURACY)
    names = ACCURACY.prompt_sets
    loss = 100 * max(_mean_iou(ours, name) - _mean_iou(theirs, name) for name in names)
    report = replace(result.report, miou_loss=loss)
    if report.passed:
        return PartResult(result.part, "PASS", report=report)
    return PartResult(result.part, "FAIL", _shortened(report.failures), report)


def _shortened(failures: Sequence[str], shown: int = 3) -> str:
    more = f"; and {len(failures) - shown} more" if len(failures) > shown else ""
    return "; ".join(failures[:shown]) + more


def _mean_iou(report: EvaluationReport, name: str) -> float:
    iou = report.row(name).mean.iou
    assert iou is not None
    return iou
