import json
import shutil

import numpy as np
import onnx
import pytest
from random_weights import randomised_tiny

import edgeseg
from edgeseg.errors import ConfigError, ExportError, WeightsError
from edgeseg.export_manifest import EXPORT_MANIFEST_NAME, hash_of, read_export, write_export
from edgeseg.exporter import release
from edgeseg.exporter.graphs import DecoderGraph, shape_of
from edgeseg.exporter.onnx_files import convert
from edgeseg.exporter.release import export_model
from edgeseg.exporter.targets import ExportTarget, ToleranceConfig
from edgeseg.exporter.verification import verify_export
from edgeseg.exporter.written_files import ExportFacts, WrittenFile
from edgeseg.modeling import ImageFeatures, PromptBatch
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.runtime import Segmenter
from edgeseg.signature import PromptSlots, decoder_spec, encoder_spec

FACTS = ExportFacts("a" * 64, "test licence")
STRICT = ToleranceConfig(max_logit_difference=1e-3, min_mask_iou=0.999)


def target(**settings):
    given = {"name": "t", "description": "d", "format": "onnx", "tolerance": STRICT, **settings}
    return ExportTarget.model_validate(given)


@pytest.fixture(scope="module")
def net():
    return randomised_tiny()


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    """A folder with encoder, decoder and fused file that take bytes."""
    out = tmp_path_factory.mktemp("exports") / "tiny"
    export_model(net, out, target(fused=True, normalises=True), FACTS)
    return out


@pytest.fixture
def copied(exported, tmp_path):
    """The same folder, free to be damaged."""
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_kept_export_segments_through_the_runtime_like_pytorch(net, exported):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 120, 3), np.uint8)
    prompt = edgeseg.Prompt(points_xy=[(100, 20)])
    segmenter, reference = edgeseg.load(exported), Segmenter(TorchBackend(net))

    logits, scores = segmenter.predict_logits(segmenter.encode(image), [prompt])
    expected = reference.predict_logits(reference.encode(image), [prompt])

    # The padding is the mean colour rounded to whole numbers, so not exactly zero.
    np.testing.assert_allclose(logits, expected[0], atol=0.1)
    np.testing.assert_allclose(scores, expected[1], atol=0.02)


def test_the_manifest_says_what_was_found(exported):
    manifest = read_export(exported)

    assert [file.role for file in manifest.files] == ["encoder", "decoder", "fused"]
    assert manifest.licence == "test licence"
    assert {"torch", "onnx", "onnxruntime", "edgeseg"} <= manifest.versions.keys()
    figures = {figure.output: figure for figure in manifest.parity}
    assert figures["pair.low_res_logits"].max_difference <= 1e-3
    assert figures["fused.masks"].min_mask_iou >= 0.999
    assert json.loads((exported / EXPORT_MANIFEST_NAME).read_text())["format_version"] == 1


@pytest.fixture
def written(exported, monkeypatch):
    """Let exports take the files of the fixture, and return the calibration images they got."""
    images = []

    def copy_files(net, folder, target, facts, calibration, say):
        images.extend(calibration)
        specs = {
            "encoder": encoder_spec(shape_of(net), True),
            "decoder": decoder_spec(shape_of(net), PromptSlots()),
        }
        for role in specs:
            shutil.copy(exported / f"{role}.onnx", folder)
        return [WrittenFile(f"{role}.onnx", role, spec) for role, spec in specs.items()]

    monkeypatch.setattr(release, "write_files", copy_files)
    return images


@pytest.mark.usefixtures("written")
def test_files_that_differ_are_not_kept(net, tmp_path):
    impossible = ToleranceConfig(max_logit_difference=1e-12, min_mask_iou=1)

    with pytest.raises(ExportError, match=r"pair of t is not equal to PyTorch: .*; nothing was"):
        export_model(net, tmp_path / "out", target(normalises=True, tolerance=impossible), FACTS)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ({"precision": "float32"}, 0),
        ({"precision": "float16"}, 4),
        ({"precision": "int8", "calibration": {"num_images": 3}}, 3),
    ],
)
def test_no_more_calibration_images_than_a_precision_uses(net, tmp_path, written, settings, used):
    image = np.zeros((8, 8, 3), np.uint8)
    tolerance = ToleranceConfig(min_mask_iou=0.001)
    chosen = target(normalises=True, tolerance=tolerance, **settings)

    export_model(net, tmp_path / "out", chosen, FACTS, calibration=[image] * 9)

    assert len(written) == used


def test_a_folder_with_something_in_it_is_left_alone(net, tmp_path):
    (tmp_path / "precious").write_text("")

    with pytest.raises(ConfigError, match="is not empty; choose another folder"):
        export_model(net, tmp_path, target(), FACTS)


def test_static_int8_asks_for_calibration_images(net, tmp_path):
    with pytest.raises(ConfigError, match=r"needs calibration images; .*--calibrate"):
        export_model(net, tmp_path / "o", target(precision="int8", calibration={}), FACTS)


@pytest.mark.usefixtures("written")
def test_accuracy_that_was_asked_for_and_not_measured_is_no_pass(net, tmp_path):
    asked = ToleranceConfig(min_mask_iou=0.999, max_miou_loss=1.0)

    result = export_model(net, tmp_path / "out", target(normalises=True, tolerance=asked), FACTS)

    assert result.report.status == "SKIP"
    assert "give labelled images" in result.report.parts[0].reason


def test_other_weights_of_the_same_network_are_found_out(exported):
    report = verify_export(exported, randomised_tiny(seed=1), STRICT)

    assert report.status == "FAIL"
    assert [part.status for part in report.parts] == ["FAIL", "FAIL"]


def test_weights_of_another_network_are_refused(exported):
    net = randomised_tiny(image_size=128)

    with pytest.raises(WeightsError, match="with 64 pixel input, got weights of edgeseg_tiny"):
        verify_export(exported, net, STRICT)


def mutate(folder, name, change):
    """Change a graph and let the manifest say that this is how it was meant."""
    path = folder / f"{name}.onnx"
    model = onnx.load(path)
    change(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    manifest = read_export(folder, check_hashes=False)
    files = tuple(
        file.model_copy(update={"sha256": hash_of(folder / file.path)}) for file in manifest.files
    )
    write_export(folder, manifest.model_copy(update={"files": files}))


def initializers(graph):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def replace_initializer(graph, name, array):
    (place,) = (tensor for tensor in graph.initializer if tensor.name == name)
    place.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))


def swap_xy(graph, points="points_xy_model"):
    for node in graph.node:
        node.input[:] = ["swapped_xy" if name == points else name for name in node.input]
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0]), "yx"))
    gather = onnx.helper.make_node("Gather", [points, "yx"], ["swapped_xy"], axis=2)
    graph.node.insert(0, gather)


def shift_mean(graph):
    (name,) = (
        name
        for name, array in initializers(graph).items()
        if array.size == 3 and np.allclose(array.ravel(), [123.675, 116.28, 103.53])
    )
    replace_initializer(graph, name, initializers(graph)[name] + np.float32(1))


def transpose_weight(graph):
    square = [
        name
        for name, array in initializers(graph).items()
        if array.ndim == 2 and array.shape[0] == array.shape[1] == 32
    ]
    replace_initializer(graph, square[0], initializers(graph)[square[0]].T)


@pytest.mark.parametrize(
    ("name", "change", "part"),
    [
        ("decoder", swap_xy, "pair"),
        ("encoder", shift_mean, "pair"),
        ("decoder", transpose_weight, "pair"),
        ("fused", lambda graph: swap_xy(graph, "points_xy_image"), "fused"),
        ("fused", shift_mean, "fused"),
    ],
    ids=["swapped xy", "mean", "transposed", "fused xy", "fused mean"],
)
def test_a_planted_fault_is_found(net, copied, name, change, part):
    mutate(copied, name, change)

    report = verify_export(copied, net, STRICT)

    assert {found.part: found.status for found in report.parts} == {
        **{"pair": "PASS", "fused": "PASS"},
        part: "FAIL",
    }


class WithoutPaddingPoint(DecoderGraph):
    """What many exports of SAM are: a decoder that leaves the padding point to the app."""

    def forward(self, *tensors):
        embedding, *high_res = tensors[: self.num_features]
        points_xy, labels, masks, has_mask = tensors[self.num_features :]
        prompts = PromptBatch(points_xy, labels, (len(points_xy),), masks, has_mask)
        features = ImageFeatures(embedding, tuple(high_res))
        output = self.net.decode(features, prompts, add_padding_point=False)
        return output.low_res_logits, output.iou_scores


def test_a_dropped_padding_point_is_found(net, copied):
    slots = PromptSlots(1, 6)  # fixed sizes convert faster
    export = convert(WithoutPaddingPoint(net), decoder_spec(shape_of(net), slots))
    mutate(copied, "decoder", lambda graph: graph.CopyFrom(export.model.graph))

    report = verify_export(copied, net, STRICT)

    assert {found.part: found.status for found in report.parts} == {"pair": "FAIL", "fused": "PASS"}
    assert "point" in report.parts[0].reason


def test_an_unchanged_copy_passes_as_the_faults_are_planted(net, copied):
    mutate(copied, "decoder", lambda graph: None)

    assert verify_export(copied, net, STRICT).status == "PASS"
