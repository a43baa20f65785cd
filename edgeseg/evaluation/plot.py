"""The figures of an evaluation as a bar chart."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.errors import missing_extra
from edgeseg.evaluation.tally import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_IOU_COLOR, _BOUNDARY_COLOR = "#3465a4", "#9db8da"
_FLOOR_STYLES = ("--", ":")
_BAR_WIDTH = 0.38


def draw_bars(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write a PNG with the mean IoU and boundary IoU of each row.

    Prompt sets and other choices are bars, their domains are dots, floors are lines.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "train") from error

    bars = [row for row in rows if row.kind != "floor"]
    figure = Figure(figsize=(max(6.0, 1.1 * len(bars) + 2.5), 4.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _draw_rows(axes, bars)
    floors = [(row.name, row.mean.iou or 0.0) for row in rows if row.kind == "floor"]
    for (name, iou), style in zip(floors, _FLOOR_STYLES, strict=False):
        label = f"{name} ({iou:.2f})"
        axes.axhline(iou, color="#a40000", linestyle=style, linewidth=1.4, label=label)
    axes.set_xticks(range(len(bars)), [_label(row) for row in bars], fontsize=9)
    axes.set_ylim(0, 1)
    axes.set_ylabel("mean over domains")
    axes.set_title(title, fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figure.savefig(path, format="png")


def _draw_rows(axes: "Axes", bars: Sequence[Row]) -> None:
    series = (("iou", "IoU", _IOU_COLOR), ("boundary_iou", "boundary IoU", _BOUNDARY_COLOR))
    shown = [each for each in series if any(getattr(row.mean, each[0]) is not None for row in bars)]
    for number, (metric, label, color) in enumerate(shown):
        places = np.arange(len(bars)) + (number - (len(shown) - 1) / 2) * _BAR_WIDTH
        heights = [getattr(row.mean, metric) or 0.0 for row in bars]
        axes.bar(places, heights, _BAR_WIDTH, color=color, label=label)
    if not shown:
        return
    first = np.arange(len(bars)) - (len(shown) - 1) / 2 * _BAR_WIDTH
    dots = [
        (place, figures.iou)
        for place, row in zip(first, bars, strict=True)
        for figures in row.domains.values()
        if figures.iou is not None
    ]
    dots_x, dots_y = zip(*dots, strict=True)
    axes.plot(dots_x, dots_y, "o", mfc="white", mec="black", ms=3.5, label="IoU of a domain")


def _label(row: Row) -> str:
    """Return name and figures; below the axis nothing covers them."""
    figures = [value for value in (row.mean.iou, row.mean.boundary_iou) if value is not None]
    return "\n".join([row.name.replace(":", "\n"), " | ".join(f"{value:.2f}" for value in figures)])
