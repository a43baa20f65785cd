from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from small_models import model_of, node
from tiny_exports import (
    SIDE,
    decoder_export,
    encoder_export,
    features_of,
    prompt_inputs,
    tiny_net,
)

from edgeseg.errors import ExportError
from edgeseg.exporter.graphs import shape_of
from edgeseg.exporter.onnx_int8 import Layer, find_layers, quantize_dynamic, quantize_static
from edgeseg.exporter.onnx_precision import in_precision
from edgeseg.exporter.onnx_ranges import tensor_ranges
from edgeseg.exporter.onnx_sensitivity import (
    find_sensitive_layers,
    quantize_to_goal,
    relative_error,
    with_rounded_layers,
)
from edgeseg.exporter.onnx_sessions import run_all, runner_of
from edgeseg.signature import PromptSlots, decoder_spec, encoder_spec


def operators(model):
    return Counter(n.op_type for n in model.graph.node)


def weights_of_type(model, element_type):
    return {t.name for t in model.graph.initializer if t.data_type == element_type}


def quantized_weights(model):
    found = weights_of_type(model, TensorProto.INT8)
    return {name for name in found if not name.endswith("zero_point")}


def noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def three_convolutions():
    """Convolution and activation, convolution and sum, convolution that gives the output."""
    nodes = [
        node("Conv", "x first", "a"),
        node("Relu", "a", "b"),
        node("Conv", "b second", "c"),
        node("Add", "b c", "d"),
        node("Conv", "d third", "y"),
    ]
    weights = {"first": noise(1, 4, 3, 1, 1), "second": noise(2, 4, 4, 1, 1)}
    weights["third"] = noise(3, 2, 4, 1, 1)
    return model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 2, 8, 8]}, **weights)


def around_an_outlier(residual=False):
    """Three convolutions; between two is a channel 1000 times as large as the others."""
    first, second, third = (noise(seed, 4, 4, 1, 1) for seed in (1, 2, 3))
    first[0] *= 1000
    second[:, 0] /= 1000
    nodes = [
        node("Conv", "x third", "c"),
        node("Conv", "c first", "a"),
        *([node("Add", "a c", "s")] if residual else []),
        node("Conv", f"{'s' if residual else 'a'} second", "b"),
        node("Identity", "b", "y"),
    ]
    sides = {"x": [1, 4, 8, 8]}, {"y": [1, 4, 8, 8]}
    return model_of(nodes, *sides, first=first, second=second, third=third)


INPUTS = [{"x": noise(seed, 1, 3, 8, 8)} for seed in range(4, 8)]
WIDE_INPUTS = [{"x": noise(seed, 1, 4, 8, 8)} for seed in range(4, 8)]


def test_layers_have_a_weight_and_come_with_their_activation():
    first, second = find_layers(three_convolutions())  # the third gives the output

    assert first == Layer("Conv_a", "Relu_b", "x", "b", "first", weight_axis=0)
    assert first.nodes == ("Conv_a", "Relu_b")
    assert second == Layer("Conv_c", None, "b", "c", "second", weight_axis=0)
    assert second.nodes == ("Conv_c",)


def test_products_count_as_layers_only_with_a_weight_that_is_a_matrix():
    nodes = [
        node("MatMul", "x matrix", "a"),
        node("MatMul", "a vector", "b"),
        node("Gemm", "a matrix", "c", transB=1),
        node("MatMul", "c x", "d"),
        node("Clip", "d", "y"),
    ]
    weights = {"matrix": np.eye(2), "vector": [1, 2]}
    model = model_of(nodes, {"x": [2, 2]}, {"y": [2, 2], "b": [2]}, **weights)

    assert [(layer.node, layer.weight_axis) for layer in find_layers(model)] == [
        ("MatMul_a", 1),
        ("Gemm_c", 0),
    ]


def test_dynamic_quantisation_stores_the_weights_of_products_in_bytes():
    model = decoder_export("vit_tiny", 4, 3, "int32").model
    inputs = features_of("vit_tiny") | prompt_inputs(4, 3, labels="int32")
    quantized = quantize_dynamic(model)

    expected, answers = runner_of(model)(inputs), runner_of(quantized)(inputs)

    assert operators(quantized)["MatMulInteger"] == len(weights_of_type(quantized, 3)) / 2
    assert operators(quantized)["MatMulInteger"] > 30
    assert operators(quantized)["Conv"] == operators(model)["Conv"]
    assert len(quantized.SerializeToString()) < 0.7 * len(model.SerializeToString())
    assert 0 < relative_error([expected], [answers]) < 0.1
    assert not quantized.metadata_props


def test_a_model_without_products_stays_as_it_is():
    model = three_convolutions()

    assert quantize_dynamic(model) == model


def test_static_quantisation_makes_weights_and_activations_bytes():
    model = three_convolutions()
    before = model.SerializeToString()

    quantized = quantize_static(model, tensor_ranges(model, INPUTS))

    assert model.SerializeToString() == before
    stored = {t.name: t for t in quantized.graph.initializer}
    assert stored["first_quantized"].data_type == TensorProto.INT8
    assert stored["first_scale"].dims == [4]  # one a channel
    assert np.abs(numpy_helper.to_array(stored["first_quantized"]).astype(int)).max() == 64  # 7 bit
    assert stored["third"].data_type == TensorProto.FLOAT  # it gives the output
    assert "Relu" not in operators(quantized)  # the lower end of its range does the same
    assert 0 < relative_error(run_all(model, INPUTS), run_all(quantized, INPUTS)) < 0.05


def test_the_sum_before_a_convolution_is_quantised_with_it():
    model = three_convolutions()

    quantized = quantize_static(model, tensor_ranges(model, INPUTS))

    (sum_node,) = (n for n in quantized.graph.node if n.op_type == "Add")
    producers = {name: n.op_type for n in quantized.graph.node for name in n.output}
    assert [producers[name] for name in sum_node.input] == ["DequantizeLinear"] * 2


def test_nodes_may_be_left_out():
    model = three_convolutions()
    ranges = tensor_ranges(model, INPUTS)

    quantized = quantize_static(model, ranges, float_nodes=["Conv_c", "Add_d"])
    nothing = quantize_static(model, ranges, float_nodes=["Conv_a", "Relu_b", "Conv_c", "Add_d"])

    assert quantized_weights(quantized) == {"first_quantized"}
    assert nothing == model


def test_the_relative_error_is_that_of_the_worst_output():
    expected = [{"a": np.array([3.0, 4.0]), "b": np.array([1.0])}, {"a": np.zeros(2), "b": [0.0]}]
    answers = [{"a": np.array([3.0, 4.5]), "b": np.array([1.3])}, {"a": np.zeros(2), "b": [0.4]}]
    expected[1]["b"] = np.array(expected[1]["b"])

    # a: 0.5 of 5; b: sqrt(0.3 ** 2 + 0.4 ** 2) of 1
    assert relative_error(expected, answers) == pytest.approx(0.5)
    assert relative_error(expected[:1], answers[:1]) == pytest.approx(0.3)


def test_rounding_a_layer_is_what_quantising_it_does():
    nodes = [node("Conv", "x w", "a"), node("Identity", "a", "y")]
    weight = [[[[1.0]], [[-0.5]]]]  # steps of 1 / 64, which hold both
    model = model_of(nodes, {"x": [1, 2, 1, 1]}, {"y": [1, 1, 1, 1]}, w=weight)
    (layer,) = find_layers(model)

    rounded = with_rounded_layers(model, {"x": (0.0, 25.5), "a": (-5.1, 0.0)}, [layer])

    # Steps of 0.1: 1.04 becomes 1, 4.06 becomes 4.1; 1 - 4.1 / 2 = -1.05; steps of 0.02: -1.04 or
    # -1.06.
    x = np.array([1.04, 4.06], np.float32).reshape(1, 2, 1, 1)
    answer = runner_of(rounded, fuse_quantized=False)({"x": x})["y"].item()
    assert min(abs(answer + 1.04), abs(answer + 1.06)) < 1e-6


def test_rounded_weights_keep_the_scale_of_their_channel():
    nodes = [node("Conv", "x w", "a"), node("Identity", "a", "y")]
    weight = np.array([64.0, 0.4, 0.64, 0.004]).reshape(2, 2, 1, 1)
    model = model_of(nodes, {"x": [1, 2, 1, 1]}, {"y": [1, 2, 1, 1]}, w=weight)
    (layer,) = find_layers(model)
    ends = {"x": (0.0, 255.0), "a": (0.0, 2.55)}

    rounded = with_rounded_layers(model, ends, [layer])

    # The second row's steps are 0.01, so 0.004 becomes 0; the first row's are 1.
    x = np.array([0, 1], np.float32).reshape(1, 2, 1, 1)
    assert runner_of(rounded, fuse_quantized=False)({"x": x})["y"].ravel().tolist() == [0, 0]
    x = np.array([1, 0], np.float32).reshape(1, 2, 1, 1)
    assert runner_of(rounded, fuse_quantized=False)({"x": x})["y"].ravel() == pytest.approx(
        [2.55, 0.64]
    )  # 64 is beyond


def test_the_layers_around_an_outlier_are_the_most_sensitive():
    model = around_an_outlier()
    ranges = tensor_ranges(model, WIDE_INPUTS)

    ranking = find_sensitive_layers(model, ranges, WIDE_INPUTS)

    assert {group.nodes for group in ranking[:2]} == {("Conv_a",), ("Conv_b",)}
    assert ranking[1].error > 5 * ranking[2].error


def test_neighbours_are_measured_together_when_there_are_many():
    model = encoder_export(normalises=True).model
    images = [{"image_rgb": np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)}]
    ranges = tensor_ranges(model, images)

    ranking = find_sensitive_layers(model, ranges, images, max_groups=5)

    layers = find_layers(model)
    assert len(ranking) == 5
    assert {layer for group in ranking for layer in group.layers} == set(layers)
    assert [group.error for group in ranking] == sorted((g.error for g in ranking), reverse=True)


def test_a_goal_that_is_met_leaves_no_layer_in_float32():
    result = quantize_to_goal(three_convolutions(), INPUTS, max_error=0.05)

    assert result.float_layers == ()
    assert 0 < result.error <= 0.05


def test_the_most_sensitive_layers_stay_in_float32_until_the_goal_is_met():
    model = around_an_outlier()
    everything = quantize_static(model, tensor_ranges(model, WIDE_INPUTS))
    expected = run_all(model, WIDE_INPUTS)
    assert relative_error(expected, run_all(everything, WIDE_INPUTS)) > 0.1

    result = quantize_to_goal(model, WIDE_INPUTS, max_error=0.1)

    assert set(result.float_layers) == {"Conv_a", "Conv_b"}
    assert result.error <= 0.1
    assert quantized_weights(result.model) == {"third_quantized"}
    error = relative_error(expected, run_all(result.model, WIDE_INPUTS))
    assert error == pytest.approx(result.error)


def test_residual_sums_stay_in_float32_if_they_alone_miss_the_goal():
    """The sum has the outlier, so rounding it loses the other channels, whatever layers do."""
    model = around_an_outlier(residual=True)
    layers = [name for layer in find_layers(model) for name in layer.nodes]
    expected = run_all(model, WIDE_INPUTS)
    only_sums = quantize_static(model, tensor_ranges(model, WIDE_INPUTS), layers)
    assert relative_error(expected, run_all(only_sums, WIDE_INPUTS)) > 0.1

    result = quantize_to_goal(model, WIDE_INPUTS, max_error=0.1)

    assert result.float_layers[-1] == "Add_s"
    assert result.error <= 0.1
    assert "third_quantized" in quantized_weights(result.model)


def test_a_goal_out_of_reach_is_refused():
    with pytest.raises(ExportError, match=r"no layer can be int8 .* the least .*; raise max_error"):
        quantize_to_goal(three_convolutions(), INPUTS, max_error=1e-9)


def test_calibration_needs_inputs():
    with pytest.raises(ExportError, match="needs calibration inputs, got none; give some images"):
        quantize_to_goal(three_convolutions(), [], max_error=0.1)


def photos(count):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (40 + 9 * i, 64, 3), np.uint8) for i in range(count)]


def test_float32_is_what_it_was():
    model = three_convolutions()

    assert in_precision(model, encoder_spec(shape_of(tiny_net())), "float32").model == model


def test_a_static_encoder_is_calibrated_on_images_and_says_what_stayed_in_float32():
    net, model = tiny_net(), encoder_export(normalises=True).model
    spec = encoder_spec(shape_of(net), normalises=True)

    loose = in_precision(model, spec, "int8", photos(3), max_error=0.9)
    strict = in_precision(model, spec, "int8", photos(3), max_error=0.02)

    assert operators(loose.model)["QuantizeLinear"] > 40
    assert loose.notes[0].startswith("relative error of the features 0.")
    assert len(loose.notes) == 1
    assert strict.notes[1].startswith("in float32: image_encoder.")
    onnx.checker.check_model(strict.model, full_check=True)


@pytest.mark.parametrize("precision", ["int8", "int8_dynamic"])
def test_a_decoder_is_quantised_dynamically(precision):
    spec = decoder_spec(shape_of(tiny_net("vit_tiny")), PromptSlots(4, 3), "int32")
    model = decoder_export("vit_tiny", 4, 3, "int32").model

    result = in_precision(model, spec, precision, photos(1))

    count = operators(result.model)["MatMulInteger"]
    assert count > 30
    assert result.notes == (f"int8 weights in {count} matrix products",)


def test_half_precision_is_measured_on_the_images():
    spec = encoder_spec(shape_of(tiny_net()), normalises=True)

    result = in_precision(encoder_export(normalises=True).model, spec, "float16", photos(2))

    assert weights_of_type(result.model, TensorProto.FLOAT16)
