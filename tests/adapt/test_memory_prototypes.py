import pytest
import torch

from edgeseg.adapt.memory_prototypes import distill_prototypes, random_prototypes
from edgeseg.adapt.memory_rows import AttentionMemory, MemoryRows
from edgeseg.errors import ConfigError, DataError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def memory_of(keys, values=None):
    """Return a memory of (N, M, E) rows as given."""
    memory = AttentionMemory([f"{n}.png" for n in range(len(keys))], keys.shape[2], keys.shape[1])
    memory.keys.copy_(keys)
    memory.values.copy_(keys if values is None else values)
    memory.written.fill_(True)
    return memory


def used(prototypes):
    """Return (key, value, count) of the prototypes in use, sorted, of rows one number wide."""
    columns = prototypes.keys[0, :, 0], prototypes.values[0, :, 0], prototypes.counts
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return sorted(row for row in rows if row[2] > 0)


def contains_row(tensor, rows):
    """Whether any (R, E) row stands in a tensor as it is."""
    if tensor.ndim == 0 or tensor.shape[-1] != rows.shape[1]:
        return False
    return bool((tensor.reshape(-1, 1, rows.shape[1]) == rows).all(dim=2).any())


def test_a_prototype_is_the_mean_key_and_value_of_a_group_and_its_size():
    keys = torch.tensor([[[0.0]], [[1.0]], [[5.0]], [[10.0]], [[11.0]]])
    values = torch.tensor([[[3.0]], [[6.0]], [[9.0]], [[20.0]], [[40.0]]])

    prototypes = distill_prototypes(memory_of(keys, values), 2, seeded())

    # of 0, 1, 5 and of 10, 11
    assert used(prototypes) == [(2.0, 6.0, 3.0), (10.5, 30.0, 2.0)]
    assert prototypes.keys.shape == prototypes.values.shape == (1, 2, 1)


def test_counts_sum_to_the_number_of_rows():
    keys = torch.randn(20, 3, 4, generator=seeded())

    prototypes = distill_prototypes(memory_of(keys), 16, seeded())

    assert prototypes.counts.sum().item() == 60  # 20 samples of 3 rows


def test_samples_that_were_not_written_do_not_count():
    memory = memory_of(torch.tensor([[[2.0]], [[4.0]], [[99.0]]]))
    memory.written[2] = False

    assert used(distill_prototypes(memory, 1, seeded())) == [(3.0, 3.0, 2.0)]


def test_the_order_of_the_training_set_does_not_matter():
    keys, values = torch.randn(2, 30, 3, 4, generator=seeded())
    order = torch.randperm(30, generator=seeded(1))

    prototypes = distill_prototypes(memory_of(keys, values), 10, seeded(2))
    shuffled = distill_prototypes(memory_of(keys[order], values[order]), 10, seeded(2))

    torch.testing.assert_close(shuffled.keys, prototypes.keys)
    torch.testing.assert_close(shuffled.values, prototypes.values)
    assert torch.equal(shuffled.counts, prototypes.counts)


def test_the_generator_alone_decides_the_prototypes():
    memory = memory_of(torch.randn(30, 3, 4, generator=seeded()))

    first = distill_prototypes(memory, 10, seeded(2))
    torch.manual_seed(77)  # must not matter

    assert torch.equal(distill_prototypes(memory, 10, seeded(2)).keys, first.keys)
    assert not torch.equal(distill_prototypes(memory, 10, seeded(3)).keys, first.keys)


def test_no_prototype_is_a_row_of_one_image():
    memory = memory_of(torch.randn(3, 8, 4, generator=seeded()))  # 24 rows for 64 prototypes
    rows = memory.rows().keys[0]

    assert not contains_row(distill_prototypes(memory, 64, seeded()).keys, rows)
    # what the rule is for: without it every row would go out as it is
    raw = distill_prototypes(memory, 64, seeded(), min_samples=1)
    assert raw.counts.tolist() == [1.0] * 24 + [0.0] * 40
    assert contains_row(raw.keys, rows)


def test_a_group_of_one_image_joins_the_nearest_of_the_others():
    keys = torch.tensor([[[0.0], [10.0]], [[0.5], [10.5]], [[4.0], [4.1]]])

    prototypes = distill_prototypes(memory_of(keys), 3, seeded())

    # 4 and 4.1 are of one image; their group joins 0 and 0.5, whose mean is nearer than 10.25
    assert used(prototypes) == [
        (pytest.approx(2.15), pytest.approx(2.15), 4.0),  # (0 + 0.5 + 4 + 4.1) / 4
        (10.25, 10.25, 2.0),
    ]


def test_a_group_of_two_images_is_too_small_when_three_are_asked_for():
    keys = torch.tensor([[[0.0]], [[1.0]], [[2.0]], [[10.0]], [[11.0]]])

    assert len(used(distill_prototypes(memory_of(keys), 2, seeded(), min_samples=2))) == 2
    assert used(distill_prototypes(memory_of(keys), 2, seeded(), min_samples=3)) == [
        (pytest.approx(4.8), pytest.approx(4.8), 5.0)  # 24 / 5
    ]


def test_there_are_always_as_many_as_asked_for_and_those_not_needed_stand_for_none():
    memory = memory_of(torch.ones(4, 2, 3))

    prototypes = distill_prototypes(memory, 5, seeded())

    assert prototypes.counts.tolist() == [8.0, 0.0, 0.0, 0.0, 0.0]
    assert prototypes.keys.shape == (1, 5, 3)
    assert not prototypes.keys[0, 1:].any()
    assert not prototypes.values[0, 1:].any()


def test_the_memory_is_left_as_it_was():
    memory = memory_of(torch.randn(6, 2, 4, generator=seeded()))
    before = {name: tensor.clone() for name, tensor in memory.state_dict().items()}

    distill_prototypes(memory, 4, seeded())

    assert all(torch.equal(tensor, before[name]) for name, tensor in memory.state_dict().items())


def test_random_prototypes_keep_size_and_counts_and_nothing_else():
    generator = seeded()
    keys = 3 * torch.randn(1, 64, 32, generator=generator)
    values = 7 + torch.randn(1, 64, 32, generator=generator)
    counts = torch.tensor([2.0] * 60 + [0.0] * 4)
    unused = (counts > 0)[:, None]
    prototypes = MemoryRows(keys * unused, values * unused, counts)

    noise = random_prototypes(prototypes, seeded(1))

    assert torch.equal(noise.counts, counts)
    # the deviation of a root mean square of 60 * 32 draws is about 1.6 %
    assert noise.keys[0, :60].square().mean().sqrt().item() == pytest.approx(3, rel=0.08)
    assert noise.values[0, :60].square().mean().sqrt().item() == pytest.approx(50**0.5, rel=0.08)
    assert abs(noise.values[0, :60].mean().item()) < 1  # 7 before
    assert not noise.keys[0, 60:].any()
    assert torch.equal(random_prototypes(prototypes, seeded(1)).values, noise.values)
    assert not torch.equal(random_prototypes(prototypes, seeded(2)).values, noise.values)


@pytest.mark.parametrize(("number", "nearest"), [(0, 1), (65, 64)])
def test_a_number_of_prototypes_out_of_range_is_refused(number, nearest):
    with pytest.raises(ConfigError, match=f"between 1 and 64, got {number}; use {nearest}"):
        distill_prototypes(memory_of(torch.ones(4, 2, 3)), number, seeded())


@pytest.mark.parametrize("min_samples", [0, 5])
def test_prototypes_of_more_samples_than_there_are_are_refused(min_samples):
    with pytest.raises(DataError, match=f"mean of {min_samples} samples, but the memory holds 4"):
        distill_prototypes(memory_of(torch.ones(4, 2, 3)), 4, seeded(), min_samples)


def test_prototypes_of_an_empty_memory_are_refused():
    memory = AttentionMemory(["a", "b"], row_width=3)

    with pytest.raises(DataError, match="but the memory holds 0; write more samples"):
        distill_prototypes(memory, 4, seeded())
