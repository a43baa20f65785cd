"""ONNX graphs of a few nodes, each with one thing that TensorRT or WebGPU would not take."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import ExportError
from edgeseg.exporter.lint import lint_onnx

FLOAT, HALF, INT64, UINT8 = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.INT64,
    TensorProto.UINT8,
)


def value(name, shape=(1, 8, 4, 4), dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(*nodes, inputs=(), weights=None, output=None, domains=()):
    """A graph from the input `x` to the output `y`."""
    stored = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(
        nodes, "test", list(inputs) or [value("x")], [output or value("y")], stored
    )
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=opsets)


def node(kind, inputs="x", outputs="y", **attributes):
    return helper.make_node(kind, inputs.split(" "), outputs.split(" "), **attributes)


def errors(runtime, *nodes, **settings):
    findings = lint_onnx(model(*nodes, **settings), runtime)
    return [(each.operation, each.reason) for each in findings if each.is_error]


def notes(runtime, *nodes, **settings):
    findings = lint_onnx(model(*nodes, **settings), runtime)
    return [(each.operation, each.reason) for each in findings if not each.is_error]


WEIGHT = {"w": np.ones((8, 8, 3, 3), np.float32)}


@pytest.mark.parametrize("runtime", ["tensorrt", "webgpu"])
def test_convolutions_and_norms_are_taken(runtime):
    scale = {"g": np.ones(4, np.float32), **WEIGHT}
    nodes = (
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("LayerNormalization", "c g", "n"),
        node("Sigmoid", "n", "y"),
    )

    assert lint_onnx(model(*nodes, weights=scale), runtime) == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("NonZero", "depends on the data"),
        ("Compress", "no importer"),
        ("MatMulInteger", "integer arithmetic"),
        ("BitwiseNot", "no importer"),
    ],
)
def test_tensorrt_has_no_importer_for_some_operators(kind, reason):
    found = dict(errors("tensorrt", node(kind, "x x" if kind == "MatMulInteger" else "x")))

    assert reason in found[kind]


def test_tensorrt_engines_do_not_branch():
    flag, count = value("flag", (), TensorProto.BOOL), value("count", (), INT64)
    branch = helper.make_graph([node("Relu", "x", "r")], "branch", [], [value("r")])
    nodes = node("Identity", "again", "go_on"), node("Relu", "v", "r")
    again = value("again", (), TensorProto.BOOL)
    go_on = value("go_on", (), TensorProto.BOOL)
    step = value("step", (), INT64)
    body = helper.make_graph(nodes, "body", [step, again, value("v")], [go_on, value("r")])

    found = errors(
        "tensorrt",
        node("If", "flag", "chosen", then_branch=branch, else_branch=branch),
        node("Loop", "count flag chosen", "y", body=body),
        inputs=(value("x"), flag, count),
    )

    assert [kind for kind, _ in found] == ["If", "Loop"]
    assert all("control flow" in reason for _, reason in found)


def test_tensorrt_needs_plugins_for_other_domains():
    fused = helper.make_node("FusedGelu", ["x"], ["y"], domain="com.microsoft")

    ((kind, reason),) = errors("tensorrt", fused, domains=("com.microsoft",))

    assert kind == "FusedGelu"
    assert "com.microsoft" in reason


def test_tensorrt_takes_no_size_from_data():
    """What SAM's own decoder does with the size of the image."""
    inputs = value("x"), value("size", (4,), INT64)

    ((kind, reason),) = errors(
        "tensorrt", node("Resize", "x   size"), inputs=inputs, output=value("y", None)
    )

    assert kind == "Resize"
    assert "shape tensor" in reason
    assert "'size'" in reason


def test_tensorrt_follows_data_to_the_size_it_decides():
    inputs = value("x"), value("boxes", (4,))
    nodes = (node("Cast", "boxes", "size", to=INT64), node("Expand", "x size"))

    found = errors("tensorrt", *nodes, inputs=inputs, output=value("y", None))

    assert [kind for kind, _ in found] == ["Expand"]


def test_tensorrt_is_told_of_sizes_that_are_computed_from_sizes():
    nodes = node("Shape", "x", "size"), node("Expand", "x size")

    assert errors("tensorrt", *nodes) == []
    assert "fix the sizes" in dict(notes("tensorrt", *nodes))["Expand"]


def test_tensorrt_needs_a_profile_for_open_sizes():
    ((kind, reason),) = notes("tensorrt", node("Relu"), inputs=(value("x", ("N", 8, 4, 4)),))

    assert kind == "input"
    assert "optimisation profile" in reason


SCALES = {"scales": np.array([1, 1, 2, 2], np.float32)}


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"mode": "linear"}, None),
        ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}, None),
        ({"mode": "cubic"}, "resizes by 'cubic'"),
        ({"mode": "linear", "antialias": 1}, "antialias"),
        (
            {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"},
            "samples by 'half_pixel_symmetric'",
        ),
    ],
)
def test_tensorrt_resizes_in_some_ways_only(attributes, reason):
    resize = node("Resize", "x  scales", **attributes)
    found = errors("tensorrt", resize, weights=SCALES, output=value("y", (1, 8, 8, 8)))

    assert [why for _, why in found] == [] if reason is None else reason in found[0][1]


def test_tensorrt_casts_bytes_right_at_the_input():
    pixels = (value("x", (4, 4, 3), UINT8),)
    turned = value("y", (3, 4, 4))
    cast_first = node("Cast", "x", "f", to=FLOAT), node("Transpose", "f", perm=[2, 0, 1])
    cast_last = node("Transpose", "x", "t", perm=[2, 0, 1]), node("Cast", "t", to=FLOAT)

    assert errors("tensorrt", *cast_first, inputs=pixels, output=turned) == []
    ((kind, reason),) = errors("tensorrt", *cast_last, inputs=pixels, output=turned)
    assert kind == "Transpose"
    assert "uint8" in reason


def test_tensorrt_casts_int64_down_before_version_10():
    labels = (value("x", (1, 6), INT64),)

    ((kind, reason),) = notes(
        "tensorrt", node("Abs"), inputs=labels, output=value("y", (1, 6), INT64)
    )

    assert kind == "Abs"
    assert "int64" in reason


@pytest.mark.parametrize(("zero_point", "num_errors"), [(0, 0), (3, 1)])
def test_tensorrt_quantises_around_zero(zero_point, num_errors):
    weights = {"scale": np.float32(0.1), "zero": np.int8(zero_point)}
    weights = {name: np.asarray(array) for name, array in weights.items()}
    nodes = node("QuantizeLinear", "x scale zero", "q"), node("DequantizeLinear", "q scale zero")

    assert len(errors("tensorrt", *nodes, weights=weights)) == 2 * num_errors


def test_tensorrt_needs_stored_weights_for_transposed_convolutions():
    inputs = value("x"), value("w", (8, 8, 2, 2))
    conv = node("ConvTranspose", "x w", strides=[2, 2])

    ((kind, reason),) = errors("tensorrt", conv, inputs=inputs, output=value("y", (1, 8, 8, 8)))

    assert kind == "ConvTranspose"
    assert "initializers" in reason


def test_tensorrt_knows_no_ellipsis():
    product = node("Einsum", "x x", equation="...ab,...cb->...ac")

    assert "ellipsis" in dict(errors("tensorrt", product))["Einsum"]


def test_webgpu_leaves_large_results_without_a_kernel_to_the_cpu():
    large = (value("x", (1, 8, 96, 96)),)  # 73,728 numbers
    output = value("y", (1, 8, 96, 96))

    ((kind, reason),) = errors("webgpu", node("Sign"), inputs=large, output=output)

    assert kind == "Sign"
    assert "no WebGPU kernel" in reason


def test_webgpu_may_leave_small_results_to_the_cpu():
    assert errors("webgpu", node("Sign")) == []
    assert [kind for kind, _ in notes("webgpu", node("Sign"))] == ["Sign"]


def test_webgpu_counts_open_sizes_as_many_prompts():
    small = (value("x", ("N", "P", 5)),)
    large = (value("x", ("N", 4, 64, 64)),)  # 16 * 16,384 numbers

    output = value("y", None)
    assert errors("webgpu", node("Sign"), inputs=small, output=output) == []
    assert len(errors("webgpu", node("Sign"), inputs=large, output=output)) == 1


def test_webgpu_does_not_compute_with_int64():
    large = (value("x", (1, 8, 96, 96), INT64),)
    output = value("y", (1, 8, 96, 96), INT64)

    ((kind, reason),) = errors("webgpu", node("Neg"), inputs=large, output=output)

    assert kind == "Neg"
    assert "INT64" in reason


def test_webgpu_lets_sizes_be_computed_on_the_cpu():
    weights = {"first": np.array([0]), "tail": np.array([8, 16])}
    nodes = (
        node("Shape", "x", "shape"),
        node("Gather", "shape first", "n"),
        node("Concat", "n tail", "size", axis=0),
        node("Reshape", "x size"),
    )

    assert lint_onnx(model(*nodes, weights=weights, output=value("y", (1, 8, 16))), "webgpu") == []


def test_webgpu_may_take_indices_as_int64():
    weights = {"rows": np.array([0, 2])}
    gather = node("Gather", "x rows", axis=2)

    found = lint_onnx(model(gather, weights=weights, output=value("y", (1, 8, 2, 4))), "webgpu")

    assert found == []


def test_webgpu_has_no_convolution_over_volumes():
    volume = (value("x", (1, 2, 4, 4, 4)),)
    weights = {"w": np.ones((2, 2, 1, 1, 1), np.float32)}

    ((kind, reason),) = errors(
        "webgpu",
        node("Conv", "x w"),
        inputs=volume,
        weights=weights,
        output=value("y", (1, 2, 4, 4, 4)),
    )

    assert kind == "Conv"
    assert "volumes" in reason


def test_a_file_is_read_too(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model(node("NonZero"), output=value("y", None, INT64)), path)

    assert lint_onnx(path, "tensorrt")[0].operation == "NonZero"


def test_what_is_no_onnx_file_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")

    with pytest.raises(ExportError, match="cannot read it as ONNX"):
        lint_onnx(path, "webgpu")


def test_a_graph_without_the_operands_it_needs_is_refused():
    with pytest.raises(ExportError, match="not a valid ONNX graph: .*; export it again"):
        lint_onnx(model(node("MatMulInteger", "x")), "webgpu")


def test_other_runtimes_are_refused():
    with pytest.raises(ExportError, match="checked for tensorrt or webgpu, got 'neural_engine'"):
        lint_onnx(model(node("Relu")), "neural_engine")
