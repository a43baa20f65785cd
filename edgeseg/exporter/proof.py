"""Is an exported model equal to PyTorch? Both answer the same prompts through the runtime.

The reference is the network in PyTorch behind the runtime's `Segmenter`; the candidate is the file,
run by the program that users run, behind the same `Segmenter`. What is compared is what users get:
features, mask logits, scores, and masks at the size of the image.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.exporter.proof_cases import ProofImage
from edgeseg.exporter.proof_report import CaseParity, MaskOverlap
from edgeseg.geometry import ModelFrame
from edgeseg.postprocess import content_logits, upsample_masks
from edgeseg.prompts import Prompt
from edgeseg.proposals import CellProposals
from edgeseg.runtime.backend import ProposingBackend
from edgeseg.runtime.segmenter import EncodedImage, Segmenter
from edgeseg.signature import (
    PROPOSAL_BOXES_XYXY_MODEL,
    PROPOSAL_CLICK_LOGITS,
    PROPOSAL_SCORES,
)

_NUM_BOXES = 100
"""Proposals of an image whose boxes are compared."""
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
        proposals: What cells propose, or None.
    """

    features: tuple[NDArray[np.float32], ...]
    answers: tuple[PromptAnswer, ...]
    proposals: CellProposals | None = None


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
        proposes: Ask for region proposals, too.
    """

    def __init__(self, segmenter: Segmenter, proposes: bool = False) -> None:
        self.segmenter = segmenter
        self.proposes = proposes

    def answer(
        self, image: NDArray[np.uint8], prompt_sets: Sequence[Sequence[Prompt]]
    ) -> ImageAnswer:
        """Encode once, decode each set in one call."""
        encoded: EncodedImage = self.segmenter.encode(image)
        answers = (self.segmenter.predict_logits(encoded, prompts) for prompts in prompt_sets)
        features = tuple(np.asarray(feature, np.float32) for feature in encoded.features)
        proposals = None
        if self.proposes:
            backend = self.segmenter.backend
            assert isinstance(backend, ProposingBackend)
            proposals = backend.propose(encoded.features)
        return ImageAnswer(features, tuple(PromptAnswer(*answer) for answer in answers), proposals)


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
                yield _difference((image.name, "", name), ours, theirs)
        if expected.proposals is not None and found.proposals is not None:
            yield from _compare_proposals(image.name, expected.proposals, found.proposals)
        frame = ModelFrame((image.image.shape[0], image.image.shape[1]), image_size)
        for name, answer, other in zip(names, expected.answers, found.answers, strict=True):
            yield from _compare_answers((image.name, name), frame, answer, other)


def _compare_answers(
    case: tuple[str, str], frame: ModelFrame, ours: PromptAnswer, theirs: PromptAnswer
) -> Iterator[CaseParity]:
    yield _difference((*case, "iou_scores"), ours.scores, theirs.scores)
    if ours.logits.shape != theirs.logits.shape:
        yield _difference((*case, "low_res_logits"), ours.logits, theirs.logits)
        return
    overlap = _overlap(
        content_logits(ours.logits, frame) > 0, content_logits(theirs.logits, frame) > 0
    )
    yield _difference((*case, "low_res_logits"), ours.logits, theirs.logits, overlap)
    best = ours.scores[:_MAX_FULL_SIZE_MASKS].argmax(axis=1)
    rows = np.arange(len(best))
    masks = upsample_masks(ours.logits[rows, best], frame)
    other_masks = upsample_masks(theirs.logits[rows, best], frame)
    changed = float((masks != other_masks).mean()) if masks.size else 0.0
    overlap = _overlap(masks, other_masks)
    yield CaseParity(*case, "masks", float(changed > 0), changed, overlap=overlap)


def _compare_proposals(
    image: str, ours: CellProposals, theirs: CellProposals
) -> Iterator[CaseParity]:
    """Compare all numbers, but only the boxes that PyTorch is surest of: others are background."""
    yield _difference((image, "", PROPOSAL_SCORES), ours.scores, theirs.scores)
    yield _difference((image, "", PROPOSAL_CLICK_LOGITS), ours.click_logits, theirs.click_logits)
    best = np.argsort(-ours.scores, kind="stable")[:_NUM_BOXES]
    case = image, "", PROPOSAL_BOXES_XYXY_MODEL
    if ours.boxes_xyxy.shape != theirs.boxes_xyxy.shape:
        yield _difference(case, ours.boxes_xyxy, theirs.boxes_xyxy)
        return
    boxes, other_boxes = ours.boxes_xyxy[best], theirs.boxes_xyxy[best]
    yield replace(_difference(case, boxes, other_boxes), overlap=box_overlap(boxes, other_boxes))


def box_overlap(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> MaskOverlap:
    """Return the areas that pairs of (K, 4) boxes share and cover, in whole square pixels."""
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1).sum() for boxes in (ours, theirs)]
    top_left = np.maximum(ours[:, :2], theirs[:, :2])
    bottom_right = np.minimum(ours[:, 2:], theirs[:, 2:])
    both = (bottom_right - top_left).clip(min=0).prod(axis=1).sum()
    return MaskOverlap(round(float(both)), round(float(areas[0] + areas[1] - both)))


def _difference(
    case: tuple[str, str, str],
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
    overlap: MaskOverlap | None = None,
) -> CaseParity:
    if ours.shape != theirs.shape:
        return CaseParity(*case, np.inf, np.inf)
    difference = np.abs(ours.astype(np.float64) - theirs)
    if not np.isfinite(difference).all():
        return CaseParity(*case, np.inf, np.inf)
    largest = float(difference.max(initial=0.0))
    mean = float(difference.mean()) if difference.size else 0.0
    size = max(float(np.linalg.norm(ours.astype(np.float64))), float(np.finfo(np.float32).tiny))
    error = float(np.linalg.norm(difference)) / size
    return CaseParity(*case, largest, mean, error, overlap)


def _overlap(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> MaskOverlap:
    return MaskOverlap(int(np.count_nonzero(ours & theirs)), int(np.count_nonzero(ours | theirs)))
