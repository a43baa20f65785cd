"""Plots of a benchmark, as SVG for a page."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgeseg.bench.results import BenchResult
from edgeseg.bench.roofline import Roofline
from edgeseg.errors import missing_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCATTER = 0.06
"""Half the height over which the samples of a row are spread, so that equal ones stay visible."""


def plot_distributions(result: BenchResult, part: str) -> str:
    """Return every sample of a part and the medians as SVG, empty if there are no samples."""
    found = [one for one in result.measurements if one.part == part and one.samples_ms]
    if not found:
        return ""
    figure = _figure(1 + 0.35 * len(found))
    axes = figure.subplots()
    for row, measurement in enumerate(reversed(found)):
        samples = measurement.samples_ms
        step = 2 * _SCATTER / max(1, len(samples) - 1)
        heights = [row - _SCATTER + index * step for index in range(len(samples))]
        axes.plot(samples, heights, ".", color="#0969da", alpha=0.5)
        axes.plot([measurement.summary.p50_ms], [row], "|", color="#cf222e", markersize=16)
    axes.set_yticks(range(len(found)), [one.label for one in reversed(found)])
    axes.set_ylim(-0.6, len(found) - 0.4)
    axes.set_xscale("log")
    axes.set_xlabel(f"{part}, ms a call; every call, in its order from bottom to top; red: median")
    axes.grid(axis="x", which="both", alpha=0.25)
    return _svg(figure)


def plot_against_accuracy(result: BenchResult, accuracy: Mapping[str, float]) -> str:
    """Return mIoU in points against the medians of encoder and decoder together, as SVG."""
    figure = _figure(4.0)
    axes = figure.subplots()
    for label, points in accuracy.items():
        parts = [result.find(label, part) for part in ("encoder", "decoder")]
        if all(parts):
            total_ms = sum(one.summary.p50_ms for one in parts if one is not None)
            axes.plot([total_ms], [points], "o", color="#0969da")
            axes.annotate(label, (total_ms, points), (5, 4), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlabel("encoder and decoder, one prompt, ms")
    axes.set_ylabel("mIoU of a box prompt, points")
    axes.grid(which="both", alpha=0.25)
    return _svg(figure)


def plot_roofline(roofline: Roofline) -> str:
    """Return every layer with work below the two roofs of the machine, as SVG."""
    figure = _figure(4.5)
    axes = figure.subplots()
    limits = roofline.limits
    layers = [layer for layer in roofline.layers if layer.macs and layer.time_ms > 0]
    intensities = [layer.macs / layer.bytes_moved for layer in layers]
    rates = [layer.macs / layer.time_ms / 1e6 for layer in layers]
    areas = [4 + 400 * layer.time_ms / roofline.time_ms for layer in layers]
    axes.scatter(intensities, rates, s=areas, color="#0969da", alpha=0.5)
    ends = min(intensities, default=1) / 2, max(intensities, default=1) * 2
    for name, bandwidth_gbs in (("cache", limits.cache_gbs), ("memory", limits.memory_gbs)):
        knee = min(limits.peak_gmacs / bandwidth_gbs, ends[1])
        roof = [ends[0] * bandwidth_gbs, knee * bandwidth_gbs, knee * bandwidth_gbs]
        axes.plot([ends[0], knee, ends[1]], roof, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("multiply-accumulates a byte; the area of a dot is its share of the time")
    axes.set_ylabel("billions of them a second")
    axes.grid(which="both", alpha=0.25)
    axes.legend(loc="lower right")
    return _svg(figure)


def _figure(height_inches: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise missing_extra("matplotlib", "bench") from None
    return Figure(figsize=(9.0, height_inches), layout="constrained")


def _svg(figure: "Figure") -> str:
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):  # letters instead of outlines
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]
