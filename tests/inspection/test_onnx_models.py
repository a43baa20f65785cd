import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import ExportError
from edgeseg.inspection import onnx_models
from edgeseg.inspection.description import TensorFacts
from edgeseg.inspection.onnx_models import describe_onnx, looks_like_onnx, quantisation_of


def stored(values, dtype, name):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model_of(nodes, weights=(), **facts):
    """A model from x (N, 3) to y (N, 3), both float32."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, "g", [x], [y], list(weights))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8, **facts
    )


@pytest.fixture
def path(tmp_path):
    """A model of two sums with 3 floats each, and an index."""
    nodes = [
        helper.make_node("Add", ["x", "w"], ["a"]),
        helper.make_node("Constant", [], ["c"], value=stored([1, 2, 3], np.float32, "c")),
        helper.make_node("Add", ["a", "c"], ["b"]),
        helper.make_node("Squeeze", ["b", "axes"], ["y"]),
    ]
    weights = [stored([1, 2, 3], np.float32, "w"), stored([], np.int64, "axes")]
    model = model_of(nodes, weights, producer_name="maker", producer_version="1.5", doc_string="D")
    helper.set_model_props(model, {"edgeseg.model": "edgeseg_s"})
    file = tmp_path / "a.onnx"
    file.write_bytes(model.SerializeToString())
    return file


def save(tmp_path, model):
    file = tmp_path / "b.onnx"
    file.write_bytes(model.SerializeToString())
    return file


def test_a_model_tells_what_it_takes_gives_computes_and_holds(path):
    facts, notes = describe_onnx(path)

    assert facts.producer == "maker 1.5"
    assert (facts.ir_version, facts.opsets) == (8, {"ai.onnx": 18})
    assert facts.inputs == (TensorFacts("x", ("N", 3), "float32"),)
    assert facts.outputs == (TensorFacts("y", ("N", 3), "float32"),)
    assert list(facts.operations.items())[0] == ("Add", 2)  # the most frequent first
    assert facts.operations == {"Add": 2, "Constant": 1, "Squeeze": 1}
    assert facts.num_parameters == 6  # w and the constant; indices are none
    assert facts.numbers_by_type == {"float32": 6, "int64": 0}
    assert facts.metadata == {"edgeseg.model": "edgeseg_s"}
    assert (facts.description, facts.quantisation, notes) == ("D", "", ())
    assert facts.summary == (
        "ONNX model of `edgeseg_s`, written by maker 1.5, opset 18, 4 operations, 6 parameters "
        "(6 float32, 0 int64)"
    )


def test_an_initializer_that_is_also_an_input_is_a_weight(tmp_path):
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], [stored([1], np.float32, "w")])
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1]))

    facts, _ = describe_onnx(save(tmp_path, model))

    assert [tensor.name for tensor in facts.inputs] == ["x"]


def test_operators_and_weights_of_inner_graphs_count(tmp_path):
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])
    inner = helper.make_graph(
        [helper.make_node("Relu", ["w"], ["o"])], "inner", [], [out], [stored([5], np.float16, "w")]
    )
    condition = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)

    facts, _ = describe_onnx(save(tmp_path, model_of([condition])))

    assert facts.operations == {"Relu": 2, "If": 1}
    assert facts.numbers_by_type == {"float16": 2}


def test_operators_of_other_makers_are_named_with_their_domain(tmp_path):
    node = helper.make_node("MatMulNBits", ["x"], ["y"], domain="com.microsoft")

    facts, _ = describe_onnx(save(tmp_path, model_of([node])))

    assert facts.operations == {"com.microsoft.MatMulNBits": 1}
    assert facts.quantisation == "weights of few bits (1 MatMulNBits)"


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ({"Conv": 3}, ""),
        ({"MatMulInteger": 2, "ConvInteger": 1}, "quantised dynamically (3 integer products)"),
        ({"QLinearConv": 4, "QuantizeLinear": 1}, "quantised statically (4 integer operators)"),
        (
            {"QuantizeLinear": 5, "DequantizeLinear": 9},
            "quantised statically (5 QuantizeLinear)",
        ),
        ({"DequantizeLinear": 9}, "quantised weights (9 DequantizeLinear)"),
    ],
)
def test_quantisation_is_told_by_the_operators(operations, words):
    assert quantisation_of(operations) == words


def test_open_sizes_without_a_letter_are_question_marks(tmp_path):
    model = model_of([helper.make_node("Relu", ["x"], ["y"])])
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    model.graph.output[0].type.Clear()

    facts, _ = describe_onnx(save(tmp_path, model))

    assert facts.inputs[0].shape == ("?", 3)
    assert facts.outputs[0] == TensorFacts("y", (), "unknown")


@pytest.mark.parametrize(
    ("location", "note"),
    [
        ("weights.bin", "its tensors are in 'weights.bin', which is not beside it"),
        ("../secret", "it wants tensors from '../secret', outside of its folder; do not run it"),
        ("/etc/passwd", "it wants tensors from '/etc/passwd', outside of its folder"),
        ("a\\..\\..\\b", "outside of its folder"),
    ],
)
def test_tensors_in_other_files_are_told_and_not_opened(tmp_path, location, note):
    weight = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL
    )
    weight.external_data.add(key="location", value=location)
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], [weight])

    facts, notes = describe_onnx(save(tmp_path, model))

    assert facts.external_files == (location,)
    assert facts.num_parameters == 6
    assert len(notes) == 1
    assert note in notes[0]


def test_tensors_in_a_file_beside_it_are_no_reason_for_a_note(tmp_path):
    weight = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL
    )
    weight.external_data.add(key="location", value="weights.bin")
    (tmp_path / "weights.bin").write_bytes(bytes(4))

    _, notes = describe_onnx(save(tmp_path, model_of([], [weight])))

    assert notes == ()


@pytest.mark.parametrize("content", [b"", b"\x08\x08", b"\xff\xff\xff", b"not a model at all"])
def test_what_is_no_model_is_refused(tmp_path, content):
    file = tmp_path / "c.onnx"
    file.write_bytes(content)

    with pytest.raises(ExportError, match=r"c\.onnx is (damaged or )?no ONNX model.*again"):
        describe_onnx(file)


def test_a_model_that_is_cut_off_is_refused(path):
    path.write_bytes(path.read_bytes()[:-5])

    with pytest.raises(ExportError, match="is damaged or no ONNX model"):
        describe_onnx(path)


def test_a_file_larger_than_the_format_allows_is_refused_unread(path, monkeypatch):
    monkeypatch.setattr(onnx_models, "MAX_BYTES", path.stat().st_size - 1)

    with pytest.raises(ExportError, match="an ONNX file has 2 at most"):
        describe_onnx(path)


def test_without_onnx_the_runtime_tells_inputs_outputs_and_metadata(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)

    facts, notes = describe_onnx(path)

    assert facts.inputs == (TensorFacts("x", ("N", 3), "float32"),)
    assert facts.outputs == (TensorFacts("y", ("N", 3), "float32"),)
    assert (facts.producer, facts.metadata) == ("maker", {"edgeseg.model": "edgeseg_s"})
    assert (facts.operations, facts.num_parameters) == (None, None)
    assert facts.summary == "ONNX model of `edgeseg_s`, written by maker"
    assert "told by ONNX Runtime" in notes[0]


def test_without_onnx_a_damaged_model_is_refused_as_well(path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "onnx", None)
    path.write_bytes(path.read_bytes()[:-5])

    with pytest.raises(ExportError, match="is damaged or no ONNX model"):
        describe_onnx(path)


def test_a_beginning_is_recognised_by_the_version_of_the_format(path):
    assert looks_like_onnx(path.read_bytes()[:8])
    assert not looks_like_onnx(b"\x08\x00\x12")
    assert not looks_like_onnx(b"\x08\x08")
    assert not looks_like_onnx(b"\x80\x02\x12")
