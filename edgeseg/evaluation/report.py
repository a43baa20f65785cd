"""What an evaluation found, as values, JSON, table and picture."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from edgeseg.evaluation.config import EvaluationConfig
from edgeseg.evaluation.plot import draw_bars
from edgeseg.evaluation.tally import METRICS, Figures, Metric, Row

_TITLES: dict[Metric, str] = {
    "iou": "IoU",
    "boundary_iou": "boundary IoU",
    "agreement": "IoU with the teacher",
    "score_error": "|predicted - true IoU|",
}


@dataclass(frozen=True)
class BadRecord:
    """A record that could not be read, and why."""

    name: str
    domain: str
    message: str


@dataclass(frozen=True)
class DomainCount:
    """How many images with objects, and how many objects, a domain has."""

    num_images: int
    num_objects: int


@dataclass(frozen=True)
class EvaluationReport:
    """The figures of one evaluation.

    A domain's figure is the mean over its objects; the mean of a row is the mean of its domains'
    figures, so that a domain with many small objects does not drown the others.

    Attributes:
        config: What was measured.
        domains: Numbers of images and objects by domain.
        rows: Prompt sets, other choices of the mask token, floors.
        bad_records: Records that could not be read; they are in no figure.
    """

    config: EvaluationConfig
    domains: dict[str, DomainCount]
    rows: tuple[Row, ...]
    bad_records: tuple[BadRecord, ...]

    def row(self, name: str) -> Row:
        """Return the row of that name, such as "box+1".

        Raises:
            KeyError: There is no such row; the message names those there are.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row {name!r}; there are {[row.name for row in self.rows]}")

    def ranking_gaps(self) -> dict[str, float]:
        """Return how much IoU better scores could still win, by first prompt.

        It is the mean IoU of the best of the four tokens minus that of the top-scored one; 0 means
        that the scores always rank the best mask first.
        """
        means = {row.name: row.mean.iou or 0.0 for row in self.rows if row.kind == "choice"}
        starts = [name.removesuffix(":best") for name in means if name.endswith(":best")]
        return {start: means[f"{start}:best"] - means[f"{start}:top-score"] for start in starts}

    def to_json(self) -> str:
        """Return everything as indented JSON; what was not measured is null."""
        document = {
            "config": self.config.model_dump(mode="json"),
            "num_images": sum(count.num_images for count in self.domains.values()),
            "num_objects": sum(count.num_objects for count in self.domains.values()),
            "domains": {name: asdict(count) for name, count in self.domains.items()},
            "rows": [asdict(row) for row in self.rows],
            "ranking_gaps": self.ranking_gaps(),
            "num_bad_records": len(self.bad_records),
            "bad_records": [asdict(record) for record in self.bad_records],
        }
        return json.dumps(document, indent=2, allow_nan=False)

    def table(self, metric: Metric = "iou", title: str = "") -> Table:
        """Return one metric by row and domain.

        The IoU table ends with the means of the other metrics, as far as they were measured.
        """
        table = Table(title=f"{title} {_TITLES[metric]}".strip(), caption=self._caption())
        table.add_column("prompt", no_wrap=True)
        for domain, count in self.domains.items():
            header = f"{domain}\n{count.num_images} img\n{count.num_objects} obj"
            table.add_column(header, justify="right")
        table.add_column("mean", justify="right", style="bold")
        others = [
            other
            for other in (METRICS if metric == "iou" else ())
            if other != "iou" and any(_value(row.mean, other) is not None for row in self.rows)
        ]
        for other in others:
            table.add_column(f"mean\n{_TITLES[other]}", justify="right")
        kinds = [row.kind for row in self.rows]
        for row, kind, next_kind in zip(self.rows, kinds, [*kinds[1:], None], strict=True):
            values = [_value(row.domains.get(domain), metric) for domain in self.domains]
            values += [_value(row.mean, each) for each in (metric, *others)]
            table.add_row(row.name, *map(_cell, values), end_section=kind != next_kind)
        return table

    def save_plot(self, path: Path | str, title: str = "") -> None:
        """Write a PNG: a bar a prompt set, a dot a domain, a line a floor.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        draw_bars(self.rows, Path(path), title or self._caption())

    def _caption(self) -> str:
        num_images = sum(count.num_images for count in self.domains.values())
        num_objects = sum(count.num_objects for count in self.domains.values())
        unread = f", {len(self.bad_records)} unreadable records" if self.bad_records else ""
        return f"{num_objects} objects in {num_images} images{unread}"


def _value(figures: Figures | None, metric: Metric) -> float | None:
    return getattr(figures, metric) if figures is not None else None


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
