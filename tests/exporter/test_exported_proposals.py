"""Region proposals as files: made, proven and run beside encoder and decoder."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from random_weights import randomised_tiny

import edgeseg
from edgeseg.errors import WeightsError
from edgeseg.export_manifest import read_export, write_export
from edgeseg.exporter.coreml_answers import open_interpreted
from edgeseg.exporter.graphs import ProposalGraph, shape_of
from edgeseg.exporter.onnx_files import convert
from edgeseg.exporter.onnx_inputs import example_inputs
from edgeseg.exporter.onnx_precision import in_precision
from edgeseg.exporter.onnx_sessions import runner_of
from edgeseg.exporter.proof import PairAnswerer, box_overlap, compare
from edgeseg.exporter.proof_cases import ProofImage
from edgeseg.exporter.proof_report import ProofReport
from edgeseg.exporter.release import export_model
from edgeseg.exporter.targets import ExportTarget, find_target
from edgeseg.exporter.verification import verify_export
from edgeseg.exporter.written_files import ExportFacts, onnx_graphs
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.runtime import Segmenter
from edgeseg.signature import proposals_spec

FACTS = ExportFacts("a" * 64, "test licence")
IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


@pytest.fixture(scope="module")
def net():
    return randomised_tiny(proposes=True)


def target(name):
    """Return a released target without its fused file, whose tolerances suit trained weights."""
    found = find_target(name).model_dump() | {"fused": False}
    found["tolerance"] |= {"min_mask_iou": 0.5, "max_miou_loss": None}
    return ExportTarget.model_validate(found)


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "tiny"
    result = export_model(net, out, target("onnx_fp32"), FACTS)
    return out, result.report


def proposals_of(segmenter):
    return segmenter.propose(segmenter.encode(IMAGE))


def test_an_exported_model_proposes_what_pytorch_does(net, exported):
    expected = proposals_of(Segmenter(TorchBackend(net)))

    found = proposals_of(edgeseg.load(exported[0]))

    assert len(found) == len(expected) > 10
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=1e-2)


def test_everything_runs_on_exported_files(exported):
    found = edgeseg.load(exported[0]).segment_everything(IMAGE)

    assert found.num_prompts > 0


def test_the_proof_compares_boxes_and_scores(exported):
    figures = {f.output: f for f in exported[1].parts[0].report.figures()}

    boxes, scores = (figures[f"pair.proposal_{name}"] for name in ("boxes_xyxy_model", "scores"))
    assert boxes.min_mask_iou > 0.999
    assert boxes.max_difference < 0.01  # pixels
    assert scores.max_difference < 1e-5
    assert read_export(exported[0]).file("proposals").path == "proposals.onnx"


def test_half_precision_keeps_boxes_and_scores(net):
    spec = proposals_spec(shape_of(net))
    full = convert(ProposalGraph(net), spec).model
    (inputs,) = example_inputs(spec)

    half = in_precision(full, spec, "float16").model

    expected, found = (runner_of(model)(inputs) for model in (full, half))
    for name in ("proposal_scores", "proposal_click_logits"):
        np.testing.assert_allclose(found[name], expected[name], atol=0.02)
    boxes = (answers["proposal_boxes_xyxy_model"][0] for answers in (expected, found))
    assert box_overlap(*boxes).iou > 0.99


def test_a_core_ml_package_proposes_on_the_interpreter_and_keeps_to_the_neural_engine(
    net, tmp_path
):
    result = export_model(net, tmp_path / "out", target("coreml_fp16"), FACTS)

    backend = open_interpreted(result.folder)
    expected = proposals_of(Segmenter(TorchBackend(net, normalises=True)))
    found = proposals_of(Segmenter(backend))
    np.testing.assert_allclose(found.scores[:10], expected.scores[:10], atol=0.02)
    notes = result.manifest.file("proposals").notes
    assert not [note for note in notes if "refuse" in note]


class Swapped(TorchBackend):
    """Proposes boxes with x and y exchanged."""

    def propose(self, features):
        cells = super().propose(features)
        return replace(cells, boxes_xyxy=cells.boxes_xyxy[:, [1, 0, 3, 2]])


def test_boxes_with_x_and_y_swapped_are_caught(net):
    pairs = (PairAnswerer(Segmenter(kind(net)), True) for kind in (TorchBackend, Swapped))
    images = [ProofImage("noise", IMAGE, {})]

    cases = tuple(compare(*pairs, images, net.image_size, ["embedding", "s8", "s4"]))

    report = ProofReport("pair", "torch", target("onnx_fp32").tolerance, cases)
    assert not report.passed
    assert all("proposal_boxes_xyxy_model" in failure for failure in report.failures)


def test_files_of_another_head_do_not_verify(exported, tmp_path):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    other = randomised_tiny(proposes=True)
    with_other_bias = other.proposal_head.predictions[0].bias
    with_other_bias.data[5] += 1.0

    report = verify_export(folder, other, target("onnx_fp32").tolerance)

    assert report.status == "FAIL"
    assert "proposal_scores" in report.parts[0].reason


def test_a_model_without_a_head_has_no_such_file():
    net = randomised_tiny()

    roles = [role for role, *_ in onnx_graphs(net, target("onnx_fp32"))]

    assert roles == ["encoder", "decoder"]


def test_a_folder_without_proposals_says_so(exported, tmp_path):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    manifest = read_export(folder)
    kept = tuple(file for file in manifest.files if file.role != "proposals")
    write_export(folder, manifest.model_copy(update={"files": kept}))

    with pytest.raises(WeightsError, match="the exported edgeseg_tiny proposes nothing; export w"):
        proposals_of(edgeseg.load(folder))


def test_overlap_of_boxes_is_that_of_their_areas():
    ours = np.float32([[0, 0, 4, 4], [10, 10, 12, 12]])
    theirs = np.float32([[2, 0, 6, 4], [20, 20, 22, 22]])

    overlap = box_overlap(ours, theirs)  # 8 of 24, and 0 of 8

    assert (overlap.both, overlap.either) == (8, 32)
