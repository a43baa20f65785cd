from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from tiny_exports import (
    SIDE,
    answers_of,
    decoder_export,
    decoder_graph,
    encoder_export,
    encoder_graph,
    features_of,
    fused_export,
    prompt_inputs,
    tiny_net,
)
from torch import nn

import edgeseg
from edgeseg.errors import ExportError
from edgeseg.exporter import onnx_files
from edgeseg.exporter.graphs import FusedGraph, shape_of
from edgeseg.exporter.onnx_files import convert, export_onnx, simplified, write_onnx
from edgeseg.exporter.onnx_inputs import example_inputs
from edgeseg.exporter.onnx_names import name_sizes
from edgeseg.exporter.onnx_sessions import largest_difference, open_session, runner_of
from edgeseg.signature import GraphSpec, PromptSlots, TensorSpec, decoder_spec, encoder_spec

TOLERANCE = 1e-4  # ten times less than a file may differ


def assert_equal(answers, expected):
    assert answers.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(answers[name], array, rtol=0, atol=TOLERANCE, err_msg=name)


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.fixture(scope="module")
def any_decoder():
    """Run the one file that takes any number of prompts and points."""
    return runner_of(decoder_export().model)


@pytest.mark.parametrize("num_prompts", [1, 2, 8, 64])
@pytest.mark.parametrize("num_points", [1, 2, 3, 4, 5])
def test_one_decoder_answers_any_number_of_prompts_and_points(any_decoder, num_prompts, num_points):
    inputs = features_of() | prompt_inputs(num_prompts, num_points)

    assert_equal(any_decoder(inputs), answers_of(decoder_graph(), inputs))


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param([1, -2, -2], id="one point"),
        pytest.param([-2, -2, 1], id="a point in the last slot"),
        pytest.param([1, 0, 1], id="points of both labels"),
        pytest.param([2, 3, -2], id="box"),
        pytest.param([0, 2, 3], id="box and point"),
        pytest.param([-2, -2, -2], id="mask alone"),
    ],
)
@pytest.mark.parametrize("has_mask", [0.0, 1.0])
def test_every_kind_of_prompt_is_answered(any_decoder, labels, has_mask):
    inputs = features_of() | prompt_inputs(1, 3)
    inputs["point_labels"] = np.array([labels])
    inputs["has_mask"] = np.array([has_mask], np.float32)

    assert_equal(any_decoder(inputs), answers_of(decoder_graph(), inputs))


def test_prompts_do_not_see_each_other(any_decoder):
    inputs = prompt_inputs(8, 4)
    together = any_decoder(features_of() | inputs)

    for row in range(8):
        alone = any_decoder(features_of() | {n: a[row : row + 1] for n, a in inputs.items()})

        assert_equal(alone, {name: array[row : row + 1] for name, array in together.items()})


def swap_xy(inputs):
    inputs["points_xy_model"] = inputs["points_xy_model"][..., ::-1].copy()


def hide_absent_slots(inputs):
    inputs["point_labels"] = np.where(inputs["point_labels"] == -2, -1, inputs["point_labels"])


def turn_labels(inputs):
    labels = inputs["point_labels"]
    inputs["point_labels"] = np.where(np.isin(labels, (0, 1)), 1 - labels, labels)


def drop_masks(inputs):
    inputs["has_mask"][:] = 0


def shift_points(inputs):
    inputs["points_xy_model"] += 0.5


@pytest.mark.parametrize(
    "damage", [swap_xy, hide_absent_slots, turn_labels, drop_masks, shift_points]
)
def test_a_mistake_about_the_inputs_would_be_seen(any_decoder, damage):
    inputs = features_of() | prompt_inputs(8, 4)
    expected = answers_of(decoder_graph(), inputs)

    damage(inputs)

    difference = largest_difference([expected], [any_decoder(inputs)])
    assert difference > 100 * TOLERANCE


def test_inputs_and_outputs_are_those_of_the_specification():
    graph, spec = decoder_export().model.graph, decoder_spec(shape_of(tiny_net()), PromptSlots())

    for values, tensors in ((graph.input, spec.inputs), (graph.output, spec.outputs)):
        found = [
            (v.name, tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim))
            for v in values
        ]
        assert found == [(tensor.name, tensor.shape) for tensor in tensors]
    assert {size for t in spec.inputs for size in t.shape if isinstance(size, str)} == {"N", "P"}


def test_the_decoder_of_any_size_reads_few_shapes_and_has_no_control_flow():
    found = operators(decoder_export().model)

    assert found["Shape"] <= 2  # N and P
    assert not {"If", "Loop", "Scan", "NonZero", "Range"} & found.keys()


def test_a_decoder_of_fixed_sizes_reads_no_shape():
    fixed = decoder_export("vit_tiny", 4, 3, "int32")
    inputs = features_of("vit_tiny") | prompt_inputs(4, 3, labels="int32")

    assert not {"Shape", "If", "Loop", "Range", "ConstantOfShape"} & operators(fixed.model).keys()
    assert_equal(runner_of(fixed.model)(inputs), answers_of(decoder_graph("vit_tiny"), inputs))


def test_the_file_computes_the_image_side_of_the_first_attention_once():
    model = decoder_export().model
    values = onnx.shape_inference.infer_shapes(model).graph.value_info
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    prefix = "mask_decoder.transformer.layers.0.cross_attn_token_to_image."

    for projection in ("k_proj", "v_proj"):
        nodes = [n for n in model.graph.node if n.name.startswith(prefix + projection)]
        assert nodes
        assert all(shapes[n.output[0]] == [1, 16, 16] for n in nodes)  # one image, 16 cells


def test_the_encoder_takes_bytes_and_gives_all_features():
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    export = encoder_export(normalises=True)
    with torch.inference_mode():
        expected = encoder_graph(normalises=True)(torch.from_numpy(image))

    answers = runner_of(export.model)({"image_rgb": image})

    names = ["image_embedding", "high_res_s8", "high_res_s4"]
    assert_equal(answers, dict(zip(names, (array.numpy() for array in expected), strict=True)))


@pytest.mark.slow
def test_the_fused_file_takes_points_of_the_image():
    inputs = {
        "image": np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32),
        "image_hw": np.array([53, 90], np.float32),
        "points_xy_image": np.array([[[80, 5], [0, 0]], [[8, 30], [70, 50]]], np.float32),
        "point_labels": np.array([[1, -2], [2, 3]]),
    }
    expected = answers_of(FusedGraph(tiny_net("vit_tiny")), inputs)
    run = runner_of(fused_export().model)

    assert_equal(run(inputs), expected)
    swapped = inputs | {"image_hw": np.array([90, 53], np.float32)}
    assert largest_difference([expected], [run(swapped)]) > 100 * TOLERANCE


def test_onnx_runtime_recognises_gelu(tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        decoder_export().model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    found = operators(onnx.load(tmp_path / "optimized.onnx"))

    assert found["Gelu"] >= 4
    assert not {"Erf", "SkipLayerNormalization"} & found.keys()


def test_the_file_says_what_it_is_and_nothing_about_the_machine_that_made_it(tmp_path):
    path = tmp_path / "folder" / "decoder.onnx"
    model = decoder_export().model

    write_onnx(model, path, {"model": "edgeseg_tiny", "licence": "Apache-2.0"})

    written = onnx.load(path)
    props = {prop.key: prop.value for prop in written.metadata_props}
    assert props == {"model": "edgeseg_tiny", "licence": "Apache-2.0"}
    assert (written.producer_name, written.producer_version) == ("edgeseg", edgeseg.__version__)
    assert open_session(written).get_modelmeta().custom_metadata_map["model"] == "edgeseg_tiny"
    assert b".py" not in path.read_bytes()
    assert not model.metadata_props  # the argument is left as it was


def test_nodes_are_named_by_their_module():
    names = [node.name for node in encoder_export(normalises=True).model.graph.node]

    assert "image_encoder.neck.0/Conv" in names
    assert len(set(names)) == len(names)


class Doubler(nn.Module):
    def forward(self, x):
        return 2 * x


SPEC = GraphSpec((TensorSpec("x", ("N", 3)),), (TensorSpec("y", ("N", 3)),))


def rows(*counts):
    generator = np.random.default_rng(0)
    return [{"x": generator.uniform(1, 2, (n, 3)).astype(np.float32)} for n in counts]


def multiplier(factor):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy")
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
    node = helper.make_node("Mul", ["x", "factor"], ["y"], "mul")
    graph = helper.make_graph([node], "multiplier", [x], [y], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture
def translated(monkeypatch):
    """Let the translation of PyTorch's doubler multiply by another number."""

    def translate_to(factor):
        model = multiplier(factor)
        monkeypatch.setattr(onnx_files, "_translate", lambda *arguments: model)
        monkeypatch.setattr(onnx_files, "example_inputs", lambda spec: rows(2, 1, 5))

    return translate_to


def test_a_model_equal_to_pytorch_is_written(tmp_path):
    export = convert(Doubler(), SPEC, inputs=rows(2, 1, 5))
    write_onnx(export.model, tmp_path / "double.onnx")

    run = runner_of(onnx.load(tmp_path / "double.onnx"))

    assert run({"x": np.full((4, 3), 1.5, np.float32)})["y"].tolist() == [[3.0] * 3] * 4
    assert (export.max_difference, export.simplified) == (0, True)


def test_a_model_that_differs_from_pytorch_is_refused(translated):
    translated(2.01)

    with pytest.raises(ExportError, match=r"differs from PyTorch by 0\.0\d+, allowed are 0.001"):
        convert(Doubler(), SPEC)


def test_a_difference_within_tolerance_is_reported(translated):
    translated(2.0001)

    assert 0.0001 < convert(Doubler(), SPEC).max_difference < 0.0002  # inputs are 1 to 2


def test_a_simplification_that_changes_the_answers_is_not_kept(translated, monkeypatch):
    translated(2)
    monkeypatch.setattr(onnx_files, "simplified", lambda model: multiplier(2.0002))

    export = convert(Doubler(), SPEC)

    assert not export.simplified
    assert export.max_difference == 0


def test_nothing_is_written_when_a_check_fails(tmp_path, translated):
    path = tmp_path / "encoder.onnx"
    path.write_bytes(b"an older file")
    translated(3)

    with pytest.raises(ExportError, match="differs from PyTorch"):
        export_onnx(Doubler(), SPEC, path)

    assert path.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_passes_is_written_with_its_metadata(tmp_path, translated):
    translated(2)

    export_onnx(Doubler(), SPEC, tmp_path / "double.onnx", metadata={"licence": "CC0"})

    assert [p.value for p in onnx.load(tmp_path / "double.onnx").metadata_props] == ["CC0"]


def test_simplifying_folds_what_does_not_depend_on_the_inputs():
    spec = decoder_spec(shape_of(tiny_net()), PromptSlots())
    model = decoder_export().model
    sines = [node for node in model.graph.node if node.op_type == "Sin"]

    assert len(sines) == 1  # of the points; those of the grid are a constant
    again = runner_of(simplified(model))
    for inputs in example_inputs(spec, seed=5):
        assert_equal(again(inputs), runner_of(model)(inputs))


def test_old_operator_sets_are_refused():
    with pytest.raises(ExportError, match="opset must be 18 or newer, got 17; use 18"):
        convert(Doubler(), SPEC, opset=17)


def test_weights_that_no_file_holds_are_refused(monkeypatch):
    monkeypatch.setattr(onnx_files, "_MAX_BYTES", 10)
    spec = encoder_spec(shape_of(tiny_net()))

    with pytest.raises(ExportError, match="GB, and an ONNX file holds 2; export a smaller model"):
        convert(encoder_graph(), spec)


def test_a_size_that_was_recorded_instead_of_left_open_is_refused():
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["s0", 3]), ("y", [2, 3]))
    )
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])

    with pytest.raises(ExportError, match=r"y was recorded with the size 2 where it .* \(N\)"):
        name_sizes(helper.make_model(graph), SPEC)


def test_differences_of_shape_or_beyond_numbers_are_infinite():
    one = [{"y": np.zeros((2, 3), np.float32)}]

    assert largest_difference(one, [{"y": np.zeros((3, 2), np.float32)}]) == float("inf")
    assert largest_difference(one, [{"y": np.full((2, 3), np.nan, np.float32)}]) == float("inf")
    assert largest_difference(one, [{"y": np.full((2, 3), -0.25, np.float32)}]) == 0.25
