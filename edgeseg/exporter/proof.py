"""Is an exported model equal to PyTorch? Both answer the same prompts through the runtime.

The reference is the network in PyTorch behind the runtime's `Segmenter`; the candidate is the file,
run by the program that users run, behind the same `Segmenter`. What is compared is what users get:
features, mask logits, scores, and masks at the size of the image.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.export_manifest import ParityFigures
from edgeseg.exporter.proof_cases import ProofImage
from edgeseg.exporter.targets import ToleranceConfig
from edgeseg.geometry import ModelFrame
from edgeseg.postprocess import content_logits, upsample_masks
from edgeseg.prompts import Prompt
from edgeseg.runtime.segmenter import EncodedImage, Segmenter

_MAX_FULL_SIZE_MASKS = 1
"""Masks of a case compared at the size of the image, too; the others at low resolution only."""


@dataclass(frozen=True, eq=False)
class PromptAnswer:
    """Answers to N prompts.

    Attributes:
        logits: (N, 4, S/4, S/4) float32, low-res logits in the model frame.
        scores: (N, 4) float32, predicted IoU.
    """

    logits: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImageAnswer:
    """All that is said about one image.

    Attributes:
        features: Of the image encoder, in order; none where they stay inside the file.
        answers: One for each set of prompts.
    """

    features: tuple[NDArray[np.float32], ...]
    answers: tuple[PromptAnswer, ...]


class Answerer(Protocol):
    """An image and its prompts to logits and scores, in one step or in two."""

    def answer(
        self, image: NDArray[np.uint8], prompt_sets: Sequence[Sequence[Prompt]]
    ) -> ImageAnswer:
        """Answer each set of prompts in one call."""


class PairAnswerer:
    """Encoder and decoder behind the runtime's segmenter.

    Args:
        segmenter: PyTorch's or an exported pair's.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    def answer(
        self, image: NDArray[np.uint8], prompt_sets: Sequence[Sequence[Prompt]]
    ) -> ImageAnswer:
        """Encode once, decode each set in one call."""
        encoded: EncodedImage = self.segmenter.encode(image)
        answers = (self.segmenter.predict_logits(encoded, prompts) for prompts in prompt_sets)
        features = tuple(np.asarray(feature, np.float32) for feature in encoded.features)
        return ImageAnswer(features, tuple(PromptAnswer(*answer) for answer in answers))


@dataclass(frozen=True)
class CaseParity:
    """One output of one case.

    Attributes:
        case: Image and prompts.
        output: "image_embedding", "low_res_logits", "masks", ...
        max_difference: Largest absolute difference; infinite if a number is not finite.
        mean_difference: Mean absolute difference.
        mask_iou: IoU of all masks of the case together, or None for outputs that are no masks.
    """

    case: str
    output: str
    max_difference: float
    mean_difference: float
    mask_iou: float | None = None


@dataclass(frozen=True)
class ProofReport:
    """What a proof found.

    Attributes:
        part: File or files that were run.
        runner: Program that ran them.
        tolerance: What was demanded.
        cases: Every output of every case.
        miou_loss: mIoU lost on labelled images, in points, or None if it was not measured.
    """

    part: str
    runner: str
    tolerance: ToleranceConfig
    cases: tuple[CaseParity, ...]
    miou_loss: float | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """What is out of tolerance, one sentence a finding; empty when the files are equal."""
        found = [problem for case in self.cases for problem in _problems(case, self.tolerance)]
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
        return tuple(
            _figures(f"{self.part}.{output}", [c for c in self.cases if c.output == output])
            for output in outputs
        )


def compare(
    reference: Answerer,
    candidate: Answerer,
    images: Iterable[ProofImage],
    image_size: int,
    feature_names: Sequence[str],
) -> Iterator[CaseParity]:
    """Ask both the same and yield how far the answers are apart.

    Args:
        reference: PyTorch.
        candidate: The exported files.
        images: What is asked.
        image_size: Side S of the model input, in pixels.
        feature_names: Names of the features, in order.
    """
    for image in images:
        names, sets = list(image.prompt_sets), list(image.prompt_sets.values())
        expected = reference.answer(image.image, sets)
        found = candidate.answer(image.image, sets)
        if found.features:
            features = zip(feature_names, expected.features, found.features, strict=True)
            for name, ours, theirs in features:
                yield _difference(image.name, name, ours, theirs)
        frame = ModelFrame((image.image.shape[0], image.image.shape[1]), image_size)
        for name, answer, other in zip(names, expected.answers, found.answers, strict=True):
            yield from _compare_answers(f"{image.name}, {name}", frame, answer, other)


def _compare_answers(
    case: str, frame: ModelFrame, ours: PromptAnswer, theirs: PromptAnswer
) -> Iterator[CaseParity]:
    yield _difference(case, "iou_scores", ours.scores, theirs.scores)
    if ours.logits.shape != theirs.logits.shape:
        yield _difference(case, "low_res_logits", ours.logits, theirs.logits)
        return
    on = content_logits(ours.logits, frame) > 0
    other_on = content_logits(theirs.logits, frame) > 0
    iou = _joint_iou(on, other_on)
    yield _difference(case, "low_res_logits", ours.logits, theirs.logits, iou)
    best = ours.scores[:_MAX_FULL_SIZE_MASKS].argmax(axis=1)
    rows = np.arange(len(best))
    masks = upsample_masks(ours.logits[rows, best], frame)
    other_masks = upsample_masks(theirs.logits[rows, best], frame)
    changed = float((masks != other_masks).mean()) if masks.size else 0.0
    yield CaseParity(case, "masks", float(changed > 0), changed, _joint_iou(masks, other_masks))


def _difference(
    case: str,
    output: str,
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
    mask_iou: float | None = None,
) -> CaseParity:
    if ours.shape != theirs.shape:
        return CaseParity(f"{case}: {theirs.shape} for {ours.shape}", output, np.inf, np.inf, 0.0)
    difference = np.abs(ours.astype(np.float64) - theirs)
    if not np.isfinite(difference).all():
        return CaseParity(case, output, np.inf, np.inf, 0.0)
    largest = float(difference.max(initial=0.0))
    mean = float(difference.mean()) if difference.size else 0.0
    return CaseParity(case, output, largest, mean, mask_iou)


def _joint_iou(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    """IoU of all (..., h, w) masks taken together; two that are empty everywhere agree.

    A mask of three pixels that gains a fourth would say 0.75 by itself, whatever the file is worth.
    """
    union = np.count_nonzero(ours | theirs)
    return np.count_nonzero(ours & theirs) / union if union else 1.0


def _problems(case: CaseParity, tolerance: ToleranceConfig) -> Iterator[str]:
    what, limit = f"{case.output} of {case.case}", tolerance.max_logit_difference
    if not np.isfinite(case.max_difference):
        yield f"{what}: numbers that are not finite or of another shape"
        return
    answers = case.output in ("low_res_logits", "iou_scores")
    if answers and limit is not None and case.max_difference > limit:
        yield f"{what}: off by {case.max_difference:.2g}, allowed are {limit:g}"
    if case.mask_iou is not None and not case.mask_iou >= tolerance.min_mask_iou:
        yield f"{what}: mask IoU {case.mask_iou:.4f}, demanded are {tolerance.min_mask_iou:g}"


def _figures(output: str, cases: Sequence[CaseParity]) -> ParityFigures:
    ious = [case.mask_iou for case in cases if case.mask_iou is not None]
    return ParityFigures(
        output=output,
        max_difference=max(case.max_difference for case in cases),
        mean_difference=float(np.mean([case.mean_difference for case in cases])),
        min_mask_iou=min(ious) if ious else None,
        num_cases=len(cases),
    )
