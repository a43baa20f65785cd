"""Run every file of an exported folder against PyTorch: PASS, FAIL, or SKIP if it was not run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.records import ImageRecord
from edgeseg.errors import MissingExtraError, PlatformError, WeightsError
from edgeseg.evaluation import EvaluationConfig, EvaluationReport, evaluate
from edgeseg.export_manifest import AccuracyFigures, read_export
from edgeseg.exporter.proof import (
    Answerer,
    PairAnswerer,
    compare,
)
from edgeseg.exporter.proof_cases import build_proof_images
from edgeseg.exporter.proof_report import ProofReport
from edgeseg.exporter.runners import CandidateFile, open_fused, open_pair
from edgeseg.exporter.targets import ToleranceConfig
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.torch_backend import TorchBackend
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
            "accuracy": [row.model_dump() for row in report.accuracy] if report else [],
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


def verify_export(
    folder: Path,
    net: PromptableNet,
    tolerance: ToleranceConfig,
    *,
    photos: Photos = (),
    records: Sequence[ImageRecord] = (),
    exact_arithmetic: bool = False,
    progress: Callable[[str], None] | None = None,
) -> VerificationReport:
    """Compare every file of a folder with a network in PyTorch.

    Args:
        folder: What an exporter wrote, with its manifest.
        net: The network with the weights that were exported.
        tolerance: How far they may be apart.
        photos: Real images with names, asked beside the random ones.
        records: Labelled images; a tolerance with `max_miou_loss` demands them.
        exact_arithmetic: Let the interpreter of Core ML programs compute in float32 throughout,
            instead of rounding to float16 where the program says so, as a device does.
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
    pytorch = Segmenter(TorchBackend(net, fused=True, normalises=manifest.normalises))
    file = CandidateFile(folder, manifest, exact_arithmetic)
    say = progress or (lambda _: None)
    roles = {file.role for file in manifest.files}
    parts = []
    for part, opened, needs in (
        ("pair", open_pair, {"encoder", "decoder"}),
        ("fused", open_fused, {"fused"}),
    ):
        if not needs <= roles:
            continue
        say(f"comparing {' and '.join(sorted(needs, reverse=True))}")
        try:
            candidate = opened(file)
        except (MissingExtraError, PlatformError) as error:
            parts.append(PartResult(part, "SKIP", str(error)))
            continue
        images = build_proof_images(
            manifest.image_size, photos, candidate.max_points, with_masks=part == "pair"
        )
        cases = compare(
            PairAnswerer(pytorch, part == "pair" and "proposals" in roles),
            candidate.answerer,
            images,
            manifest.image_size,
            candidate.features,
        )
        report = ProofReport(part, candidate.runner, tolerance, tuple(cases))
        parts.append(_judged(report, pytorch, candidate.answerer, records))
    return VerificationReport(folder, tuple(parts))


def _judged(
    report: ProofReport, pytorch: Segmenter, answerer: Answerer, records: Sequence[ImageRecord]
) -> PartResult:
    """Measure accuracy, if labelled images were given, and decide."""
    if isinstance(answerer, PairAnswerer) and records:
        ours = evaluate(pytorch, records, ACCURACY)
        theirs = evaluate(answerer.segmenter, records, ACCURACY)
        report = replace(report, accuracy=tuple(_accuracy(ours, theirs)))
    if not report.passed:
        return PartResult(report.part, "FAIL", _shortened(report.failures), report)
    wants_accuracy = report.part == "pair" and report.tolerance.max_miou_loss is not None
    if wants_accuracy and not report.accuracy:
        reason = "mIoU was not compared; give labelled images"
        return PartResult(report.part, "SKIP", reason, report)
    return PartResult(report.part, "PASS", report=report)


def _shortened(failures: Sequence[str], shown: int = 3) -> str:
    more = f"; and {len(failures) - shown} more" if len(failures) > shown else ""
    return "; ".join(failures[:shown]) + more


def _accuracy(pytorch: EvaluationReport, exported: EvaluationReport) -> Iterator[AccuracyFigures]:
    num_objects = sum(count.num_objects for count in exported.domains.values())
    for name in ACCURACY.prompt_sets:
        theirs, ours = exported.row(name).mean.iou, pytorch.row(name).mean.iou
        assert theirs is not None
        assert ours is not None
        yield AccuracyFigures(
            prompt_set=name, miou=theirs, miou_pytorch=ours, num_objects=num_objects
        )
