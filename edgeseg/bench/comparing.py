"""Two results side by side: what became slower, and whether that is more than allowed."""

import re
from dataclasses import dataclass

from edgeseg.bench.results import BenchResult, ColdStart, Measurement
from edgeseg.bench.summary import Ratio, ratio_of_medians
from edgeseg.errors import ConfigError

_LIMIT = re.compile(r"(latency|memory|size|cold_start)>([+-]\d+(?:\.\d+)?)%")


@dataclass(frozen=True)
class Limit:
    """A change that fails a comparison.

    Attributes:
        quantity: "latency" (medians), "memory" (peak), "size" (all files) or "cold_start" (import,
            load and first call).
        share: Largest allowed change, 0.1 for +10 %.
    """

    quantity: str
    share: float

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """Read a limit.

        Raises:
            ConfigError: It is not understood.

        >>> Limit.parse("latency>+10%")
        Limit(quantity='latency', share=0.1)
        """
        match = _LIMIT.fullmatch(text.replace(" ", ""))
        if match is None:
            raise ConfigError(
                f"the limit must look like latency>+10% (or memory, size, cold_start), got {text!r}"
            )
        return cls(match[1], float(match[2]) / 100)


@dataclass(frozen=True)
class Change:
    """One quantity of one contender in both results.

    Attributes:
        label: Of the contender.
        what: The part for latencies, else the quantity.
        quantity: As in `Limit`.
        before: In the first result: ms, MB or bytes.
        after: In the second.
        ratio: After over before; with an interval for latencies whose samples are kept.
    """

    label: str
    what: str
    quantity: str
    before: float
    after: float
    ratio: Ratio

    def breaks(self, limit: Limit) -> bool:
        """Whether it is more than a limit allows.

        A latency counts only when its whole interval lies above no change, so that noise of a few
        samples fails nothing.
        """
        if limit.quantity != self.quantity or self.ratio.value <= 1 + limit.share:
            return False
        return limit.share < 0 or self.ratio.low > 1


def compare_results(before: BenchResult, after: BenchResult) -> list[Change]:
    """Return the changes of everything that both results have, in the order of the second.

    Raises:
        ConfigError: They have nothing in common.
    """
    changes = []
    for measurement in after.measurements:
        earlier = before.find(measurement.label, measurement.part)
        if earlier is not None:
            changes.append(_latency(earlier, measurement))
    changes += _memory_and_start(before, after) + _sizes(before, after)
    if not changes:
        theirs, ours = (
            ", ".join(card.label for card in result.contenders) for result in (before, after)
        )
        raise ConfigError(
            f"the results have no contender and part in common: {theirs} in the first, {ours} in "
            "the second; compare runs of one suite"
        )
    return changes


def lost(before: BenchResult, after: BenchResult) -> list[str]:
    """Return what was measured before and is missing now, in words."""
    return [
        f"{measurement.label} {measurement.part}"
        for measurement in before.measurements
        if after.find(measurement.label, measurement.part) is None
    ]


def _latency(before: Measurement, after: Measurement) -> Change:
    first, second = before.summary.p50_ms, after.summary.p50_ms
    ratio = _plain(first, second)
    if before.samples_ms and after.samples_ms:
        ratio = ratio_of_medians(after.samples_ms, before.samples_ms, in_turns=False)
    return Change(after.label, after.part, "latency", first, second, ratio)


def _memory_and_start(before: BenchResult, after: BenchResult) -> list[Change]:
    earlier = {start.label: start for start in before.cold_starts}
    changes = []
    for start in after.cold_starts:
        if start.label in earlier:
            old = earlier[start.label]
            memory = old.peak_memory_mb, start.peak_memory_mb
            changes += [
                Change(start.label, "peak memory", "memory", *memory, _plain(*memory)),
                Change(
                    start.label,
                    "cold start",
                    "cold_start",
                    _total_ms(old),
                    _total_ms(start),
                    _plain(_total_ms(old), _total_ms(start)),
                ),
            ]
    return changes


def _total_ms(start: ColdStart) -> float:
    return start.import_ms + start.load_ms + start.first_call_ms


def _sizes(before: BenchResult, after: BenchResult) -> list[Change]:
    earlier = {card.label: sum(card.size_bytes.values()) for card in before.contenders}
    changes = []
    for card in after.contenders:
        old, new = earlier.get(card.label, 0), sum(card.size_bytes.values())
        if old and new:
            changes.append(Change(card.label, "size", "size", old, new, _plain(old, new)))
    return changes


def _plain(before: float, after: float) -> Ratio:
    value = after / before if before else 1.0
    return Ratio(value=value, low=value, high=value)
