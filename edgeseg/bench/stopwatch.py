"""Time several pieces of work in turns, so that drift of the machine hits all of them alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from edgeseg.errors import ConfigError

Name = TypeVar("Name")


@dataclass(frozen=True)
class LatencySamples:
    """How long one piece of work took, call by call.

    Attributes:
        samples_ms: One number a timed call, in milliseconds, in order.
    """

    samples_ms: tuple[float, ...]

    @property
    def p50_ms(self) -> float:
        """Median.

        >>> LatencySamples((3.0, 1.0, 8.0)).p50_ms
        3.0
        """
        return self.percentile_ms(50)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile, in milliseconds, between the two nearest samples.

        >>> LatencySamples((0.0, 10.0)).percentile_ms(90)
        9.0
        """
        return float(np.percentile(self.samples_ms, percent))


def measure_in_turns(
    tasks: Mapping[Name, Callable[[], object]],
    num_rounds: int = 10,
    num_warmup_rounds: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, LatencySamples]:
    """Run every task once a round, in the order given, and keep the times of each.

    Args:
        tasks: What to time, by name; each call must have finished its work when it returns.
        num_rounds: Rounds that count.
        num_warmup_rounds: Rounds before them that do not.
        clock: Seconds since any moment.

    Raises:
        ConfigError: There is nothing to time.
    """
    if not tasks or num_rounds < 1:
        raise ConfigError(
            f"need at least one task and one round, got {len(tasks)} tasks and {num_rounds} rounds"
        )
    found: dict[Name, list[float]] = {name: [] for name in tasks}
    for round_index in range(num_warmup_rounds + num_rounds):
        for name, task in tasks.items():
            started = clock()
            task()
            elapsed_ms = 1e3 * (clock() - started)
            if round_index >= num_warmup_rounds:
                found[name].append(elapsed_ms)
    return {name: LatencySamples(tuple(samples)) for name, samples in found.items()}
