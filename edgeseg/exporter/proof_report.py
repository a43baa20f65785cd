"""What a proof found: differences case by case, and what is out of tolerance.

A mask of three pixels that gains a fourth has an IoU of 0.75, whatever the file is worth. So an IoU
is that of all masks of an image together, and at low resolution also of all masks of a kind of
prompt together (at the size of the image only one mask a case is compared): a fault of either kind
shows, and a tiny mask does not decide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.export_manifest import AccuracyFigures, ParityFigures
from edgeseg.exporter.targets import ToleranceConfig


@dataclass(frozen=True)
class MaskOverlap:
    """Pixels of masks.

    Attributes:
        both: In PyTorch's masks and in the file's.
        either: In at least one of the two.
    """

    both: int
    either: int

    def __add__(self, other: "MaskOverlap") -> "MaskOverlap":
        """Take the masks of both together."""
        return MaskOverlap(self.both + other.both, self.either + other.either)

    @property
    def iou(self) -> float:
        """Intersection over union; masks that are empty everywhere agree.

        >>> (MaskOverlap(3, 4) + MaskOverlap(96, 96)).iou
        0.99
        """
        return self.both / self.either if self.either else 1.0


@dataclass(frozen=True)
class CaseParity:
    """One output of one case.

    Attributes:
        image: Name of the image.
        prompts: Name of the set of prompts; empty for features, which depend on none.
        output: "image_embedding", "low_res_logits", "masks", ...
        max_difference: Largest absolute difference; infinite if a number is not finite.
        mean_difference: Mean absolute difference.
        relative_error: Root mean square of the differences over that of PyTorch's numbers, or None
            for masks.
        overlap: Of all masks of the case, or None for outputs that are no masks.
    """

    image: str
    prompts: str
    output: str
    max_difference: float
    mean_difference: float
    relative_error: float | None = None
    overlap: MaskOverlap | None = None


@dataclass(frozen=True)
class ProofReport:
    """What a proof found.

    Attributes:
        part: File or files that were run.
        runner: Program that ran them.
        tolerance: What was demanded.
        cases: Every output of every case.
        accuracy: On labelled images, by prompt set; empty if it was not measured.
    """

    part: str
    runner: str
    tolerance: ToleranceConfig
    cases: tuple[CaseParity, ...]
    accuracy: tuple[AccuracyFigures, ...] = ()

    @property
    def miou_loss(self) -> float | None:
        """Largest loss of mIoU of a prompt set, in points, or None if it was not measured."""
        losses = [100 * (figures.miou_pytorch - figures.miou) for figures in self.accuracy]
        return float(np.max(losses)) if losses else None  # not a number stays so

    @property
    def failures(self) -> tuple[str, ...]:
        """What is out of tolerance, one sentence a finding; empty when the files are equal."""
        found = [problem for case in self.cases for problem in _problems(case, self.tolerance)]
        for output in dict.fromkeys(case.output for case in self.cases):
            for group, overlap in _overlaps(self.cases, output).items():
                if not overlap.iou >= self.tolerance.min_mask_iou:
                    found.append(
                        f"{output} of {group}: mask IoU {overlap.iou:.4f}, demanded are "
                        f"{self.tolerance.min_mask_iou:g}"
                    )
        limit = self.tolerance.max_miou_loss
        if limit is not None and self.miou_loss is not None and not self.miou_loss <= limit:
            found.append(f"mIoU falls by {self.miou_loss:.2f} points, allowed are {limit:g}")
        return tuple(found if self.cases else ["nothing was compared"])

    @property
    def passed(self) -> bool:
        """Whether every case is within tolerance."""
        return not self.failures

    def figures(self) -> tuple[ParityFigures, ...]:
        """Return the largest differences and smallest IoU of each output over all cases."""
        outputs = dict.fromkeys(case.output for case in self.cases)
        return tuple(_figures(self.part, output, self.cases) for output in outputs)


def _overlaps(cases: Sequence[CaseParity], output: str) -> dict[str, MaskOverlap]:
    """Return the overlap of the masks of each image, and of each kind of prompt, together."""
    groups: dict[str, MaskOverlap] = {}
    for case in cases:
        if case.output == output and case.overlap is not None:
            names = [f"image {case.image}"]
            if output == "low_res_logits":
                names.append(f"prompts {case.prompts}")
            for group in names:
                groups[group] = groups.get(group, MaskOverlap(0, 0)) + case.overlap
    return groups


def _problems(case: CaseParity, tolerance: ToleranceConfig) -> Iterator[str]:
    what = f"{case.output} of {case.image}{', ' if case.prompts else ''}{case.prompts}"
    if not np.isfinite(case.max_difference):
        yield f"{what}: numbers that are not finite or of another shape"
        return
    answers, limit = case.output in ("low_res_logits", "iou_scores"), tolerance.max_logit_difference
    if answers and limit is not None and case.max_difference > limit:
        yield f"{what}: off by {case.max_difference:.2g}, allowed are {limit:g}"
    error, limit = case.relative_error, tolerance.max_feature_error
    if not answers and error is not None and limit is not None and error > limit:
        yield f"{what}: relative error {error:.2g}, allowed are {limit:g}"


def _figures(part: str, output: str, all_cases: Sequence[CaseParity]) -> ParityFigures:
    cases = [case for case in all_cases if case.output == output]
    errors = [case.relative_error for case in cases if case.relative_error is not None]
    ious = [overlap.iou for overlap in _overlaps(cases, output).values()]
    return ParityFigures(
        output=f"{part}.{output}",
        max_difference=max(case.max_difference for case in cases),
        mean_difference=float(np.mean([case.mean_difference for case in cases])),
        relative_error=max(errors) if errors else None,
        min_mask_iou=min(ious) if ious else None,
        num_cases=len(cases),
    )
