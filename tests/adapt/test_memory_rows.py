import io
import random

import pytest
import torch

from edgeseg.adapt.memory_rows import AttentionMemory, MemoryRows
from edgeseg.errors import ConfigError, DataError, DivergedError, WeightsError

NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tokens(*numbers):
    """Return one image's (1, N, 1) tokens."""
    return torch.tensor(numbers)[None, :, None]


def written_memory(names=NAMES, rows_per_sample=2):
    """Return a memory whose rows are the number of their sample and a bit more."""
    memory = AttentionMemory(names, row_width=1, rows_per_sample=rows_per_sample)
    for number, name in enumerate(names):
        facts = number + torch.arange(rows_per_sample)[None, :, None] / (2 * rows_per_sample)
        memory.write([name], facts, facts)
    return memory


def stored(memory, number):
    """Return keys and values of a sample with one number a row, sorted by key."""
    columns = memory.keys[number, :, 0], memory.values[number, :, 0]
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def test_a_sample_never_gets_its_own_rows_and_none_twice():
    memory = written_memory()
    draw = random.Random(0)

    for seed in range(300):
        batch = draw.choices(range(5), k=draw.randint(1, 6))  # may hold a sample twice
        num_rows = draw.randint(1, 12)

        rows = memory.retrieve([NAMES[number] for number in batch], num_rows, seeded(seed))

        assert rows.keys.shape == (len(batch), min(num_rows, 8), 1)  # 4 others of 2 rows
        for number, keys in zip(batch, rows.keys[:, :, 0].tolist(), strict=True):
            assert number not in [int(key) for key in keys]
            assert len(set(keys)) == len(keys)


def test_every_row_of_the_others_is_drawn_equally_often():
    memory = written_memory()

    draws = [memory.retrieve(["c.jpg"], 2, seeded(seed)).keys.flatten() for seed in range(2000)]

    drawn, times = torch.cat(draws).unique(return_counts=True)
    assert drawn.tolist() == [0.0, 0.25, 1.0, 1.25, 3.0, 3.25, 4.0, 4.25]
    assert times.min() > 400  # of 4000 draws of 8 rows 500 each; their deviation is about 20
    assert times.max() < 600


def test_values_are_those_of_the_drawn_keys():
    memory = AttentionMemory(NAMES, row_width=1, rows_per_sample=1)
    for number, name in enumerate(NAMES):
        memory.write([name], tokens(float(number)), tokens(10.0 * number))

    rows = memory.retrieve(["b.jpg", "e.jpg"], 3, seeded())

    assert torch.equal(rows.values, 10 * rows.keys)
    assert rows.counts.tolist() == [1.0, 1.0, 1.0]


def test_rows_that_were_not_written_are_not_drawn():
    memory = AttentionMemory(NAMES, row_width=1, rows_per_sample=1)
    memory.write(["b.jpg"], tokens(7.0), tokens(7.0))
    memory.write(["d.jpg"], tokens(8.0), tokens(8.0))

    rows = memory.retrieve(["a.jpg", "b.jpg"], 9, seeded())

    # a.jpg could have two; as many as the image with the fewest are drawn for all
    assert rows.keys.shape == (2, 1, 1)
    assert rows.keys[1].item() == 8.0


@pytest.mark.parametrize("batch", [["b.jpg"], ["a.jpg", "b.jpg"]])
def test_there_is_no_memory_for_a_step_in_which_a_sample_could_only_see_itself(batch):
    memory = AttentionMemory(NAMES, row_width=1)
    assert memory.retrieve(batch, 4, seeded()) is None

    memory.write(["b.jpg"], tokens(7.0), tokens(7.0))

    assert memory.retrieve(batch, 4, seeded()) is None
    assert memory.retrieve(["a.jpg"], 4, seeded()) is not None


def test_draws_depend_on_the_generator_alone():
    memory = written_memory()
    first = memory.retrieve(NAMES, 4, seeded(5))
    torch.manual_seed(77)  # must not matter

    again = memory.retrieve(NAMES, 4, seeded(5))

    assert torch.equal(again.keys, first.keys)
    assert not torch.equal(memory.retrieve(NAMES, 4, seeded(6)).keys, first.keys)


def test_images_of_a_batch_draw_different_rows():
    keys = written_memory().retrieve(["a.jpg", "a.jpg"], 4, seeded()).keys

    assert not torch.equal(keys[0].sort(dim=0).values, keys[1].sort(dim=0).values)


def test_the_first_write_copies():
    memory = AttentionMemory(NAMES, row_width=3, rows_per_sample=1, decay=0.9)
    key, value = torch.randn(2, 1, 1, 3, generator=seeded())

    memory.write(["b.jpg"], key, value)

    assert torch.equal(memory.keys[1], key[0])
    assert torch.equal(memory.values[1], value[0])
    assert memory.written.tolist() == [False, True, False, False, False]


def test_later_writes_average_with_what_is_stored():
    memory = AttentionMemory(NAMES, row_width=1, rows_per_sample=1, decay=0.75)
    memory.write(["b.jpg"], tokens(8.0), tokens(80.0))

    memory.write(["b.jpg"], tokens(4.0), tokens(0.0))
    assert stored(memory, 1) == [(7.0, 60.0)]  # 3/4 * 8 + 1/4 * 4 and 3/4 * 80

    memory.write(["b.jpg"], tokens(3.0), tokens(20.0))
    assert stored(memory, 1) == [(6.0, 50.0)]  # 3/4 * 7 + 1/4 * 3 and 3/4 * 60 + 1/4 * 20


def test_a_row_is_the_mean_key_and_value_of_alike_tokens():
    memory = AttentionMemory(NAMES, row_width=1, rows_per_sample=2)

    memory.write(["a.jpg"], tokens(0.0, 9.0, 1.0, 2.0), tokens(10.0, 50.0, 20.0, 60.0))

    assert stored(memory, 0) == [(1.0, 30.0), (9.0, 50.0)]  # of 0, 1, 2 and 10, 20, 60


def test_a_later_view_is_sorted_into_the_stored_groups_wherever_its_tokens_stand():
    memory = AttentionMemory(NAMES, row_width=1, rows_per_sample=2, decay=0.5)
    memory.write(["a.jpg"], tokens(0.0, 10.0), tokens(1.0, 2.0))

    memory.write(["a.jpg"], tokens(12.0, 2.0, 4.0), tokens(6.0, 3.0, 7.0))  # as if flipped

    # halfway from 0 to 3, the mean of 2 and 4, and from 1 to 5; from 10 to 12 and from 2 to 6
    assert stored(memory, 0) == [(1.5, 3.0), (11.0, 4.0)]


def test_a_row_that_a_view_says_nothing_about_stays():
    memory = AttentionMemory(NAMES, row_width=1, rows_per_sample=2, decay=0.5)
    memory.write(["a.jpg"], tokens(0.0, 10.0), tokens(1.0, 2.0))

    memory.write(["a.jpg"], tokens(2.0), tokens(3.0))

    assert stored(memory, 0) == [(1.0, 2.0), (10.0, 2.0)]


def test_an_image_with_fewer_different_tokens_repeats_them():
    memory = AttentionMemory(NAMES, row_width=1, rows_per_sample=3)

    memory.write(["a.jpg"], tokens(4.0, 4.0), tokens(1.0, 3.0))

    assert stored(memory, 0) == [(4.0, 2.0)] * 3


def test_a_flipped_image_has_the_rows_of_the_image():
    memory = AttentionMemory(NAMES, row_width=4, rows_per_sample=3)
    grid = torch.randn(1, 5, 6, 4, generator=seeded())

    memory.write(["a.jpg"], grid.flatten(1, 2), grid.flatten(1, 2))
    memory.write(["b.jpg"], grid.flip(2).flatten(1, 2), grid.flip(2).flatten(1, 2))

    torch.testing.assert_close(memory.keys[1], memory.keys[0])


def test_the_order_of_a_batch_does_not_matter():
    facts = torch.randn(5, 6, 3, generator=seeded())
    one, other = (AttentionMemory(NAMES, row_width=3, rows_per_sample=2) for _ in range(2))
    order = [3, 0, 4, 1, 2]

    for _ in range(2):
        one.write(NAMES, facts, -facts)
        other.write([NAMES[number] for number in order], facts[order], -facts[order])

    assert torch.equal(one.keys, other.keys)
    assert torch.equal(one.values, -one.keys)


def test_tokens_on_padding_are_left_out():
    memory = AttentionMemory(NAMES, row_width=1, rows_per_sample=1)
    keys = torch.tensor([[1.0, 3.0, 99.0], [5.0, 6.0, 7.0]])[:, :, None]
    content = torch.tensor([[True, True, False], [False, False, False]])

    memory.write(["a.jpg", "b.jpg"], keys, keys, content)

    assert memory.keys[:2, 0, 0].tolist() == [2.0, 6.0]  # an image of padding only is taken whole


def test_a_name_twice_in_a_batch_is_a_first_and_a_later_write():
    memory = AttentionMemory(NAMES, row_width=1, rows_per_sample=1, decay=0.5)

    memory.write(["a.jpg", "a.jpg"], torch.tensor([[[2.0]], [[4.0]]]), torch.zeros(2, 1, 1))

    assert stored(memory, 0) == [(3.0, 0.0)]


def test_nothing_of_the_memory_carries_a_gradient():
    memory = AttentionMemory(NAMES, row_width=1, rows_per_sample=1)
    weight = torch.ones(1, requires_grad=True)

    for _ in range(2):  # copied and averaged
        memory.write(NAMES, weight * torch.ones(5, 3, 1), weight * torch.ones(5, 3, 1))

    assert list(memory.parameters()) == []
    assert not any(buffer.requires_grad for buffer in memory.buffers())
    for rows in (memory.retrieve(NAMES, 2, seeded()), memory.rows()):
        assert not rows.keys.requires_grad
        assert not rows.values.requires_grad


@pytest.mark.parametrize("kind", ["retrieve", "rows"])
def test_rows_that_were_handed_out_do_not_change_with_the_memory(kind):
    memory = written_memory()
    rows = memory.rows() if kind == "rows" else memory.retrieve(NAMES, 4, seeded())
    keys, values = rows.keys.clone(), rows.values.clone()

    memory.write(NAMES, torch.full((5, 2, 1), 9.0), torch.full((5, 2, 1), 9.0))

    assert torch.equal(rows.keys, keys)
    assert torch.equal(rows.values, values)


def test_all_rows_are_those_of_the_written_samples():
    memory = AttentionMemory(NAMES, row_width=1, rows_per_sample=2)
    memory.write(["d.jpg"], tokens(1.0, 2.0), tokens(3.0, 4.0))
    memory.write(["b.jpg"], tokens(5.0, 6.0), tokens(7.0, 8.0))

    rows = memory.rows()

    assert rows.keys.shape == rows.values.shape == (1, 4, 1)
    by_sample = dict(zip([1, 3], rows.keys[0, :, 0].split(2), strict=True))
    assert sorted(by_sample[1].tolist()) == [5.0, 6.0]
    assert sorted(by_sample[3].tolist()) == [1.0, 2.0]
    assert memory.row_samples().tolist() == [1, 1, 3, 3]
    assert rows.counts.tolist() == [1.0] * 4


def test_a_memory_is_restored_from_its_state_also_in_another_order_of_the_names():
    memory = written_memory()
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)

    restored = AttentionMemory(NAMES[::-1], row_width=1, rows_per_sample=2)
    restored.load_state_dict(torch.load(file, weights_only=True))

    assert sorted(memory.state_dict()) == ["keys", "sample_hashes", "values", "written"]
    batch = ["e.jpg", "b.jpg"]
    expected, rows = (m.retrieve(batch, 3, seeded(4)) for m in (memory, restored))
    assert torch.equal(rows.keys, expected.keys)
    assert torch.equal(rows.values, expected.values)
    restored.write(["b.jpg"], tokens(1.0, 1.25), tokens(1.0, 1.25))  # an average of equals
    torch.testing.assert_close(restored.rows().keys, memory.rows().keys)


def test_a_memory_of_other_samples_is_refused():
    memory = written_memory()

    other = AttentionMemory([*NAMES[:4], "new.jpg"], row_width=1, rows_per_sample=2)
    with pytest.raises(WeightsError, match=r"4 of 5 are known to it; resume with the samples"):
        other.load_state_dict(memory.state_dict())
    fewer = AttentionMemory(NAMES[:4], row_width=1, rows_per_sample=2)
    with pytest.raises(WeightsError, match="of other training samples"):
        fewer.load_state_dict(memory.state_dict())
    assert not other.written.any()


def test_a_memory_of_another_shape_is_refused():
    other = AttentionMemory(NAMES, row_width=1, rows_per_sample=3)

    with pytest.raises(WeightsError, match=r"2 rows a sample of width 1, expected 3 of 1"):
        other.load_state_dict(written_memory().state_dict())


def test_a_damaged_state_is_named_by_torch():
    state = written_memory().state_dict()
    del state["keys"], state["sample_hashes"]

    with pytest.raises(RuntimeError, match="Missing key"):
        AttentionMemory(NAMES, row_width=1, rows_per_sample=2).load_state_dict(state)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg"], r"at least 2 samples, since none attends to its own rows, got 1; add images"),
        ([], "got 0; add images"),
        (["a.jpg", "b.jpg", "a.jpg"], "got 3 names, 2 of them different; use paths"),
    ],
)
def test_names_that_make_no_memory_are_refused(names, message):
    with pytest.raises(DataError, match=message):
        AttentionMemory(names, row_width=4)


@pytest.mark.parametrize(
    "settings", [{"row_width": 0}, {"rows_per_sample": 0}, {"decay": 1.0}, {"decay": -0.1}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=r"decay in \[0, 1\), got .*; try 64, 8 and 0.9"):
        AttentionMemory(NAMES, **({"row_width": 4} | settings))


def test_an_unknown_sample_is_refused():
    memory = written_memory()

    with pytest.raises(DataError, match=r"'x.jpg' is none of the memory's 5 samples"):
        memory.retrieve(["a.jpg", "x.jpg"], 4, seeded())
    with pytest.raises(DataError, match=r"'x.jpg' is none of the memory's 5 samples"):
        memory.write(["x.jpg"], tokens(1.0), tokens(1.0))


@pytest.mark.parametrize("shape", [(2, 4, 1), (1, 4, 2), (4, 1)])
def test_tokens_of_another_shape_are_refused(shape):
    with pytest.raises(DataError, match=r"must be \(1, N, 1\) for 1 names, got"):
        written_memory().write(["a.jpg"], torch.zeros(shape), torch.zeros(shape))


def test_keys_without_values_are_refused():
    with pytest.raises(DataError, match=r"got \(1, 4, 1\) and \(1, 3, 1\)"):
        written_memory().write(["a.jpg"], torch.zeros(1, 4, 1), torch.zeros(1, 3, 1))


@pytest.mark.parametrize("broken", ["keys", "values"])
def test_tokens_that_are_not_finite_are_refused_and_nothing_is_stored(broken):
    memory = written_memory()
    before = memory.keys.clone()
    facts = {"keys": torch.ones(2, 2, 1), "values": torch.ones(2, 2, 1)}
    facts[broken][1, 0, 0] = float("nan")

    with pytest.raises(DivergedError, match="lower learning_rate and resume"):
        memory.write(["a.jpg", "b.jpg"], **facts)

    assert torch.equal(memory.keys, before)


def test_rows_of_an_empty_memory_are_refused():
    with pytest.raises(DataError, match="holds no rows; write the training samples"):
        AttentionMemory(NAMES, row_width=1).rows()


def test_log_counts_of_rows_that_stand_for_none_leave_no_weight():
    rows = MemoryRows(torch.zeros(1, 3, 1), torch.zeros(1, 3, 1), torch.tensor([1.0, 0.0, 4.0]))

    assert rows.log_counts.tolist() == pytest.approx([0.0, -1e4, 1.3862944])  # ln 4
    assert rows.uncounted().counts.tolist() == [1.0, 0.0, 1.0]
