import pytest
import torch

from edgeseg.adapt.memory_attention import MemoryAttention, PrototypeAttention
from edgeseg.adapt.memory_prototypes import distill_prototypes
from edgeseg.adapt.memory_rows import AttentionMemory
from edgeseg.adapt.memory_vit import MemoryViT
from edgeseg.errors import ConfigError
from edgeseg.modeling.promptable import freeze
from edgeseg.modeling.registry import build_model

NAMES = ["a.jpg", "b.jpg", "c.jpg"]


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = build_model("vit_tiny")  # 128 pixels, blocks 64 wide, embedding 32 wide
    torch.nn.init.normal_(net.image_encoder.pos_embed)
    freeze(net)
    return net


def images(number):
    return torch.randn(number, 3, 128, 128, generator=torch.Generator().manual_seed(1))


def filled(vit, batch):
    memory = AttentionMemory(NAMES, vit.attention.row_width, rows_per_sample=2)
    memory.write(NAMES, *vit.attention.facts(vit.tokens(batch)))
    return memory


def test_an_untrained_memory_leaves_the_teacher_as_it_is(net):
    batch = images(3)
    before = net.encode(batch).embedding
    vit = MemoryViT(net.image_encoder, MemoryAttention(64))
    rows = filled(vit, batch).retrieve(NAMES, 4, torch.Generator())

    net.image_encoder = vit

    assert torch.equal(net.encode(batch).embedding, before)
    assert torch.equal(vit(batch, rows).embedding, before)
    assert before.is_contiguous(memory_format=torch.channels_last)
    assert vit(batch).embedding.is_contiguous(memory_format=torch.channels_last)


def test_tokens_are_the_output_of_the_last_block(net):
    batch, seen = images(1), []
    net.image_encoder.blocks[-1].register_forward_hook(lambda *call: seen.append(call[2]))
    net.encode(batch)

    tokens = MemoryViT(net.image_encoder, MemoryAttention(64)).tokens(batch)

    assert torch.equal(tokens, seen[0].permute(0, 3, 1, 2))  # (1, 8, 8, 64) to (1, 64, 8, 8)


def test_training_reaches_the_block_through_the_frozen_neck(net):
    vit = MemoryViT(net.image_encoder, MemoryAttention(64))
    batch = images(3)
    with torch.no_grad():
        tokens = vit.tokens(batch)  # once for all steps
    memory = filled(vit, batch)

    rows = memory.retrieve(NAMES, 4, torch.Generator())
    vit.embed(tokens, rows).embedding[:, 0].sum().backward()

    assert vit.attention.reader.gate.grad.abs().min() > 0
    assert all(parameter.grad is None for parameter in vit.encoder.parameters())


def test_a_trained_memory_changes_the_embedding_and_its_prototypes_need_no_rows(net):
    vit = MemoryViT(net.image_encoder, MemoryAttention(64))
    torch.nn.init.normal_(vit.attention.reader.gate)
    memory = filled(vit, images(3))
    prototypes = distill_prototypes(memory, 4, torch.Generator())
    before = net.encode(images(1)).embedding

    kept = PrototypeAttention.distilled(vit.attention, prototypes)
    net.image_encoder = MemoryViT(net.image_encoder, kept)

    after = net.encode(images(1)).embedding
    assert (after - before).abs().max() > 0.1
    assert torch.equal(after, vit(images(1), prototypes).embedding)


def test_a_block_of_the_width_of_the_embedding_is_refused(net):
    with pytest.raises(ConfigError, match="as wide as the encoder's blocks, 64, got 32; make it"):
        MemoryViT(net.image_encoder, MemoryAttention(32))
