import pytest

from edgeseg.bench.comparing import Limit, compare_results, lost
from edgeseg.bench.results import BenchResult, ColdStart, ContenderCard, Measurement
from edgeseg.bench.tables import change_table
from edgeseg.errors import ConfigError

STEADY = (10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.0, 10.1)


def result(samples_ms=STEADY, label="a", size=1000, peak_mb=50.0, part="encoder"):
    card = ContenderCard(
        label=label, model="m", driver="onnx", runs_on="cpu", precision="float32", image_size=64,
        size_bytes={"encoder": size},
    )  # fmt: skip
    start = ColdStart(
        label=label, import_ms=100, load_ms=20, first_call_ms=30, second_call_ms=5,
        peak_memory_mb=peak_mb, base_memory_mb=20,
    )  # fmt: skip
    measurement = Measurement(
        label=label, part=part, samples_ms=samples_ms, in_turns=True, num_warmup=2
    )
    return BenchResult(
        suite="s", created_utc="2026-01-01T00:00:00+00:00", machine={}, threads=2,
        contenders=(card,), measurements=(measurement,), cold_starts=(start,),
    )  # fmt: skip


def test_a_planted_slowdown_is_caught_and_noise_is_not():
    slower = result([1.2 * value for value in STEADY])
    noisy = result((10.0, 30.0, 9.9, 10.0, 28.0, 9.8, 10.0, 29.0))  # the same median, nearly
    limit = Limit.parse("latency>+10%")

    (found, *_) = compare_results(result(), slower)
    (noise, *_) = compare_results(result(), noisy)

    assert found.ratio.value == pytest.approx(1.2)
    assert found.breaks(limit)
    assert not noise.breaks(limit)
    assert not found.breaks(Limit.parse("latency>+25%"))
    assert not found.breaks(Limit.parse("memory>+10%"))


def test_a_slow_median_whose_interval_reaches_no_change_breaks_nothing():
    uncertain = result((10.0, 12.5, 9.9, 12.6, 12.4, 10.0))  # median 11.2, interval from 10

    (found, *_) = compare_results(result(), uncertain)

    assert found.ratio.value > 1.1
    assert found.ratio.low <= 1
    assert not found.breaks(Limit.parse("latency>+10%"))


def test_memory_size_and_start_are_compared_too():
    changes = compare_results(result(), result(size=1500, peak_mb=60.0))
    found = {change.quantity: change for change in changes}

    assert found["size"].ratio.value == 1.5
    assert found["size"].breaks(Limit.parse("size>+40%"))
    assert found["memory"].ratio.value == pytest.approx(1.2)
    assert found["cold_start"].before == 150  # 100 + 20 + 30
    assert "+50.0 %" in change_table(changes)


def test_what_is_gone_is_named_and_nothing_in_common_is_refused():
    assert lost(result(), result(part="decoder")) == ["a encoder"]
    other = result(label="b")
    with pytest.raises(ConfigError, match="no contender and part in common: a in the first, b in"):
        compare_results(result(), other)


@pytest.mark.parametrize("text", ["latency", "latency>10%", "speed>+10%", "latency>+10", ""])
def test_a_limit_that_is_not_understood_is_refused(text):
    with pytest.raises(ConfigError, match="must look like latency>\\+10%"):
        Limit.parse(text)
