"""A result as one HTML page without any other file: tables, and plots as inline SVG."""

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edgeseg.bench.plots import plot_against_accuracy, plot_distributions, plot_roofline
from edgeseg.bench.results import BenchResult
from edgeseg.bench.roofline import Roofline
from edgeseg.bench.tables import milliseconds, missing_lines, times_faster
from edgeseg.files import write_atomically

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #d8dee4; text-align: right; }
th:first-child, td:first-child, td.text { text-align: left; }
svg { max-width: 100%; height: auto; }
pre { white-space: pre-wrap; background: #f6f8fa; padding: .7rem; }
"""


def write_html(
    result: BenchResult,
    path: Path,
    reference: str | None = None,
    accuracy: Mapping[str, float] | None = None,
    rooflines: Mapping[str, Roofline] | None = None,
) -> None:
    """Write a page.

    Args:
        result: What was measured.
        path: File to write.
        reference: Label of the contender that ratios are against.
        accuracy: mIoU in points by label, for the plot of accuracy against latency.
        rooflines: Graphs held against the machine, by title.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    page = html_page(result, reference, accuracy or {}, rooflines or {})
    write_atomically(path, lambda temporary: temporary.write_text(page, "utf-8"))


def html_page(
    result: BenchResult,
    reference: str | None,
    accuracy: Mapping[str, float],
    rooflines: Mapping[str, Roofline],
) -> str:
    """Return the page; see `write_html`."""
    body = [f"<h1>Benchmark: {html.escape(result.suite)}</h1>", _machine(result)]
    for part in result.parts():
        body.append(f"<h2>{html.escape(part)}</h2>")
        body.append(_latencies(result, part, reference))
        body.append(plot_distributions(result, part))
    if result.cold_starts:
        body += ["<h2>From nothing to the first mask</h2>", _starts(result)]
    if accuracy:
        body += ["<h2>Accuracy against latency</h2>", plot_against_accuracy(result, accuracy)]
    for title, roofline in rooflines.items():
        heading = f"Roofline: {title}, {100 * roofline.achieved_share:.0f} % of the limit"
        body += [f"<h2>{html.escape(heading)}</h2>", plot_roofline(roofline)]
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
    header += ["parameters M", "GMACs", "activations M", "weights"]
    rows = []
    for card in result.contenders:
        rows.append(
            [
                card.label,
                card.model,
                card.driver,
                card.runs_on,
                card.precision,
                str(card.image_size),
                _total(card.size_bytes, 1e6),
                _total(card.num_parameters, 1e6),
                _total(card.macs, 1e9),
                _total(card.num_activations, 1e6),
                card.weights_sha256[:12] or "random",
            ]
        )
    return _table(header, rows)


def _total(by_part: Mapping[str, int], unit: float) -> str:
    """Return the sum over parts in a unit, or nothing where nothing is known."""
    return f"{sum(by_part.values()) / unit:.2f}" if by_part else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in header)]
    lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
