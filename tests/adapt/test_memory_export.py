import numpy as np
import onnx
import pytest
import torch

from edgeseg.adapt.memory_attention import MemoryAttention, PrototypeAttention
from edgeseg.adapt.memory_prototypes import distill_prototypes
from edgeseg.adapt.memory_rows import AttentionMemory
from edgeseg.exporter.onnx_files import convert
from edgeseg.exporter.onnx_sessions import runner_of
from edgeseg.signature import GraphSpec, TensorSpec

SHAPE = (1, 32, 6, 8)
SPEC = GraphSpec((TensorSpec("embedding", SHAPE),), (TensorSpec("adapted", SHAPE),))


def distilled_from(num_samples, attends_own=False):
    """Return a trained block and the memory of four rows a sample it was distilled from."""
    torch.manual_seed(0)
    block = MemoryAttention(32, num_heads=2, head_width=8, attends_own=attends_own)
    torch.nn.init.normal_(block.reader.gate)
    memory = AttentionMemory([f"{n}.png" for n in range(num_samples)], block.row_width, 4)
    for number in range(num_samples):
        memory.write([f"{number}.png"], *block.facts(torch.randn(SHAPE)))
    prototypes = distill_prototypes(memory, 16, torch.Generator().manual_seed(0))
    return PrototypeAttention.distilled(block, prototypes), memory


@pytest.fixture(scope="module")
def exported():
    """Export a block that was trained on six images."""
    return convert(distilled_from(6)[0], SPEC).model


def assert_equal_to_pytorch(model, block):
    embedding = np.random.default_rng(1).standard_normal(SHAPE, np.float32)
    expected = block(torch.from_numpy(embedding)).numpy()

    answer = runner_of(model)({"embedding": embedding})["adapted"]

    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-4)
    assert np.abs(expected - embedding).max() > 0.1  # it does something


def test_the_exported_block_answers_like_pytorch(exported):
    assert_equal_to_pytorch(exported, distilled_from(6)[0])


def test_the_exported_block_with_its_own_tokens_answers_like_pytorch():
    block, _ = distilled_from(6, attends_own=True)

    assert_equal_to_pytorch(convert(block, SPEC).model, block)


def test_the_file_is_as_large_for_twice_as_many_images_and_holds_no_row(exported):
    block, memory = distilled_from(12)

    model = convert(block, SPEC).model

    assert model.ByteSize() == exported.ByteSize()
    operators = [[node.op_type for node in graph.graph.node] for graph in (model, exported)]
    assert operators[0] == operators[1]
    constants = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    numbers = np.concatenate([constant.astype(np.float32).ravel() for constant in constants])
    prototype = block.keys[0].numpy()
    assert np.isin(prototype, numbers).all()  # what is looked for would be found
    assert not np.isin(torch.cat([memory.keys, memory.values]).numpy(), numbers).any()
