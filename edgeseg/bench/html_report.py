"""A result as one HTML page without any other file: tables, and plots as inline SVG."""

import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.bench.results import BenchResult
from edgeseg.bench.tables import milliseconds, missing_lines, times_faster
from edgeseg.errors import missing_extra
from edgeseg.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #d8dee4; text-align: right; }
th:first-child, td:first-child, td.text { text-align: left; }
svg { max-width: 100%; height: auto; }
pre { white-space: pre-wrap; background: #f6f8fa; padding: .7rem; }
"""
_SCATTER = 0.06
"""Half the height over which the samples of a row are spread, so that equal ones stay visible."""


def write_html(
    result: BenchResult,
    path: Path,
    reference: str | None = None,
    accuracy: dict[str, float] | None = None,
) -> None:
    """Write a page.

    Args:
        result: What was measured.
        path: File to write.
        reference: Label of the contender that ratios are against.
        accuracy: mIoU in points by label, for the plot of accuracy against latency.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    page = html_page(result, reference, accuracy or {})
    write_atomically(path, lambda temporary: temporary.write_text(page, "utf-8"))


def html_page(result: BenchResult, reference: str | None, accuracy: dict[str, float]) -> str:
    """Return the page; see `write_html`."""
    body = [f"<h1>Benchmark: {html.escape(result.suite)}</h1>", _machine(result)]
    for part in result.parts():
        body.append(f"<h2>{html.escape(part)}</h2>")
        body.append(_latencies(result, part, reference))
        body.append(_distributions(result, part))
    if result.cold_starts:
        body += ["<h2>From nothing to the first mask</h2>", _starts(result)]
    if accuracy:
        body += ["<h2>Accuracy against latency</h2>", _against_accuracy(result, accuracy)]
    body += ["<h2>What ran</h2>", _cards(result)]
    if result.missing:
        lines = html.escape(missing_lines(result))
        body += ["<h2>What was not measured</h2>", f"<pre>{lines}</pre>"]
    title = html.escape(f"EdgeSeg benchmark: {result.suite}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _machine(result: BenchResult) -> str:
    facts = [f"{key}: {value}" for key, value in result.machine.items()]
    facts += [f"threads of a call: {result.threads}", f"ended: {result.created_utc}"]
    return f"<p>{html.escape(' · '.join(facts))}</p>"


def _latencies(result: BenchResult, part: str, reference: str | None) -> str:
    header = ["contender", "p50 ms", "p90", "p99", "min", "max", "mean", "std", "calls", "warm-up"]
    header.append("clock")
    if reference is not None:
        header.append(f"times faster than {reference} (95 %)")
    rows = []
    for measurement in result.measurements:
        if measurement.part != part:
            continue
        found = measurement.summary
        figures = (found.p50_ms, found.p90_ms, found.p99_ms, found.min_ms, found.max_ms)
        row = [measurement.label, *map(milliseconds, (*figures, found.mean_ms, found.std_ms))]
        row += [str(found.count), str(measurement.num_warmup), measurement.clock]
        if reference is not None:
            row.append(str(times_faster(result, reference, measurement) or ""))
        rows.append(row)
    return _table(header, rows)


def _starts(result: BenchResult) -> str:
    header = ["contender", "import ms", "load", "first mask", "second", "peak MB", "base MB"]
    rows = []
    for start in result.cold_starts:
        times = start.import_ms, start.load_ms, start.first_call_ms, start.second_call_ms
        memory = start.peak_memory_mb, start.base_memory_mb
        rows.append([start.label, *map(milliseconds, times), *(f"{size:.0f}" for size in memory)])
    return _table(header, rows)


def _cards(result: BenchResult) -> str:
    header = ["contender", "model", "driver", "runs on", "precision", "input", "files MB"]
    header += ["parameters M", "GMACs of the encoder", "weights"]
    rows = []
    for card in result.contenders:
        work = card.macs.get("encoder")
        rows.append(
            [
                card.label,
                card.model,
                card.driver,
                card.runs_on,
                card.precision,
                str(card.image_size),
                f"{sum(card.size_bytes.values()) / 1e6:.1f}" if card.size_bytes else "",
                f"{sum(card.num_parameters.values()) / 1e6:.2f}" if card.num_parameters else "",
                f"{work / 1e9:.2f}" if work else "",
                card.weights_sha256[:12] or "random",
            ]
        )
    return _table(header, rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in header)]
    lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _distributions(result: BenchResult, part: str) -> str:
    """Plot every sample of a part, with medians, on a logarithmic axis."""
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


def _against_accuracy(result: BenchResult, accuracy: dict[str, float]) -> str:
    """Plot mIoU against the median of an encoder and a decoder call together."""
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


def _figure(height_inches: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise missing_extra("matplotlib", "bench") from None
    return Figure(figsize=(9.0, height_inches), layout="constrained")


def _svg(figure: "Figure") -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]
