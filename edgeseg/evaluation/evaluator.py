"""The run of an evaluation: images one after another, every prompt set on all objects of each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DataError, EdgesegError
from edgeseg.evaluation.clicks import ImageAnswers, PromptableSegmenter, Round, prompt_rounds
from edgeseg.evaluation.config import EvaluationConfig, Start
from edgeseg.evaluation.floors import filled_box, grabcut_mask
from edgeseg.evaluation.objects import Record, TargetObject, read_objects, select_records
from edgeseg.evaluation.report import BadRecord, DomainCount, EvaluationReport
from edgeseg.evaluation.tally import Figures, RowKind, Tally
from edgeseg.mask_crop import MaskCrop
from edgeseg.metrics import crop_boundary, crop_iou

FILLED_BOX = "filled box"
GRABCUT = "GrabCut"


def evaluate(
    segmenter: PromptableSegmenter[Any],
    records: Iterable[Record],
    config: EvaluationConfig | None = None,
    *,
    teacher: PromptableSegmenter[Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Measure a segmenter on the objects of records, at the size of the original images.

    Rows of the report: the prompt sets; for a first prompt that is asked for by itself also
    "<prompt>:best", the best of all four mask tokens (an oracle, what perfect scores would give),
    and "<prompt>:top-score", the token with the highest predicted IoU of all four; then the floors.

    Args:
        segmenter: What is measured.
        records: Images with masks.
        config: What to measure; the defaults when None.
        teacher: Answers the same prompts; adds the agreement of the two.
        progress: Called after each image with the number of images done and of all.

    Returns:
        The figures. Records that cannot be read are counted in it.

    Raises:
        DataError: There was no object to measure.
    """
    config = config or EvaluationConfig()
    run = _Run(config, segmenter, teacher)
    selected = select_records(records, config)
    for number, record in enumerate(selected, start=1):
        run.measure_record(record)
        if progress is not None:
            progress(number, len(selected))
    return run.report()


@dataclass
class _Run:
    config: EvaluationConfig
    segmenter: PromptableSegmenter[Any]
    teacher: PromptableSegmenter[Any] | None
    domains: dict[str, DomainCount] = field(default_factory=dict)
    bad_records: list[BadRecord] = field(default_factory=list)
    grabcut_counts: dict[str, int] = field(default_factory=dict)
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(_row_names(self.config))

    def measure_record(self, record: Record) -> None:
        try:
            image, targets = read_objects(record, self.config)
        except (EdgesegError, OSError, ValueError) as error:
            self.bad_records.append(BadRecord(record.name, record.domain, str(error)))
            return
        if not targets:
            return
        count = self.domains.get(record.domain, DomainCount(0, 0))
        self.domains[record.domain] = DomainCount(
            count.num_images + 1, count.num_objects + len(targets)
        )
        self._measure_floors(image, targets, record.domain)
        self._measure_prompts(image, targets, record.domain)

    def _measure_prompts(
        self, image: NDArray[np.uint8], targets: list[TargetObject], domain: str
    ) -> None:
        encoded = self.segmenter.encode(image)
        teacher_encoded = self.teacher.encode(image) if self.teacher else None
        for start, num_clicks in self.config.starts().items():
            student = ImageAnswers(self.segmenter, encoded, self.config.feed_mask)
            teacher = None
            if self.teacher is not None and teacher_encoded is not None:
                teacher = ImageAnswers(self.teacher, teacher_encoded, self.config.feed_mask)
            for answers in prompt_rounds(student, teacher, targets, start, num_clicks):
                self._measure_round(answers, targets, start, domain)

    def _measure_round(
        self, answers: Round, targets: list[TargetObject], start: Start, domain: str
    ) -> None:
        row = f"{start}+{answers.num_clicks}" if answers.num_clicks else start
        if row not in self.tally:  # a round on the way to one that is asked for
            return
        for number, target in enumerate(targets):
            score = float(answers.scores[number])
            figures = _figures(answers.masks[number], target, score)
            if answers.teacher_masks is not None:
                agreement = crop_iou(answers.masks[number], answers.teacher_masks[number])
                figures = replace(figures, agreement=agreement)
            self.tally.add(row, domain, figures)
            if not answers.num_clicks:
                scores = answers.token_scores[number]
                tokens = [
                    _figures(mask, target, float(token_score))
                    for mask, token_score in zip(answers.token_masks[number], scores, strict=True)
                ]
                best = max(tokens, key=lambda token: token.iou or 0.0)
                self.tally.add(f"{start}:best", domain, best)
                self.tally.add(f"{start}:top-score", domain, tokens[int(scores.argmax())])

    def _measure_floors(
        self, image: NDArray[np.uint8], targets: list[TargetObject], domain: str
    ) -> None:
        for target in targets:
            box = filled_box(target.box_xyxy, target.mask.image_hw)
            self.tally.add(FILLED_BOX, domain, _figures(box, target))
        grabcut = self.config.grabcut
        if grabcut is None:
            return
        done = self.grabcut_counts.get(domain, 0)
        number = min(grabcut.max_objects_an_image, grabcut.max_objects_a_domain - done)
        # Spread over the list, which often goes from large to small.
        chosen = targets[:: max(1, len(targets) // max(1, number))][: max(0, number)]
        for target in chosen:
            mask = grabcut_mask(image, target.box_xyxy, grabcut)
            self.tally.add(GRABCUT, domain, _figures(mask, target))
        self.grabcut_counts[domain] = done + len(chosen)

    def report(self) -> EvaluationReport:
        if not self.domains:
            reason = f"; first problem: {self.bad_records[0].message}" if self.bad_records else ""
            raise DataError(
                f"no object to measure: {len(self.bad_records)} records could not be read and the "
                f"others have no mask of {self.config.min_area_px} pixels or more; give images "
                f"with annotations{reason}"
            )
        return EvaluationReport(
            config=self.config,
            domains=self.domains,
            rows=self.tally.rows(),
            bad_records=tuple(self.bad_records),
        )


def _row_names(config: EvaluationConfig) -> list[tuple[str, RowKind]]:
    """Return all rows that may get figures; the tally drops those that get none."""
    rows: list[tuple[str, RowKind]] = [(prompt_set, "prompt") for prompt_set in config.prompt_sets]
    for start in config.starts():
        rows += [(f"{start}:best", "choice"), (f"{start}:top-score", "choice")]
    return [*rows, (FILLED_BOX, "floor"), (GRABCUT, "floor")]


def _figures(mask: MaskCrop, target: TargetObject, score: float | None = None) -> Figures:
    iou = crop_iou(mask, target.mask)
    boundary_iou = None
    if target.boundary is not None:
        boundary_iou = crop_iou(crop_boundary(mask), target.boundary)
    return Figures(iou, boundary_iou, score_error=None if score is None else abs(score - iou))
