"""`onnxruntime_perf_test`: its command line, and what it prints and writes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgeseg.bench.results import Measurement
from edgeseg.bench.stopwatch import Rounds
from edgeseg.bench.summary import Summary
from edgeseg.bench.tool import ToolOutput
from edgeseg.errors import BenchError

_OWN_WARMUP = 1
"""Calls that it makes before those that it reports."""
_SEED = "1"
_NUMBER = r"\s*([0-9.eE+-]+)"
_FIGURES = {
    "min_ms": "Min Latency",
    "p50_ms": "P50 Latency",
    "p90_ms": "P90 Latency",
    "p99_ms": "P99 Latency",
    "max_ms": "Max Latency",
}


@dataclass(frozen=True)
class PerfTestTimes:
    """What one run found.

    Attributes:
        samples_ms: Every call after its own warm-up, in milliseconds; empty if it only printed a
            summary.
        printed: That summary.
    """

    samples_ms: tuple[float, ...]
    printed: Summary | None = None

    def measurement(self, label: str, part: str, rounds: Rounds, note: str) -> Measurement:
        """Return the calls that count, after those that warm up.

        Args:
            label: Of the contender.
            part: What was measured.
            rounds: What `perf_test_arguments` was given.
            note: What has to be said beside the times.
        """
        extra = _extra_warmup(rounds) if self.samples_ms else 0
        only = "" if self.samples_ms else "only its summary, which does not tell the spread"
        return Measurement(
            label=label,
            part=part,
            samples_ms=self.samples_ms[extra:],
            reported=self.printed,
            in_turns=False,
            num_warmup=_OWN_WARMUP + extra,
            clock=", ".join(filter(None, ("onnxruntime_perf_test", only, note))),
        )


def perf_test_arguments(
    open_sizes: Mapping[str, int], rounds: Rounds, threads: int, provider: str
) -> list[str]:
    """Return the options for one file, all but its path and that of the result.

    The tool warms up with one call; more are asked for as calls that are dropped later.

    Args:
        open_sizes: What the letters in the file's shapes stand for.
        rounds: How often.
        threads: Threads of one call.
        provider: Execution provider, as the tool names it.
    """
    sizes = [word for name, size in open_sizes.items() for word in ("-f", f"{name}:{size}")]
    calls = rounds.counted + _extra_warmup(rounds)
    options = ["-e", provider, "-m", "times", "-r", str(calls), "-x", str(threads)]
    return [*options, "-I", "-S", _SEED, "-s", *sizes]  # -I makes inputs, -S makes them random


def read_perf_test(printed: str, result: str) -> PerfTestTimes:
    """Read what a run printed and the file it wrote.

    Args:
        printed: Its standard output, of any version.
        result: Lines of model, seconds, memory, processor load and number; empty if it could not
            write the file. Then the printed summary counts.

    Raises:
        BenchError: Neither is understood, or they contradict each other.
    """
    seconds = _column_of_seconds(result)
    average_ms = _printed(r"Average (?:inference )?time cost:", printed)
    if seconds:
        samples = tuple(1e3 * value for value in seconds)
        mean_ms = sum(samples) / len(samples)
        if average_ms is not None and abs(mean_ms - average_ms) > 0.02 * average_ms:
            raise _not_understood(
                f"calls of {mean_ms:g} ms on average beside a printed {average_ms:g} ms", printed
            )
        return PerfTestTimes(samples)
    count = _printed(r"Total (?:inference requests|iterations):", printed)
    figures = {name: _printed(_latency(word), printed) for name, word in _FIGURES.items()}
    found = {name: 1e3 * value for name, value in figures.items() if value is not None}
    if average_ms is None or count is None or len(found) < len(_FIGURES):
        raise _not_understood("no times", printed)
    # It prints no standard deviation; the measurement's clock says so.
    return PerfTestTimes((), Summary(count=int(count), mean_ms=average_ms, std_ms=0.0, **found))


def _extra_warmup(rounds: Rounds) -> int:
    return max(rounds.warmup - _OWN_WARMUP, 0)


def _column_of_seconds(result: str) -> list[float]:
    """Return the times of the result file; its first column, a name, may hold commas."""
    rows = [line.rsplit(",", 4) for line in result.splitlines()]
    try:
        return [float(row[1]) for row in rows if len(row) == 5]
    except ValueError:
        return []


def _latency(word: str) -> str:
    return rf"{word}(?: is|:)"


def _printed(words: str, printed: str) -> float | None:
    match = re.search(words + _NUMBER, printed)
    try:
        return float(match[1]) if match else None
    except ValueError:
        return None


def _not_understood(found: str, printed: str) -> BenchError:
    return BenchError(
        f"the output of onnxruntime_perf_test is not understood: got {found}; it printed last: "
        f"{ToolOutput(printed).last_lines}; use a build of ONNX Runtime 1.15 or newer"
    )
