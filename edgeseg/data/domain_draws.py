"""Which domains a step of the training stream learns from, computed and not remembered."""

from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

import numpy as np

from edgeseg.errors import ConfigError

_DRAW = 3
"""First word of every seed; `stream_order` uses 0 to 2."""


class DomainDraw(NamedTuple):
    """A domain that a step learns from.

    Attributes:
        domain: Its number, in the order of the domains' names.
        earlier: How many steps before this one drew it.
    """

    domain: int
    earlier: int


class DomainDraws:
    """Draws D of S domains for every step, at random and in the long run equally often.

    Steps come in rounds of S / gcd(S, D). Each step of a round takes the D domains that the round
    drew least so far, ties broken at random, so no step meets a domain twice and after a round all
    domains have come equally often. A position of the stream is then a function of its number:
    image k of all domains of a step comes before image k + 1 of any, so processes that share a step
    in equal pieces each hold equally many images of every domain.

    Args:
        num_domains: S, all there are.
        domains_a_step: D, from 1 to S.
        images_a_domain: Images of each domain in a step, over all processes.
        seed: Not negative.
    """

    def __init__(
        self, num_domains: int, domains_a_step: int, images_a_domain: int, seed: int
    ) -> None:
        self.num_domains = num_domains
        self.domains_a_step = domains_a_step
        self.images_a_domain = images_a_domain
        self.seed = seed
        self._known: tuple[int, list[tuple[DomainDraw, ...]]] = (-1, [])

    def of_step(self, step: int) -> tuple[DomainDraw, ...]:
        """Return the domains of a step, ascending."""
        steps_a_round = self.num_domains // gcd(self.num_domains, self.domains_a_step)
        number, place = divmod(step, steps_a_round)
        if self._known[0] != number:
            self._known = (number, self._round(number, steps_a_round))
        return self._known[1][place]

    def pool_and_turn(self, position: int) -> tuple[int, int]:
        """Return the domain of a position, and how many of its images came before this one."""
        group, slot = divmod(position, self.domains_a_step)
        step, image = divmod(group, self.images_a_domain)
        draw = self.of_step(step)[slot]
        return draw.domain, draw.earlier * self.images_a_domain + image

    def _round(self, number: int, num_steps: int) -> list[tuple[DomainDraw, ...]]:
        rng = np.random.default_rng([_DRAW, self.seed, number])
        draws_a_round = num_steps * self.domains_a_step // self.num_domains
        counts = np.full(self.num_domains, number * draws_a_round)
        steps = []
        for _ in range(num_steps):
            least = np.lexsort((rng.random(self.num_domains), counts))[: self.domains_a_step]
            chosen = np.sort(least)
            steps.append(tuple(DomainDraw(int(d), int(counts[d])) for d in chosen))
            counts[chosen] += 1
        return steps


def plan_draws(
    domains: Sequence[str],
    domains_a_step: int | None,
    batch_size: int,
    seed: int,
    world_size: int = 1,
) -> DomainDraws | None:
    """Return which domains the steps of a stage learn from.

    Args:
        domains: Domain of each record.
        domains_a_step: As many domains a step, or None for all.
        batch_size: Images of a step, over all processes.
        seed: Not negative.
        world_size: Number of processes.

    Returns:
        The draws, or None for all domains: a balanced stream cycles over them as it is, so plain
        steps and these see the same images.

    Raises:
        ConfigError: The data has fewer domains than that, or the batch cannot be shared out evenly
            over domains and processes.
    """
    known = sorted(set(domains))
    num_drawn = len(known) if domains_a_step is None else domains_a_step
    if num_drawn > len(known):
        raise ConfigError(
            f"flat_minima.domains_a_step is {num_drawn}, but the training data has {len(known)} "
            f"domains ({', '.join(known)}); lower it or leave it out for all of them"
        )
    if batch_size % (num_drawn * world_size):
        raise ConfigError(
            f"with [flat_minima] the batch size must be a multiple of domains times processes, got "
            f"{batch_size} images for {num_drawn} domains and {world_size} processes; change "
            "batch_size or flat_minima.domains_a_step"
        )
    if num_drawn == len(known):
        return None
    return DomainDraws(len(known), num_drawn, batch_size // num_drawn, seed)
