"""Results as text: what a person reads in the terminal and in Markdown pages."""

from collections.abc import Sequence

from edgeseg.bench.comparing import Change
from edgeseg.bench.results import BenchResult, Measurement
from edgeseg.bench.summary import Ratio, ratio_of_medians


def times_faster(result: BenchResult, reference: str, measurement: Measurement) -> Ratio | None:
    """Return how many times as long the reference takes for the same part, or None."""
    other = result.find(reference, measurement.part)
    if other is None or measurement.label == reference:
        return None
    ours, theirs = measurement.samples_ms, other.samples_ms
    if not ours or not theirs:
        value = other.summary.p50_ms / measurement.summary.p50_ms
        return Ratio(value=value, low=value, high=value)
    in_turns = measurement.in_turns and other.in_turns and len(ours) == len(theirs)
    return ratio_of_medians(theirs, ours, in_turns)


def latency_table(result: BenchResult, reference: str | None = None) -> str:
    """Return a table of all latencies, with ratios against a contender if one is named."""
    header = ["contender", "part", "p50 ms", "p90", "p99", "min", "max", "mean", "std", "calls"]
    if reference is not None:
        result.card(reference)
        header.append(f"times faster than {reference}")
    rows = []
    for measurement in result.measurements:
        found = measurement.summary
        figures = (found.p50_ms, found.p90_ms, found.p99_ms, found.min_ms, found.max_ms)
        row = [measurement.label, measurement.part, *map(milliseconds, figures)]
        row += [milliseconds(found.mean_ms), milliseconds(found.std_ms), str(found.count)]
        if reference is not None:
            ratio = times_faster(result, reference, measurement)
            row.append("" if ratio is None else str(ratio))
        rows.append(row)
    return text_table(header, rows)


def start_table(result: BenchResult) -> str:
    """Return a table of cold starts and memory, empty if there are none."""
    if not result.cold_starts:
        return ""
    header = ["contender", "import ms", "load", "first mask", "second", "peak MB", "above imports"]
    rows = []
    for start in result.cold_starts:
        times = start.import_ms, start.load_ms, start.first_call_ms, start.second_call_ms
        above_mb = start.peak_memory_mb - start.base_memory_mb
        memory = [f"{start.peak_memory_mb:.0f}", f"{above_mb:.0f}"]
        rows.append([start.label, *map(milliseconds, times), *memory])
    return text_table(header, rows)


def missing_lines(result: BenchResult) -> str:
    """Return a line for everything that was not measured, with its reason."""
    return "".join(
        f"not measured: {each.label}{' ' + each.part if each.part else ''}: {each.reason}\n"
        for each in result.missing
    )


def change_table(changes: Sequence[Change]) -> str:
    """Return a table of changes, in percent."""
    rows = [
        [
            change.label,
            change.what,
            f"{change.before:.4g}",
            f"{change.after:.4g}",
            percent(change.ratio.value),
            f"{percent(change.ratio.low)} to {percent(change.ratio.high)}"
            if change.ratio.low < change.ratio.high
            else "",
        ]
        for change in changes
    ]
    return text_table(["contender", "what", "before", "after", "change", "95 % interval"], rows)


def milliseconds(value: float) -> str:
    """Return a time with three figures.

    >>> [milliseconds(value) for value in (0.01234, 12.34, 1234.5)]
    ['0.0123', '12.3', '1234']
    """
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def percent(ratio: float) -> str:
    """Return a ratio as a change.

    >>> percent(1.105)
    '+10.5 %'
    """
    return f"{100 * (ratio - 1):+.1f} %"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns aligned by spaces; the first two to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ""
    for line in lines:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text += "  ".join(cells).rstrip() + "\n"
    return text
