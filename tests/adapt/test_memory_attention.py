import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgeseg.adapt.memory_attention import MemoryAttention, PrototypeAttention
from edgeseg.adapt.memory_prototypes import distill_prototypes
from edgeseg.adapt.memory_rows import AttentionMemory, MemoryRows
from edgeseg.distill.optimization import WeightAverage
from edgeseg.errors import ConfigError, DataError

BOTH = pytest.mark.parametrize("attends_own", [False, True])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trained_block(width=6, num_heads=2, head_width=3, **settings):
    """Return a block whose every weight matters, as training would make it."""
    torch.manual_seed(0)
    block = MemoryAttention(width, num_heads, head_width, **settings)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    return block


def random_rows(num_images=1, num_rows=5, width=6, counts=None):
    keys, values = torch.randn(2, num_images, num_rows, width, generator=seeded(1))
    return MemoryRows(keys, values, torch.ones(num_rows) if counts is None else counts)


def embeddings(num_images=2, width=6):
    return torch.randn(num_images, width, 3, 4, generator=seeded(2))


def by_torch(block, embedding, keys, values):
    """Answer with torch's own attention, without counts; keys and values are (B, R, E)."""
    reader = block.reader
    tokens = F.layer_norm(
        embedding.flatten(2).mT, (block.width,), reader.norm.weight, reader.norm.bias
    )
    heads = [
        F.scaled_dot_product_attention(*parts)
        for parts in zip(
            *(x.chunk(reader.num_heads, dim=2) for x in (reader.q_proj(tokens), keys, values)),
            strict=True,
        )
    ]
    answers = torch.cat(heads, dim=2) @ reader.out_proj.weight.T * reader.gate
    return embedding + answers.mT.reshape(embedding.shape)


def passing_block(width=4):
    """Return a block that asks nothing and adds the mean value of the rows as it is."""
    block = MemoryAttention(width, num_heads=1, head_width=width)
    with torch.no_grad():
        block.reader.q_proj.weight.zero_()
        block.reader.out_proj.weight.copy_(torch.eye(width))
        block.reader.gate.fill_(1.0)
    return block


def memory_of(keys, values):
    memory = AttentionMemory([f"{n}.png" for n in range(len(keys))], keys.shape[2], keys.shape[1])
    memory.keys.copy_(keys)
    memory.values.copy_(values)
    memory.written.fill_(True)
    return memory


@BOTH
@pytest.mark.parametrize("width", [256, 128, 32])
def test_an_untrained_block_changes_no_bit(width, attends_own):
    torch.manual_seed(0)
    block = MemoryAttention(width, attends_own=attends_own)
    embedding = embeddings(width=width)
    rows = random_rows(num_images=2, width=block.row_width)
    prototypes = random_rows(width=block.row_width)

    assert torch.equal(block(embedding, rows), embedding)
    assert torch.equal(PrototypeAttention.distilled(block, prototypes)(embedding), embedding)


def test_the_memory_format_of_the_embedding_is_kept():
    embedding = embeddings().to(memory_format=torch.channels_last)

    answer = trained_block()(embedding, random_rows())

    assert answer.is_contiguous(memory_format=torch.channels_last)


def test_each_image_attends_to_its_own_rows_as_torch_does():
    block, embedding, rows = trained_block(), embeddings(), random_rows(num_images=2)

    expected = by_torch(block, embedding, rows.keys, rows.values)

    torch.testing.assert_close(block(embedding, rows), expected)


def test_rows_without_images_are_the_same_for_all():
    block, embedding, rows = trained_block(), embeddings(), random_rows(num_images=1)

    expected = by_torch(block, embedding, rows.keys.repeat(2, 1, 1), rows.values.repeat(2, 1, 1))

    torch.testing.assert_close(block(embedding, rows), expected)


def test_a_row_that_counts_n_times_is_n_equal_rows():
    block, embedding = trained_block(), embeddings()
    times = torch.tensor([1, 7, 2, 30, 1])
    rows = random_rows(num_images=2, counts=times.float())
    repeated = (x.repeat_interleave(times, dim=1) for x in (rows.keys, rows.values))

    expected = by_torch(block, embedding, *repeated)

    torch.testing.assert_close(block(embedding, rows), expected)
    difference = (block(embedding, rows.uncounted()) - expected).abs().max()
    assert difference > 0.1  # visibly wrong without the counts


def test_three_rows_that_became_one_prototype_keep_three_quarters_of_the_attention():
    keys = torch.tensor([[1.0, 0, 0, 0]] * 3 + [[0, 0, 0, 5.0]])[:, None]
    values = torch.tensor([[8.0, 0, 0, 0]] * 3 + [[0, 4.0, 0, 0]])[:, None]
    memory = memory_of(keys, values)
    block, embedding = passing_block(), torch.zeros(1, 4, 1, 1)

    prototypes = distill_prototypes(memory, 2, seeded(), min_samples=1)
    distilled = PrototypeAttention.distilled(block, prototypes)

    # it asks nothing, so all rows weigh the same: (3 * 8 + 0) / 4 and (0 + 4) / 4
    full = block(embedding, memory.rows())
    assert full.flatten().tolist() == pytest.approx([6.0, 1.0, 0.0, 0.0])
    assert distilled(embedding).flatten().tolist() == pytest.approx([6.0, 1.0, 0.0, 0.0])
    # without the counts each of the two has half: 8 / 2 and 4 / 2
    uncounted = PrototypeAttention.distilled(block, prototypes.uncounted())
    assert uncounted(embedding).flatten().tolist() == pytest.approx([4.0, 2.0, 0.0, 0.0])


@BOTH
def test_prototypes_of_equal_rows_answer_like_the_whole_memory(attends_own):
    block, embedding = trained_block(attends_own=attends_own), embeddings()
    kinds_keys, kinds_values = torch.randn(2, 3, 6, generator=seeded(3))
    kind_of_row = torch.tensor([[0, 1], [0, 0], [2, 0], [1, 0], [2, 0]])  # 6, 2 and 2 rows
    memory = memory_of(kinds_keys[kind_of_row], kinds_values[kind_of_row])

    prototypes = distill_prototypes(memory, 8, seeded())

    assert sorted(prototypes.counts.tolist()) == [0.0] * 5 + [2.0, 2.0, 6.0]
    expected = block(embedding, memory.rows())
    answer = PrototypeAttention.distilled(block, prototypes)(embedding)
    torch.testing.assert_close(answer, expected)
    uncounted = PrototypeAttention.distilled(block, prototypes.uncounted())(embedding)
    assert (uncounted - expected).abs().max() > 0.05


def test_rows_that_stand_for_none_have_no_say():
    block, embedding = trained_block(), embeddings()
    rows = random_rows(counts=torch.tensor([2.0, 1.0, 3.0, 0.0, 0.0]))
    first = MemoryRows(rows.keys[:, :3], rows.values[:, :3], rows.counts[:3])

    torch.testing.assert_close(block(embedding, rows), block(embedding, first))


def test_tokens_may_attend_to_their_own_image_and_the_rows_in_one_softmax():
    block, embedding = trained_block(attends_own=True), embeddings()
    rows = random_rows(num_images=2)
    own_keys, own_values = block.facts(embedding)
    together = torch.cat([own_keys, rows.keys], dim=1), torch.cat([own_values, rows.values], dim=1)

    torch.testing.assert_close(block(embedding, rows), by_torch(block, embedding, *together))
    alone = by_torch(block, embedding, own_keys, own_values)
    torch.testing.assert_close(block(embedding), alone)


def test_without_a_memory_the_embedding_is_returned_as_it_is():
    embedding = embeddings()

    assert trained_block()(embedding) is embedding


def test_facts_are_projections_of_tokens_after_the_norm_of_the_queries_and_have_no_history():
    block = trained_block(attends_own=True, learns_projections=True)
    embedding = embeddings().requires_grad_()

    keys, values = block.facts(embedding)

    reader, projections = block.reader, block.projections
    token = F.layer_norm(embedding[1, :, 2, 1], (6,), reader.norm.weight, reader.norm.bias)
    cell = 2 * 4 + 1  # row 2, column 1 of four columns
    torch.testing.assert_close(keys[1, cell], projections.k_proj.weight @ token)
    torch.testing.assert_close(values[1, cell], projections.v_proj.weight @ token)
    assert keys.shape == values.shape == (2, 12, 6)
    assert not keys.requires_grad
    assert not values.requires_grad


def test_tokens_ask_for_their_like_before_any_training():
    torch.manual_seed(0)
    block = MemoryAttention(32)

    assert torch.equal(block.reader.q_proj.weight, block.projections.k_proj.weight)
    gram = block.projections.v_proj.weight.T @ block.projections.v_proj.weight
    torch.testing.assert_close(gram, torch.eye(32))  # 64 rows: distances are kept


def training_step(block, memory, names, embedding):
    """Take one step of a loss that wants the answer somewhere else; return the loss."""
    optimizer = torch.optim.SGD([p for p in block.parameters() if p.requires_grad], lr=0.1)
    rows = memory.retrieve(names, 6, seeded())
    loss = (block(embedding, rows) - torch.linspace(-1, 1, 12).view(1, 1, 3, 4)).square().mean()
    memory.write(names, *block.facts(embedding))  # between forward and backward it does no harm
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def filled_memory(block, names, embedding):
    memory = AttentionMemory(names, block.row_width, rows_per_sample=2)
    memory.write(names, *block.facts(embedding))
    return memory


def test_training_moves_the_gate_at_once_and_then_all_that_may_learn():
    torch.manual_seed(0)
    block, names, embedding = MemoryAttention(6, 2, 3), ["a", "b"], embeddings()
    memory = filled_memory(block, names, embedding)
    before = copy.deepcopy(block.state_dict())

    losses = [training_step(block, memory, names, embedding) for _ in range(30)]

    changed = {name for name, t in block.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"reader.gate", "reader.q_proj.weight", "reader.out_proj.weight"}
    assert losses[-1] < losses[1] < losses[0]


def test_frozen_projections_keep_the_rows_of_a_frozen_encoder_as_they_are():
    torch.manual_seed(0)
    block, names, embedding = MemoryAttention(6, 2, 3), ["a", "b"], embeddings()
    memory = filled_memory(block, names, embedding)
    keys, values = memory.keys.clone(), memory.values.clone()

    for _ in range(5):
        training_step(block, memory, names, embedding)

    torch.testing.assert_close(memory.keys, keys)
    torch.testing.assert_close(memory.values, values)


def test_projections_learn_through_the_tokens_of_their_own_image():
    torch.manual_seed(0)
    block = MemoryAttention(6, 2, 3, attends_own=True, learns_projections=True)
    names, embedding = ["a", "b"], embeddings()
    memory = filled_memory(block, names, embedding)
    before = copy.deepcopy(block.state_dict())

    for _ in range(3):
        training_step(block, memory, names, embedding)

    state = block.state_dict()
    assert all(not torch.equal(tensor, before[name]) for name, tensor in state.items())


def test_projections_that_no_gradient_reaches_are_refused():
    with pytest.raises(ConfigError, match="learns_projections needs attends_own: .* set it, or"):
        MemoryAttention(6, learns_projections=True)


def test_the_memory_is_no_part_of_the_block_nor_of_its_moving_average():
    block, names, embedding = trained_block(), ["a", "b"], embeddings()
    memory = filled_memory(block, names, embedding)

    training_step(block, memory, names, embedding)

    assert not any(isinstance(module, AttentionMemory) for module in block.modules())
    assert set(WeightAverage(block, 0.9).state) == {
        "projections.k_proj.weight",
        "projections.v_proj.weight",
        "reader.gate",
        "reader.norm.bias",
        "reader.norm.weight",
        "reader.out_proj.weight",
        "reader.q_proj.weight",
    }


@BOTH
def test_distilled_attention_is_attention_to_the_prototypes(attends_own):
    block, embedding = trained_block(attends_own=attends_own), embeddings()
    prototypes = random_rows(counts=torch.tensor([2.0, 1.0, 3.0, 9.0, 0.0]))

    distilled = PrototypeAttention.distilled(block, prototypes)

    assert torch.equal(distilled(embedding), block(embedding, prototypes))
    assert not distilled.training
    assert not any(parameter.requires_grad for parameter in distilled.parameters())
    assert ("projections.k_proj.weight" in distilled.state_dict()) is attends_own


def test_distilled_attention_stays_as_it_is_when_the_block_trains_on():
    block, embedding, prototypes = trained_block(), embeddings(), random_rows()
    distilled = PrototypeAttention.distilled(block, prototypes)
    before = distilled(embedding)

    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(1.0)
    prototypes.keys.add_(1.0)

    assert torch.equal(distilled(embedding), before)
    assert block.reader.gate.requires_grad  # the block can be trained on


def test_what_is_kept_holds_no_row_of_the_memory():
    torch.manual_seed(0)
    block, names = trained_block(width=8, num_heads=2, head_width=4), ["a", "b", "c"]
    memory = filled_memory(block, names, embeddings(3, width=8))
    raw = torch.cat([memory.keys, memory.values]).flatten(0, 1)  # (12, 8)

    kept = PrototypeAttention.distilled(block, distill_prototypes(memory, 64, seeded()))

    wide = [t.reshape(-1, 8) for t in kept.state_dict().values() if t.shape[-1] == 8]
    assert len(wide) == 7  # keys, values, two projections, the norm's two vectors, the gate
    assert not (torch.cat(wide)[:, None] == raw).all(dim=2).any()
    assert not any(isinstance(module, AttentionMemory) for module in kept.modules())


@BOTH
def test_kept_attention_is_restored_from_its_state(attends_own):
    block, embedding = trained_block(attends_own=attends_own), embeddings()
    counts = torch.tensor([2.0, 1.0, 3.0, 9.0, 0.0])
    distilled = PrototypeAttention.distilled(block, random_rows(counts=counts))

    restored = PrototypeAttention(6, 5, num_heads=2, head_width=3, attends_own=attends_own)
    restored.load_state_dict(distilled.state_dict())

    assert torch.equal(restored(embedding), distilled(embedding))
    assert not any(parameter.requires_grad for parameter in restored.parameters())


def test_prototypes_can_learn_with_everything_else_frozen():
    counts = torch.tensor([2.0, 1.0, 3.0, 9.0, 0.0])
    block = PrototypeAttention.distilled(trained_block(), random_rows(counts=counts))
    before = copy.deepcopy(block.state_dict())

    optimizer = torch.optim.SGD(block.learn_prototypes(), lr=0.1)
    loss = block(embeddings()).square().mean()
    loss.backward()
    optimizer.step()

    changed = {name for name, t in block.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"keys", "values"}
    assert torch.equal(block.keys[4], before["keys"][4])  # one that stands for none learns nothing
    assert block(embeddings()).square().mean() < loss


def test_cost_and_size_do_not_tell_how_large_the_training_set_was():
    block = trained_block()
    sizes = []
    for num_samples in (2, 20, 40):
        keys, values = torch.randn(2, num_samples, 3, 6, generator=seeded())
        prototypes = distill_prototypes(memory_of(keys, values), 16, seeded())
        kept = PrototypeAttention.distilled(block, prototypes)
        sizes.append({name: tuple(t.shape) for name, t in kept.state_dict().items()})

    assert sizes[0] == sizes[1] == sizes[2]
    assert sizes[0]["keys"] == (16, 6)


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (6, 3, 4)])
def test_an_embedding_of_another_width_is_refused(shape):
    block = trained_block()
    kept = PrototypeAttention.distilled(block, random_rows())

    for refuse in (block, kept, block.facts):
        with pytest.raises(DataError, match=r"must be \(B, 6, H, W\), got .*; make the block"):
            refuse(torch.zeros(shape))


@pytest.mark.parametrize(("num_images", "width"), [(3, 6), (2, 5)])
def test_rows_that_do_not_fit_are_refused(num_images, width):
    rows = random_rows(num_images=num_images, width=width)

    with pytest.raises(DataError, match=r"rows must be \(1, R, 6\) or \(2, R, 6\), got"):
        trained_block()(embeddings(), rows)
    with pytest.raises(DataError, match=r"rows must be \(1, R, 6\), got"):
        PrototypeAttention.distilled(trained_block(), rows)


@pytest.mark.parametrize("settings", [{"width": 0}, {"num_heads": 0}, {"head_width": -1}])
def test_sizes_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match="must be positive, got .*; try 256, 4 and 16"):
        MemoryAttention(**({"width": 8} | settings))


def test_too_many_prototypes_are_refused():
    with pytest.raises(ConfigError, match="between 1 and 64, got 65; use 64"):
        PrototypeAttention(8, num_prototypes=65)
    with pytest.raises(ConfigError, match="between 1 and 64, got 65; use 64"):
        PrototypeAttention.distilled(trained_block(), random_rows(num_rows=65))


def test_a_block_follows_its_network_to_another_type():
    block = PrototypeAttention.distilled(trained_block(), random_rows()).to(torch.bfloat16)

    answer = nn.Sequential(block)(embeddings().to(torch.bfloat16))

    assert answer.dtype == torch.bfloat16
