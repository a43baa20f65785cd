from collections import Counter

import pytest

from edgeseg.data.stream_order import StreamOrder
from edgeseg.errors import ConfigError

DOMAINS = ["a"] * 2 + ["b"] * 5 + ["c"] * 3


def indices(order, start, stop):
    return [order.record_index(position) for position in range(start, stop)]


def test_every_epoch_visits_every_record_once_in_its_own_order():
    order = StreamOrder(DOMAINS, seed=0)

    epochs = [indices(order, 10 * k, 10 * k + 10) for k in range(3)]

    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_the_seed_makes_the_order():
    assert indices(StreamOrder(DOMAINS, 1), 0, 20) == indices(StreamOrder(DOMAINS, 1), 0, 20)
    assert indices(StreamOrder(DOMAINS, 1), 0, 20) != indices(StreamOrder(DOMAINS, 2), 0, 20)


@pytest.mark.parametrize("balance", [False, True])
def test_any_position_can_be_asked_first(balance):
    expected = indices(StreamOrder(DOMAINS, 0, balance), 0, 200)

    fresh = StreamOrder(DOMAINS, 0, balance)

    assert [fresh.record_index(p) for p in reversed(range(200))] == expected[::-1]
    assert StreamOrder(DOMAINS, 0, balance).record_index(137) == expected[137]


def test_balanced_cycles_hold_every_domain_once_in_changing_order():
    order = StreamOrder(DOMAINS, 0, balance_domains=True)
    drawn = [DOMAINS[index] for index in indices(order, 0, 90)]

    cycles = [tuple(drawn[k : k + 3]) for k in range(0, 90, 3)]

    assert all(sorted(cycle) == ["a", "b", "c"] for cycle in cycles)
    assert len(set(cycles)) == 6  # all orders of three come up in thirty cycles


def test_every_domain_goes_through_its_own_records_evenly():
    order = StreamOrder(DOMAINS, 0, balance_domains=True)
    counts = Counter(indices(order, 0, 90))  # 30 draws a domain

    assert [counts[k] for k in range(10)] == [15] * 2 + [6] * 5 + [10] * 3
    of_b = [index for index in indices(order, 0, 90) if DOMAINS[index] == "b"]
    assert sorted(of_b[:5]) == sorted(of_b[5:10]) == [2, 3, 4, 5, 6]
    assert of_b[:5] != of_b[5:10]


@pytest.mark.parametrize("balance", [False, True])
def test_replacements_are_different_records_of_the_same_domain_when_balanced(balance):
    order = StreamOrder(DOMAINS, 0, balance)
    for position in range(30):
        tried = [order.record_index(position, k) for k in range(order.num_candidates(position))]
        assert len(set(tried)) == len(tried)
        if balance:
            assert len({DOMAINS[index] for index in tried}) == 1
            assert len(tried) == DOMAINS.count(DOMAINS[tried[0]])
        else:
            assert len(tried) == 10


def test_samples_have_random_numbers_of_their_own():
    order, other = StreamOrder(DOMAINS, 0), StreamOrder(DOMAINS, 1)
    keys = [(position, attempt) for position in range(20) for attempt in range(3)]

    numbers = {order.sample_rng(*key).random() for key in keys}

    assert len(numbers) == 60
    assert order.sample_rng(5, 1).random() == StreamOrder(DOMAINS, 0).sample_rng(5, 1).random()
    assert order.sample_rng(5).random() != other.sample_rng(5).random()


def test_a_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="seed must not be negative, got -1"):
        StreamOrder(DOMAINS, -1)
