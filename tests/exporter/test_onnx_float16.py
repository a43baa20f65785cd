import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from small_models import model_of, node
from tiny_exports import decoder_export, encoder_export, features_of, prompt_inputs

from edgeseg.exporter.onnx_float16 import nodes_on_positions, overflowing_nodes, to_float16
from edgeseg.exporter.onnx_inputs import example_inputs
from edgeseg.exporter.onnx_ranges import tensor_ranges
from edgeseg.exporter.onnx_sessions import largest_difference, runner_of
from edgeseg.signature import PromptSlots, decoder_spec

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def weight_types(model):
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def operators(model):
    return [n.op_type for n in model.graph.node]


def io_types(model):
    values = (*model.graph.input, *model.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def two_products(middle="Relu"):
    nodes = [node("MatMul", "x a", "p"), node(middle, "p", "q"), node("MatMul", "q b", "y")]
    weights = {"a": [[1.0, 2], [3, 4]], "b": [[0.5, 1 / 3], [1, 2]]}
    return model_of(nodes, {"x": [1, 2]}, {"y": [1, 2]}, **weights)


def test_weights_become_half_and_outside_nothing_changes():
    half = to_float16(two_products())

    assert weight_types(half) == {"a/half": HALF, "b/half": HALF}
    assert io_types(half) == {"x": FULL, "y": FULL}
    assert operators(half) == ["Cast", "MatMul", "Relu", "MatMul", "Cast"]
    answer = runner_of(half)({"x": np.array([[1, 2]], np.float32)})["y"]
    assert answer.dtype == np.float32
    # [1, 2] @ a = [7, 10]; @ b = [13.5, 22 + 1 / 3]
    np.testing.assert_allclose(answer, [[13.5, 22 + 1 / 3]], rtol=2e-3)


def test_inputs_and_outputs_may_be_half():
    half = to_float16(two_products(), io="float16")

    assert io_types(half) == {"x": HALF, "y": HALF}
    assert "Cast" not in operators(half)
    answer = runner_of(half)({"x": np.array([[1, 2]], np.float16)})["y"]
    assert answer.dtype == np.float16


def test_softmax_stays_in_float32_and_its_neighbours_do_not():
    half = to_float16(two_products("Softmax"))

    assert operators(half) == ["Cast", "MatMul", "Cast", "Softmax", "Cast", "MatMul", "Cast"]
    assert weight_types(half) == {"a/half": HALF, "b/half": HALF}


def test_named_nodes_stay_in_float32_with_their_weights():
    half = to_float16(two_products(), float32_nodes=["MatMul_y"])

    assert weight_types(half) == {"a/half": HALF, "b": FULL}


def test_a_tensor_read_by_two_float32_nodes_is_cast_once():
    nodes = [
        node("Mul", "x a", "p"),
        node("Softmax", "p", "q"),
        node("Exp", "p", "r"),
        node("Add", "q r", "y"),
    ]

    half = to_float16(model_of(nodes, {"x": [1, 2]}, {"y": [1, 2]}, a=2.0))

    reads = [n.input[0] for n in half.graph.node if n.op_type in ("Softmax", "Exp")]
    assert reads == ["p/float"] * 2
    assert operators(half).count("Cast") == 5  # x, p, q, r, y


def test_an_output_that_is_also_read_keeps_its_name():
    nodes = [node("Mul", "x a", "y"), node("Mul", "y a", "z")]

    half = to_float16(model_of(nodes, {"x": [2]}, {"y": [2], "z": [2]}, a=3.0))

    answers = runner_of(half)({"x": np.array([1, 2], np.float32)})
    assert answers["y"].tolist() == [3, 6]
    assert answers["z"].tolist() == [9, 18]


def test_the_scales_of_a_resize_stay_in_float32():
    resize = node("Resize", "p  s", "y", mode="nearest")
    resize.input[:] = ["p", "", "s"]
    nodes = [node("Mul", "x a", "p"), resize]
    model = model_of(nodes, {"x": [1, 1, 1, 2]}, {"y": [1, 1, 2, 4]}, a=3.0, s=[1, 1, 2, 2])

    half = to_float16(model)

    assert weight_types(half) == {"a/half": HALF, "s": FULL}
    answer = runner_of(half)({"x": np.array([[[[1, 2]]]], np.float32)})["y"]
    assert answer.tolist() == [[[[3, 3, 6, 6]] * 2]]


def in_half_arithmetic(model, inputs):
    """Run a model as it says; ONNX Runtime on a CPU leaves out casts and computes in float32."""
    with np.errstate(over="ignore"):
        return ReferenceEvaluator(model).run(None, inputs)


def growing():
    """x, then 1000 x, then 1e6 x, then back to x."""
    nodes = [
        node("Mul", "x thousand", "p"),
        node("Mul", "p thousand", "q"),
        node("Mul", "q millionth", "y"),
    ]
    constants = {"thousand": 1e3, "millionth": 1e-6}
    return model_of(nodes, {"x": [2]}, {"y": [2]}, **constants)


def test_ranges_are_those_of_all_inputs_together():
    inputs = [{"x": np.array([-1, 2], np.float32)}, {"x": np.array([0, 3], np.float32)}]

    ranges = tensor_ranges(growing(), inputs)

    assert ranges["x"] == (-1, 3)
    assert ranges["p"] == (-1000, 3000)
    assert ranges["q"] == (-1e6, 3e6)


def test_nodes_that_read_or_write_numbers_too_large_are_found():
    assert overflowing_nodes(growing(), [{"x": np.array([0, -1], np.float32)}]) == [
        "Mul_q",  # 1e6 is beyond 65504
        "Mul_y",
    ]
    assert overflowing_nodes(growing(), [{"x": np.array([0, 0.01], np.float32)}]) == []


def test_numbers_too_large_for_half_survive():
    inputs = {"x": np.array([1, -2], np.float32)}

    (blind,) = in_half_arithmetic(to_float16(growing()), inputs)
    (measured,) = in_half_arithmetic(to_float16(growing(), [inputs]), inputs)

    assert not np.isfinite(blind).all()
    np.testing.assert_allclose(measured, [1, -2], rtol=2e-3)


def fixed_decoder():
    return decoder_export("vit_tiny", 4, 3, "int32").model


def fixed_inputs():
    return features_of("vit_tiny") | prompt_inputs(4, 3, labels="int32")


def test_a_decoder_answers_nearly_the_same_with_half_the_bytes():
    model, inputs = fixed_decoder(), fixed_inputs()
    half = to_float16(model, [inputs])

    expected = runner_of(model)(inputs)
    answers = dict(zip(expected, in_half_arithmetic(half, inputs), strict=True))

    assert len(half.SerializeToString()) < 0.6 * len(model.SerializeToString())
    assert largest_difference([expected], [answers]) < 0.03  # logits reach beyond 3
    agree = (expected["low_res_logits"] > 0) == (answers["low_res_logits"] > 0)
    assert agree.mean() > 0.99


def test_positions_keep_all_their_digits():
    nodes = [
        node("Mul", "points_xy_model turn", "phase"),
        node("Sin", "phase", "wave"),
        node("Mul", "wave two", "y"),
    ]
    constants = {"turn": 2 * np.pi, "two": 2.0}
    half = to_float16(model_of(nodes, {"points_xy_model": [1]}, {"y": [1]}, **constants))

    (answer,) = in_half_arithmetic(half, {"points_xy_model": np.array([700.3], np.float32)})

    # 2 sin(0.3 of a turn); float16 has no number between 700 and 700.5
    np.testing.assert_allclose(answer, [2 * 0.951057], rtol=2e-3)


def test_positions_end_where_they_are_embedded():
    graph = fixed_decoder().graph
    found = set(nodes_on_positions(graph))

    kinds = {n.op_type for n in graph.node if n.name in found}
    assert {"Sin", "Cos"} <= kinds
    assert not {"MatMul", "Gemm", "Conv", "LayerNormalization"} & kinds


def test_points_stay_float32_when_all_else_is_half():
    types = io_types(to_float16(fixed_decoder(), io="float16"))

    assert types.pop("points_xy_model") == FULL
    assert types.pop("point_labels") == TensorProto.INT32
    assert set(types.values()) == {HALF}


def test_an_encoder_that_takes_bytes_works_in_half():
    model = encoder_export(normalises=True).model
    inputs = {"image_rgb": np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)}
    half = to_float16(model, [inputs])

    assert largest_difference([runner_of(model)(inputs)], [runner_of(half)(inputs)]) < 0.05
    onnx.checker.check_model(half, full_check=True)


@pytest.mark.slow
def test_a_decoder_of_any_size_works_in_half():
    from tiny_exports import tiny_net

    from edgeseg.exporter.graphs import shape_of

    spec = decoder_spec(shape_of(tiny_net()), PromptSlots())
    model = decoder_export().model
    half = to_float16(model, example_inputs(spec))

    for inputs in example_inputs(spec, seed=3):
        assert largest_difference([runner_of(model)(inputs)], [runner_of(half)(inputs)]) < 0.05
