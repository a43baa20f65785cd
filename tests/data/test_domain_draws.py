from collections import Counter

import pytest

from edgeseg.data.domain_draws import DomainDraws, plan_draws
from edgeseg.data.stream_order import StreamOrder
from edgeseg.errors import ConfigError

DOMAINS = ["a"] * 2 + ["b"] * 5 + ["c"] * 3 + ["d"] * 4


@pytest.mark.parametrize(("num_domains", "a_step"), [(4, 3), (5, 2), (6, 4), (3, 1), (4, 2)])
def test_no_step_meets_a_domain_twice_and_all_come_equally_often(num_domains, a_step):
    draws = DomainDraws(num_domains, a_step, 2, seed=0)
    counts = Counter()

    for step in range(60):  # 60 is a multiple of every round here
        found = draws.of_step(step)
        assert [draw.earlier for draw in found] == [counts[draw.domain] for draw in found]
        counts.update(draw.domain for draw in found)
        assert len({draw.domain for draw in found}) == a_step
        assert max(counts.values()) - min(counts[d] for d in range(num_domains)) <= 1

    assert set(counts.values()) == {60 * a_step // num_domains}


def test_draws_are_random_and_made_by_the_seed():
    steps = [DomainDraws(5, 2, 1, seed=0).of_step(step) for step in range(40)]
    pairs = {tuple(draw.domain for draw in step) for step in steps}

    assert len(pairs) == 10  # all pairs of five
    assert steps == [DomainDraws(5, 2, 1, seed=0).of_step(step) for step in range(40)]
    assert steps != [DomainDraws(5, 2, 1, seed=1).of_step(step) for step in range(40)]


def test_any_step_can_be_asked_first():
    expected = [DomainDraws(5, 2, 1, seed=0).of_step(step) for step in range(40)]
    fresh = DomainDraws(5, 2, 1, seed=0)

    assert [fresh.of_step(step) for step in reversed(range(40))] == expected[::-1]


def test_a_step_holds_as_many_images_of_each_of_its_domains_in_every_equal_piece():
    order = StreamOrder(DOMAINS, 0, draws=DomainDraws(4, 3, 2, seed=0))

    for step in range(20):
        drawn = [DOMAINS[order.record_index(6 * step + k)] for k in range(6)]
        assert sorted(drawn[:3]) == sorted(drawn[3:])
        assert len(set(drawn[:3])) == 3


def test_every_domain_goes_through_its_own_records_evenly():
    order = StreamOrder(DOMAINS, 0, draws=DomainDraws(4, 3, 2, seed=0))
    counts = Counter(order.record_index(position) for position in range(480))  # 120 a domain

    assert [counts[k] for k in range(14)] == [60] * 2 + [24] * 5 + [40] * 3 + [30] * 4


def test_replacements_are_of_the_same_domain():
    order = StreamOrder(DOMAINS, 0, draws=DomainDraws(4, 3, 2, seed=0))

    for position in range(24):
        tried = [order.record_index(position, k) for k in range(order.num_candidates(position))]
        assert len(set(tried)) == len(tried) == DOMAINS.count(DOMAINS[tried[0]])
        assert len({DOMAINS[index] for index in tried}) == 1


def test_all_domains_need_no_draws_because_balanced_streams_cycle_over_them():
    order = StreamOrder(DOMAINS, 0, balance_domains=True)

    assert plan_draws(DOMAINS, None, 8, seed=0) is None
    assert plan_draws(DOMAINS, 4, 16, seed=0, world_size=4) is None
    for first in range(0, 80, 4):  # the share of one of two processes
        drawn = [DOMAINS[order.record_index(first + k)] for k in range(4)]
        assert sorted(drawn) == ["a", "b", "c", "d"]


def test_fewer_domains_are_planned_with_the_images_of_all_processes():
    draws = plan_draws(DOMAINS, 3, 12, seed=7, world_size=2)

    assert (draws.num_domains, draws.domains_a_step, draws.images_a_domain) == (4, 3, 4)
    assert draws.seed == 7


@pytest.mark.parametrize(
    ("a_step", "batch_size", "world_size", "message"),
    [
        (5, 10, 1, r"domains_a_step is 5, but the training data has 4 domains \(a, b, c, d\); low"),
        (None, 6, 1, "got 6 images for 4 domains and 1 processes; change batch_size or flat_mini"),
        (3, 9, 2, "got 9 images for 3 domains and 2 processes"),
    ],
)
def test_steps_that_domains_cannot_share_are_refused(a_step, batch_size, world_size, message):
    with pytest.raises(ConfigError, match=message):
        plan_draws(DOMAINS, a_step, batch_size, 0, world_size)
