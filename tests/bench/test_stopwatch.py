import pytest

from edgeseg.bench.stopwatch import DeviceTime, Rounds, measure_in_turns
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


def test_a_slow_task_may_run_less_often_than_the_others():
    clock, calls = Clock(), []
    tasks = {name: (lambda name=name: calls.append(name)) for name in "ab"}

    found = measure_in_turns(tasks, 3, 2, clock, rounds={"b": Rounds(1, 0)})

    assert calls == ["a", "a", "a", "b", "a", "a"]
    assert len(found["a"].samples_ms) == 3
    assert len(found["b"].samples_ms) == 1


def test_what_a_device_measured_itself_is_believed():
    clock = Clock()

    def run():
        clock.now_s += 9
        return DeviceTime(1.5)

    found = measure_in_turns({"gpu": run}, 2, 0, clock)["gpu"]

    assert found.samples_ms == (1.5, 1.5)
    assert found.clock == "device"


@pytest.mark.parametrize(
    ("tasks", "num_rounds", "message"),
    [({}, 5, "need at least one task"), ({"a": int}, 0, "need one round or more")],
)
def test_nothing_to_time_is_refused(tasks, num_rounds, message):
    with pytest.raises(ConfigError, match=message):
        measure_in_turns(tasks, num_rounds)
