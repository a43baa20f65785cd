import numpy as np
import pytest

from edgeseg.bench.summary import ratio_of_medians, summarise
from edgeseg.errors import ConfigError


def test_percentiles_lie_between_samples():
    summary = summarise((30.0, 10.0, 20.0))

    assert (summary.count, summary.min_ms, summary.max_ms, summary.mean_ms) == (3, 10, 30, 20)
    assert summary.p50_ms == 20
    assert summary.p90_ms == 28  # 20 + 0.8 * (30 - 20)
    assert summary.p99_ms == pytest.approx(29.8)
    assert summary.std_ms == 10  # sqrt((100 + 100) / 2)


def test_one_sample_has_no_spread():
    assert summarise([5.0]).std_ms == 0


def test_a_ratio_of_equal_times_in_a_drifting_machine_is_certain_in_turns_only():
    drift = np.linspace(1, 3, 20)

    paired = ratio_of_medians(2 * drift, drift, in_turns=True)
    apart = ratio_of_medians(2 * drift, drift, in_turns=False)

    assert paired.value == apart.value == 2
    assert paired.low == paired.high == 2
    assert apart.low < 1.7
    assert apart.high > 2.3


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        above = 3 * rng.lognormal(0, 0.2, 30)
        below = rng.lognormal(0, 0.2, 30)
        found = ratio_of_medians(above, below, in_turns=False)
        hits += found.low <= 3 <= found.high

    assert 88 <= hits <= 100


def test_no_samples_and_uneven_rounds_are_refused():
    with pytest.raises(ConfigError, match="there are no samples"):
        summarise([])
    with pytest.raises(ConfigError, match="come in pairs, got 2 and 1"):
        ratio_of_medians([1.0, 2.0], [1.0], in_turns=True)
