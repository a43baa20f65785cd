import shutil
from itertools import islice

import numpy as np
import pytest
from coreml_networks import (
    FACTS,
    SHA256,
    SIDE,
    describe_folder,
    described,
    plain_net,
    prove,
    shared_net,
    target,
    write_folder,
)

from edgeseg.errors import ExportError
from edgeseg.exporter.coreml_answers import MilGraph, open_interpreted
from edgeseg.exporter.coreml_compression import compress
from edgeseg.exporter.coreml_files import CoreMLPart, coreml_parts, export_coreml
from edgeseg.exporter.coreml_tools import quiet_coremltools
from edgeseg.exporter.fused_answers import FusedAnswerer
from edgeseg.exporter.lint import check_lint, lint_coreml
from edgeseg.exporter.mil.package import load_package
from edgeseg.exporter.proof import PairAnswerer
from edgeseg.exporter.targets import CompressionConfig
from edgeseg.runtime.segmenter import Segmenter
from edgeseg.signature import GraphSpec, TensorSpec

SETTINGS = target(num_prompts=2)
FUSED_SETTINGS = target(num_prompts=1, fused=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Encoder and decoder of edgeseg_tiny, two prompts a call, half precision."""
    place = tmp_path_factory.mktemp("coreml") / "pair"
    return write_folder(place, coreml_parts(shared_net(), SETTINGS), SETTINGS)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """Both in one, for a network of few operations, one prompt a call."""
    *_, part = coreml_parts(plain_net(), FUSED_SETTINGS)
    path = tmp_path_factory.mktemp("fused") / "fused.mlpackage"
    export_coreml(part, path, FUSED_SETTINGS, FACTS)
    return path


def decoder_part():
    return next(islice(coreml_parts(plain_net(), SETTINGS), 1, 2))


@pytest.mark.parametrize("arithmetic", ["float32", "float16"])
def test_saved_pair_answers_as_pytorch(folder, arithmetic):
    candidate = PairAnswerer(Segmenter(open_interpreted(folder, arithmetic)))

    report = prove(shared_net(), candidate)

    assert report.passed, report.failures
    assert len(report.cases) > 20


def test_saved_fused_package_answers_as_pytorch(fused):
    candidate = FusedAnswerer(MilGraph(fused), SIDE)

    report = prove(plain_net(), candidate, (), with_masks=False)

    assert report.passed, report.failures


def test_half_arithmetic_rounds_more_than_half_weights(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    exact = open_interpreted(folder, "float32").encode(pixels)[0]
    rounded = open_interpreted(folder, "float16").encode(pixels)[0]

    assert 0 < np.abs(rounded - exact).max() < 0.05


def test_packages_take_and_give_what_the_signature_says(folder, fused):
    pair = [MilGraph(folder / f"{role}.mlpackage") for role in ("encoder", "decoder")]
    specs = [part.spec for part in coreml_parts(shared_net(), SETTINGS)]
    *_, fused_part = coreml_parts(plain_net(), FUSED_SETTINGS)

    for graph, spec in zip([*pair, MilGraph(fused)], [*specs, fused_part.spec], strict=True):
        assert tuple(graph.inputs) == spec.inputs
        assert list(graph.output_names) == [tensor.name for tensor in spec.outputs]


def test_image_input_is_an_rgb_image(folder):
    (image,) = load_package(folder / "encoder.mlpackage").inputs

    assert (image.name, image.colors, image.shape) == ("image_rgb", "RGB", (SIDE, SIDE, 3))


def test_package_says_what_it_is(folder, fused):
    package = load_package(folder / "decoder.mlpackage")

    assert package.specification_version == 7  # iOS 16
    assert package.metadata["author"] == "The EdgeSeg developers"
    assert package.metadata["license"] == "CC0-1.0"
    assert package.metadata["version"] == FACTS.version
    assert package.metadata["edgeseg.weights_sha256"] == SHA256
    assert package.metadata["edgeseg.target"] == "coreml_test"
    assert "edgeseg_tiny, prompt decoder" in package.metadata["description"]
    assert "encoder and decoder in one" in load_package(fused).metadata["description"]


def test_every_input_and_output_is_described_with_its_frame(folder, fused):
    texts = {}
    for path in (folder / "encoder.mlpackage", folder / "decoder.mlpackage", fused):
        package = load_package(path)
        texts |= {feature.name: feature.description for feature in package.inputs}
        texts |= {feature.name: feature.description for feature in package.outputs}

    assert all(len(text) > 20 for text in texts.values())
    assert "64 pixels" in texts["image_rgb"]
    assert "(124, 116, 104)" in texts["image_rgb"]
    assert "x then y, in pixels of the scaled image" in texts["points_xy_model"]
    assert "x then y, in pixels of the original image" in texts["points_xy_image"]


def test_only_the_places_of_prompts_are_computed_in_single_precision(folder):
    package = load_package(folder / "decoder.mlpackage")
    types = {kind: set() for kind in ("sin", "floor", "exp", "conv", "matmul", "softmax")}
    for operation in package.operations:
        if operation.kind in types:
            types[operation.kind] |= {output.type.dtype for output in operation.outputs}

    assert types["sin"] == types["floor"] == types["exp"] == {"fp32"}
    assert types["conv"] == types["matmul"] == types["softmax"] == {"fp16"}


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_neural_engine_takes_the_pair(folder, role):
    check_lint(lint_coreml(folder / f"{role}.mlpackage"))


def test_neural_engine_takes_the_fused_package(fused):
    check_lint(lint_coreml(fused))


def test_decoder_has_one_norm_operation_a_norm(folder):
    """The form of the norms is recognised: no means and roots are left over."""
    kinds = [operation.kind for operation in load_package(folder / "decoder.mlpackage").operations]

    # Four in the block, one after it, one in the upscaling, two in the mask prompt.
    assert kinds.count("layer_norm") == 8
    assert "reduce_mean" not in kinds
    assert "rsqrt" not in kinds


def test_nothing_but_the_packages_is_left_on_disk(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "decoder.mlpackage",
        "encoder.mlpackage",
        "export.json",
    ]


@pytest.mark.parametrize(
    ("kind", "operation", "most_bytes", "error"),
    [
        ("linear8", "constexpr_affine_dequantize", 0.65, 0.05),
        ("palette6", "constexpr_lut_to_dense", 0.55, 0.2),
        ("palette4", "constexpr_lut_to_dense", 0.45, 0.6),
    ],
)
def test_compressed_weights_are_smaller_and_cost_accuracy(
    folder, tmp_path, kind, operation, most_bytes, error
):
    original, path = folder / "encoder.mlpackage", tmp_path / "encoder.mlpackage"
    with quiet_coremltools(tmp_path) as coremltools:
        model = coremltools.models.MLModel(str(original), skip_model_load=True)

    config = CompressionConfig(kind=kind, min_values=256, palette_min_values=256)
    compress(model, config, tmp_path).save(str(path))

    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    exact = MilGraph(original).run({"image_rgb": pixels})["image_embedding"]
    found = MilGraph(path).run({"image_rgb": pixels})["image_embedding"]
    package = load_package(path)
    compressed = {
        each.outputs[0].type.shape for each in package.operations if each.kind == operation
    }
    assert (96, 16, 1, 1) in compressed  # a convolution that mixes channels
    assert all(shape[1] > 1 and len(shape) == 4 for shape in compressed)  # none over depth alone
    assert weight_bytes(path) < most_bytes * weight_bytes(original)
    assert 1e-3 < np.abs(found - exact).mean() < error


def test_target_decides_on_compression(tmp_path):
    sizes = {"min_values": 500, "palette_min_values": 1024}
    settings = target(compression={"kind": "palette4", **sizes})
    path = tmp_path / "encoder.mlpackage"

    export_coreml(next(coreml_parts(plain_net(), settings)), path, settings, FACTS)

    package = load_package(path)
    assert package.metadata["edgeseg.compression"] == "palette4"
    assert "palettes of 16 values" in package.metadata["description"]
    # Of the 192, 96, 768 and 1024 weights the last are enough for a palette, 768 for 8 bits.
    (compressed,) = (each for each in package.operations if each.kind == "constexpr_lut_to_dense")
    assert compressed.outputs[0].type.shape == (32, 32, 1, 1)
    (linear,) = (e for e in package.operations if e.kind == "constexpr_affine_dequantize")
    assert np.prod(linear.outputs[0].type.shape) == 768


def weight_bytes(path):
    return sum(file.stat().st_size for file in path.rglob("weight.bin"))


def test_a_package_in_the_way_is_replaced(fused, tmp_path):
    path = tmp_path / "encoder.mlpackage"
    shutil.copytree(fused, path)
    settings = target()

    export_coreml(next(coreml_parts(plain_net(), settings)), path, settings, FACTS)

    assert load_package(path).metadata["edgeseg.role"] == "encoder"
    assert [entry.name for entry in tmp_path.iterdir()] == ["encoder.mlpackage"]


def test_a_package_that_cannot_be_converted_leaves_the_old_one(fused, tmp_path):
    path = tmp_path / "decoder.mlpackage"
    shutil.copytree(fused, path)
    part = decoder_part()

    class Unconvertible(type(part.graph)):
        def forward(self, *tensors):
            return tuple(tensor.cummax(0)[0].logit() for tensor in super().forward(*tensors))

    part.graph.__class__ = Unconvertible

    with pytest.raises(ExportError, match="coremltools cannot convert the decoder"):
        export_coreml(part, path, SETTINGS, FACTS)
    assert load_package(path).metadata["edgeseg.role"] == "fused"
    assert [entry.name for entry in tmp_path.iterdir()] == ["decoder.mlpackage"]


def test_package_of_another_ending_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"must end in \.mlpackage, got .*decoder\.mlmodel"):
        export_coreml(decoder_part(), tmp_path / "decoder.mlmodel", SETTINGS, FACTS)


def test_open_sizes_are_refused(tmp_path):
    part = decoder_part()
    spec = GraphSpec((TensorSpec("points_xy_model", ("N", 6, 2)),), part.spec.outputs)
    part = CoreMLPart("decoder", part.graph, spec)

    with pytest.raises(ExportError, match=r"points_xy_model must have fixed sizes .*set slots"):
        export_coreml(part, tmp_path / "decoder.mlpackage", SETTINGS, FACTS)


def test_interpreted_folder_has_the_name_and_size_of_its_manifest(folder):
    backend = open_interpreted(folder)

    assert (backend.name, backend.image_size, backend.normalises) == ("edgeseg_tiny", SIDE, True)


def test_damaged_package_is_found_by_its_hash(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with next(copy.glob("encoder.mlpackage/**/weight.bin")).open("r+b") as file:
        file.seek(200)
        file.write(b"\x7f")

    with pytest.raises(ValueError, match="damaged or was replaced"):
        open_interpreted(copy)


def test_folder_of_other_tensors_is_refused(folder, fused, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "decoder.mlpackage")
    shutil.copytree(fused, copy / "decoder.mlpackage")
    parts = list(coreml_parts(shared_net(), SETTINGS))
    files = [described(copy / f"{part.role}.mlpackage", part.role, part.spec) for part in parts]
    describe_folder(copy, files, SETTINGS)

    with pytest.raises(ValueError, match="the decoder must take .*, got "):
        open_interpreted(copy)
