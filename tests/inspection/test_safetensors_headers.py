import json
import struct
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeseg.errors import WeightsError
from edgeseg.inspection.description import TensorFacts
from edgeseg.inspection.safetensors_files import (
    describe_weights,
    looks_like_safetensors,
    read_header,
)


def written(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.fixture
def student(tmp_path):
    """Weights as EdgeSeg writes them, of four tensors."""
    tensors = {
        "image_encoder.conv.weight": np.zeros((2, 3), np.float16),
        "image_encoder.norm.running_mean": np.zeros(5, np.float32),
        "image_encoder.norm.num_batches_tracked": np.zeros((), np.int64),
        "mask_decoder.bias": np.zeros(4, np.float32),
    }
    path = tmp_path / "student.safetensors"
    save_file(tensors, path, {"format": "edgeseg", "model": "edgeseg_s", "image_size": "256"})
    return path


def test_a_header_gives_names_shapes_and_types(student):
    found = {tensor.name: tensor for tensor in read_header(student).tensors}

    name = "image_encoder.conv.weight"
    assert found[name] == TensorFacts(name, (2, 3), "float16")
    assert found["image_encoder.norm.num_batches_tracked"].shape == ()


def test_weights_of_ours_are_described_without_torch(student, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)

    facts, notes = describe_weights(student)

    assert (facts.model, facts.image_size, notes) == ("edgeseg_s", 256, ())
    assert facts.counts.num_tensors == 4
    assert facts.counts.num_parameters == 10  # 2 * 3 and 4; statistics are none
    assert facts.counts.numbers_by_type == {"float16": 6, "float32": 9, "int64": 1}
    assert facts.counts.parameters_by_part == {"image_encoder": 6, "mask_decoder": 4}
    assert facts.summary.startswith("weights of `edgeseg_s` for 256 px input, 10 parameters (")


def test_weights_of_others_are_described_as_far_as_it_goes_without_torch(tmp_path, monkeypatch):
    path = written(tmp_path / "a.safetensors", {"w": entry([2], 0, 8)}, bytes(8))
    for module in ("torch", "edgeseg.modeling.stored_networks", "edgeseg.modeling.checkpoints"):
        monkeypatch.setitem(sys.modules, module, None)

    facts, notes = describe_weights(path)

    assert facts.model is None
    assert facts.counts.num_parameters == 2
    assert len(notes) == 1
    assert "pip install 'edgeseg[train]'" in notes[0]


@pytest.mark.parametrize("size", ["", "large", "-1", "1000000"])
def test_a_size_that_cannot_be_one_is_left_out(tmp_path, size):
    metadata = {"format": "edgeseg", "model": "edgeseg_s", "image_size": size}
    path = written(tmp_path / "a.safetensors", {"__metadata__": metadata})

    assert describe_weights(path)[0].image_size is None


def test_a_tensor_of_unknown_type_is_kept_by_its_name(tmp_path):
    path = written(tmp_path / "a.safetensors", {"w": entry([3], 0, 1, "F4")}, bytes(1))

    assert read_header(path).tensors == (TensorFacts("w", (3,), "F4"),)


def test_a_file_that_is_cut_off_is_refused_with_both_sizes(student):
    whole = student.read_bytes()
    student.write_bytes(whole[:-3])

    data = 6 * 2 + 5 * 4 + 8 + 4 * 4  # bytes of the four tensors
    message = f"it is cut off: {data} bytes of tensors are stated, {data - 3} there; fetch"
    with pytest.raises(WeightsError, match=message):
        read_header(student)


def test_a_file_with_something_behind_is_refused(student):
    student.write_bytes(student.read_bytes() + b"x")

    with pytest.raises(WeightsError, match="it is too long"):
        read_header(student)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it has 0 bytes, which is less than a header"),
        (b"1234567", "it has 7 bytes, which is less than a header"),
        (struct.pack("<Q", 3) + b"{}", "its header has 3 bytes, the whole file 10"),
        (struct.pack("<Q", 2**24 + 1) + b"{}", "would have 16777217 bytes, allowed 16777216"),
        (struct.pack("<Q", 2**63) + b"{}", "would have 9223372036854775808 bytes"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, content, reason):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)

    with pytest.raises(WeightsError, match=reason):
        read_header(path)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"{", r"its header is no JSON \(JSONDecodeError\)"),
        (b"\xff\xff", r"its header is no JSON \(UnicodeDecodeError\)"),
        (b"[" * 100_000, r"its header is no JSON \(RecursionError\)"),
        (b"[]", "its header is no JSON object"),
        ({"__metadata__": []}, "its metadata is no JSON object"),
        ({"w": 1}, "does not say where each tensor lies"),
        ({"w": {"dtype": "F32", "shape": [1]}}, "does not say where each tensor lies"),
        ({"w": entry([1], "0", "4")}, "does not say where each tensor lies"),
        ({"w": entry([1], 0.0, 8.0)}, "does not say where each tensor lies"),
        ({"w": entry([1], 4, 8)}, "the bytes of 'w' do not follow those before"),
        ({"a": entry([2], 0, 8), "b": entry([1], 4, 8)}, "the bytes of 'b' do not follow"),
        ({"w": entry([1], 0, -4)}, "the bytes of 'w' do not follow"),
        ({"w": entry([3], 0, 8)}, r"'w' of shape \[3\] and type F32 has 8 bytes"),
        ({"w": entry([-2], 0, 8)}, r"the shape of 'w' is \[-2\]"),
        ({"w": entry([True, 2], 0, 8)}, "the shape of 'w' is"),
        ({"w": entry("2", 0, 8)}, "the shape of 'w' is '2'"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path, header, reason):
    path = written(tmp_path / "a.safetensors", header, bytes(8))

    with pytest.raises(WeightsError, match=f"no whole safetensors file: .*{reason}"):
        read_header(path)


def test_a_beginning_is_recognised_by_a_length_that_fits_and_a_brace(student):
    head = student.read_bytes()[:16]

    assert looks_like_safetensors(head, student.stat().st_size)
    assert not looks_like_safetensors(head, 20)
    assert not looks_like_safetensors(head[:8], 10**6)
    assert not looks_like_safetensors(head[:8] + b"[", 10**6)
