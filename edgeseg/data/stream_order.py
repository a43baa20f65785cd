"""Which record stands at a position of the endless training stream, computed and not remembered."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.domain_draws import DomainDraws
from edgeseg.errors import ConfigError

_EPOCH, _CYCLE, _SAMPLE = range(3)
"""First word of every seed, so that no two uses share their random numbers."""


class StreamOrder:
    """Maps positions 0, 1, 2, ... to records.

    Unbalanced, an epoch is one seeded permutation of all records. Balanced, the positions cycle
    over the domains, each cycle in its own seeded order, and every domain goes through its own
    permutations; small domains come round more often. With draws, a step holds some of the domains
    only, each through its own permutations as before.

    Args:
        domains: Domain of each record.
        seed: Not negative.
        balance_domains: Whether all domains come equally often.
        draws: Which domains the steps learn from; they come equally often, too.

    Raises:
        ConfigError: The seed is negative.
    """

    def __init__(
        self,
        domains: Sequence[str],
        seed: int,
        balance_domains: bool = False,
        draws: DomainDraws | None = None,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must not be negative, got {seed}")
        self.seed = seed
        self._draws = draws
        by_domain = balance_domains or draws is not None
        self._pools = _pools(domains) if by_domain else [_all(len(domains))]
        self._permutations: list[dict[int, NDArray[np.uint32]]] = [{} for _ in self._pools]

    def record_index(self, position: int, attempt: int = 0) -> int:
        """Return the record at a position.

        Args:
            position: From 0 on.
            attempt: 0, or how many records tried for this position were broken; the replacement is
                the one that comes so many places later in the same permutation.
        """
        pool, turn = self._pool_and_turn(position)
        epoch, place = divmod(turn, len(self._pools[pool]))
        permutation = self._permutation(pool, epoch)
        return int(permutation[(place + attempt) % len(permutation)])

    def num_candidates(self, position: int) -> int:
        """Return how many different records can be tried for a position."""
        return len(self._pools[self._pool_and_turn(position)[0]])

    def sample_rng(self, position: int, attempt: int = 0) -> np.random.Generator:
        """Return the generator for everything random in the sample at a position."""
        return self._rng(_SAMPLE, position, attempt)

    def _pool_and_turn(self, position: int) -> tuple[int, int]:
        """Return which pool a position draws from, and how often it was drawn from before."""
        if self._draws is not None:
            return self._draws.pool_and_turn(position)
        num_pools = len(self._pools)
        cycle, slot = divmod(position, num_pools)
        if num_pools == 1:
            return 0, cycle
        return int(self._rng(_CYCLE, cycle).permutation(num_pools)[slot]), cycle

    def _permutation(self, pool: int, epoch: int) -> NDArray[np.uint32]:
        known = self._permutations[pool]
        if epoch not in known:
            if len(known) == 2:  # batches meet two epochs where one ends
                del known[min(known)]
            known[epoch] = self._rng(_EPOCH, pool, epoch).permutation(self._pools[pool])
        return known[epoch]

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([purpose[0], self.seed, *purpose[1:]])


def _all(num_records: int) -> NDArray[np.uint32]:
    return np.arange(num_records, dtype=np.uint32)


def _pools(domains: Sequence[str]) -> list[NDArray[np.uint32]]:
    """Return the records of each domain, in the order of the domains' names."""
    numbers = np.unique(np.array(domains), return_inverse=True)[1]
    return [np.flatnonzero(numbers == n).astype(np.uint32) for n in range(numbers.max() + 1)]
