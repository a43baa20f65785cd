"""Scores of single objects to figures: mean within a domain, then mean over domains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

RowKind = Literal["prompt", "choice", "floor"]
Metric = Literal["iou", "boundary_iou", "agreement", "score_error"]
METRICS: tuple[Metric, ...] = ("iou", "boundary_iou", "agreement", "score_error")


@dataclass(frozen=True)
class Figures:
    """Means over objects, or over domains; None where something was not measured.

    Attributes:
        iou: IoU with the truth, 0..1.
        boundary_iou: Boundary IoU with the truth, 0..1.
        agreement: IoU with the teacher's answer to the same prompt, 0..1.
        score_error: Absolute difference of predicted and true IoU.
        num_objects: Number of objects measured.
    """

    iou: float | None
    boundary_iou: float | None = None
    agreement: float | None = None
    score_error: float | None = None
    num_objects: int = 1


@dataclass(frozen=True)
class Row:
    """One way to get a mask, measured.

    Attributes:
        name: Such as "box+1", "center:best" or "filled box".
        kind: "prompt" (a prompt set), "choice" (another choice among the four tokens) or "floor".
        domains: Figures of each domain that has any.
        mean: Mean of the domains' figures.
    """

    name: str
    kind: RowKind
    domains: dict[str, Figures]
    mean: Figures


class Tally:
    """Collects scores of objects by row and domain.

    Args:
        rows: Name and kind of the rows, in the order of the report.
    """

    def __init__(self, rows: Sequence[tuple[str, RowKind]]) -> None:
        self._rows = dict(rows)
        self._scores: dict[str, dict[str, list[Figures]]] = {name: {} for name in self._rows}

    def __contains__(self, row: str) -> bool:
        return row in self._rows

    def add(self, row: str, domain: str, scores: Figures) -> None:
        """Add one object."""
        self._scores[row].setdefault(domain, []).append(scores)

    def rows(self) -> tuple[Row, ...]:
        """Return the means of what was added; a row without any object is left out."""
        rows = []
        for name, kind in self._rows.items():
            domains = {
                domain: mean_figures(scores) for domain, scores in self._scores[name].items()
            }
            if domains:
                rows.append(Row(name, kind, domains, mean_figures(list(domains.values()))))
        return tuple(rows)


def mean_figures(figures: Sequence[Figures]) -> Figures:
    """Return the unweighted mean of each figure over those that have it, and the sum of objects.

    >>> mean_figures([Figures(0.5, num_objects=3), Figures(1.0)])
    Figures(iou=0.75, boundary_iou=None, agreement=None, score_error=None, num_objects=4)
    """
    means: dict[str, float | None] = {}
    for metric in METRICS:
        values = [value for each in figures if (value := getattr(each, metric)) is not None]
        means[metric] = float(np.mean(values)) if values else None
    return Figures(**means, num_objects=sum(each.num_objects for each in figures))
