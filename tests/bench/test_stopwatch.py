import pytest

from edgeseg.bench.stopwatch import LatencySamples, measure_in_turns
from edgeseg.errors import ConfigError


class Clock:
    """A clock that tasks move."""

    def __init__(self):
        self.now_s = 5.0

    def __call__(self):
        return self.now_s


def test_tasks_run_in_turns_and_warm_up_does_not_count():
    clock, calls = Clock(), []

    def task(name, durations_s):
        durations = iter(durations_s)

        def run():
            calls.append(name)
            clock.now_s += next(durations)

        return run

    tasks = {"a": task("a", [9, 0.5, 0.25]), "b": task("b", [9, 1, 2])}
    found = measure_in_turns(tasks, num_rounds=2, num_warmup_rounds=1, clock=clock)

    assert calls == ["a", "b"] * 3
    assert found["a"].samples_ms == (500, 250)
    assert found["b"].samples_ms == (1000, 2000)
    assert found["b"].p50_ms == 1500


def test_percentiles_lie_between_samples():
    samples = LatencySamples((30.0, 10.0, 20.0))

    assert samples.percentile_ms(0) == 10
    assert samples.percentile_ms(75) == 25
    assert samples.percentile_ms(100) == 30


@pytest.mark.parametrize(("tasks", "num_rounds"), [({}, 5), ({"a": int}, 0)])
def test_nothing_to_time_is_refused(tasks, num_rounds):
    with pytest.raises(ConfigError, match="need at least one task and one round"):
        measure_in_turns(tasks, num_rounds)
