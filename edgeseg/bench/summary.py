"""Samples to figures: percentiles, spread, and ratios that say how sure they are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from edgeseg.errors import ConfigError

CONFIDENCE = 0.95
"""Share of resampled ratios that lies between the ends of an interval."""
_NUM_RESAMPLES = 4000


class Summary(BaseModel):
    """What a series of latencies comes to, in milliseconds.

    Attributes:
        count: Number of samples.
        min_ms: Shortest.
        p50_ms: Median; percentiles lie between the two nearest samples.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        max_ms: Longest.
        mean_ms: Mean.
        std_ms: Standard deviation of the samples (n - 1), zero for a single one and for a
            tool that does not tell it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    min_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    mean_ms: float
    std_ms: float


def summarise(samples_ms: Sequence[float]) -> Summary:
    """Summarise latencies.

    Raises:
        ConfigError: There are none.

    >>> summarise((3.0, 1.0, 8.0)).p50_ms
    3.0
    """
    samples = _array(samples_ms)
    p50, p90, p99 = np.percentile(samples, (50, 90, 99)).tolist()
    return Summary(
        count=len(samples),
        min_ms=float(samples.min()),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        max_ms=float(samples.max()),
        mean_ms=float(samples.mean()),
        std_ms=float(samples.std(ddof=1)) if len(samples) > 1 else 0.0,
    )


class Ratio(BaseModel):
    """How many times as long one thing takes as another.

    Attributes:
        value: Ratio of the medians.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def ratio_of_medians(
    numerator_ms: Sequence[float], denominator_ms: Sequence[float], in_turns: bool
) -> Ratio:
    """Return a ratio of medians with a percentile bootstrap interval (Efron 1979).

    Args:
        numerator_ms: Samples.
        denominator_ms: Samples.
        in_turns: Sample k of both belongs to the same round; rounds are then resampled as a whole,
            so that drift of the machine, which hits both, does not widen the interval.

    Raises:
        ConfigError: There are no samples, or samples of rounds differ in number.
    """
    above, below = _array(numerator_ms), _array(denominator_ms)
    if in_turns and len(above) != len(below):
        raise ConfigError(
            f"samples taken in turns come in pairs, got {len(above)} and {len(below)}; compare "
            "them with in_turns=False"
        )
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(above), size=(_NUM_RESAMPLES, len(above)))
    others = chosen if in_turns else rng.integers(len(below), size=(_NUM_RESAMPLES, len(below)))
    ratios = np.median(above[chosen], axis=1) / np.median(below[others], axis=1)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(ratios, (tail, 100 - tail)).tolist()
    return Ratio(value=float(np.median(above) / np.median(below)), low=low, high=high)


def _array(samples_ms: Sequence[float]) -> NDArray[np.float64]:
    if not len(samples_ms):
        raise ConfigError("there are no samples; time at least one round")
    return np.asarray(samples_ms, np.float64)
