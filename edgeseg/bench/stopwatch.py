"""Time several pieces of work in turns, so that drift of the machine hits all of them alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from edgeseg.bench.summary import Summary, summarise
from edgeseg.errors import ConfigError

Name = TypeVar("Name")


class DeviceTime(float):
    """Milliseconds that a device measured itself; a task that returns them is not timed again."""


@dataclass(frozen=True)
class Rounds:
    """How often a piece of work runs.

    Attributes:
        counted: Calls that count.
        warmup: Calls before them that do not.

    Raises:
        ConfigError: No call would count.
    """

    counted: int = 10
    warmup: int = 2

    def __post_init__(self) -> None:
        if self.counted < 1 or self.warmup < 0:
            raise ConfigError(
                f"need one round or more, and no negative warm-up, got {self.counted} rounds after "
                f"{self.warmup}"
            )


@dataclass(frozen=True)
class LatencySamples:
    """How long one piece of work took, call by call.

    Attributes:
        samples_ms: One number a timed call, in milliseconds, in order.
        clock: "wall clock", or "device" if the device measured itself.
    """

    samples_ms: tuple[float, ...]
    clock: str = "wall clock"

    @property
    def p50_ms(self) -> float:
        """Median.

        >>> LatencySamples((3.0, 1.0, 8.0)).p50_ms
        3.0
        """
        return self.summary.p50_ms

    @property
    def summary(self) -> Summary:
        """Percentiles and spread."""
        return summarise(self.samples_ms)


def measure_in_turns(
    tasks: Mapping[Name, Callable[[], object]],
    num_rounds: int = 10,
    num_warmup_rounds: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    rounds: Mapping[Name, Rounds] | None = None,
) -> dict[Name, LatencySamples]:
    """Run every task once a round, in the order given, and keep the times of each.

    Args:
        tasks: What to time, by name; each call must have finished its work when it returns. A task
            that returns a `DeviceTime` is believed.
        num_rounds: Rounds that count.
        num_warmup_rounds: Rounds before them that do not.
        clock: Seconds since any moment.
        rounds: Tasks with numbers of their own, such as very slow ones; a task with fewer rounds
            than others stays out of the last ones.

    Raises:
        ConfigError: There is nothing to time.
    """
    if not tasks:
        raise ConfigError("need at least one task and one round, got no tasks")
    usual = Rounds(num_rounds, num_warmup_rounds)
    plan = {name: (rounds or {}).get(name, usual) for name in tasks}
    for index in range(max(each.warmup for each in plan.values())):
        for name, task in tasks.items():
            if index < plan[name].warmup:
                task()
    found: dict[Name, list[float]] = {name: [] for name in tasks}
    clocks = dict.fromkeys(tasks, "wall clock")
    for index in range(max(each.counted for each in plan.values())):
        for name, task in tasks.items():
            if index < plan[name].counted:
                started = clock()
                answer = task()
                elapsed_ms = 1e3 * (clock() - started)
                if isinstance(answer, DeviceTime):
                    elapsed_ms, clocks[name] = float(answer), "device"
                found[name].append(elapsed_ms)
    return {name: LatencySamples(tuple(found[name]), clocks[name]) for name in tasks}
