"""What becomes of adapters in exported files: ONNX in ONNX Runtime, Core ML in our interpreter."""

import functools

import pytest
import torch
from adapted_networks import SIDE, padded_images, randomised, tiny_net
from torch import nn

from edgeseg.adapt.convolutional_adapter import build_cad_lite
from edgeseg.adapt.in_encoder_adapter import adapter_parameters, with_in_encoder_adapters
from edgeseg.adapt.neck_delta import NeckDelta, neck_of
from edgeseg.exporter.coreml_files import CoreMLFacts, CoreMLPart, export_coreml
from edgeseg.exporter.graphs import EncoderGraph, shape_of
from edgeseg.exporter.lint import lint_coreml, lint_onnx
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package
from edgeseg.exporter.onnx_files import convert
from edgeseg.exporter.targets import ExportTarget, SlotsConfig, ToleranceConfig
from edgeseg.modeling.promptable import freeze
from edgeseg.modeling.reparam import fuse
from edgeseg.signature import GraphSpec, encoder_spec

SPEC = encoder_spec(shape_of(tiny_net()))
CORRECTION_SPEC = GraphSpec(SPEC.inputs, SPEC.outputs[:1])


def inputs():
    """Random photographs, without and with padding."""
    return [{"image": padded_images(size_hw).numpy()} for size_hw in [(64, 64), (40, 64), (64, 24)]]


class CorrectedEncoder(nn.Module):
    """Encoder and adapter in one graph."""

    def __init__(self, net, adapter):
        super().__init__()
        self.encoder = EncoderGraph(net)
        self.adapter = freeze(fuse(adapter))

    def forward(self, image):
        embedding, *high_res = self.encoder(image)
        return self.adapter(image, embedding), *high_res


class Correction(nn.Module):
    """What an adapter adds, alone."""

    def __init__(self, adapter):
        super().__init__()
        self.adapter = freeze(fuse(adapter))

    def forward(self, image):
        return self.adapter.scale * self.adapter.correction(image)


def corrected():
    return CorrectedEncoder(tiny_net(), randomised(build_cad_lite(SIDE, 32, 12)))


def merged():
    return EncoderGraph(randomised(NeckDelta(neck_of(tiny_net()), 4)).merge_into(tiny_net()))


def with_adapters(name="edgeseg_tiny"):
    adapted = with_in_encoder_adapters(tiny_net(name), 8)
    for parameter in adapter_parameters(adapted).values():
        parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return EncoderGraph(adapted)


def plain():
    return EncoderGraph(tiny_net())


@functools.cache
def export_of(build):
    return convert(build(), SPEC, inputs=inputs())


@pytest.mark.parametrize("build", [corrected, merged, with_adapters])
def test_an_adapted_encoder_runs_from_onnx(build):
    image = padded_images((64, 64))
    with torch.no_grad():
        assert (build()(image)[0] - plain()(image)[0]).abs().max() > 0.1

    export = export_of(build)

    assert export.max_difference < 1e-4
    operators = {node.op_type for node in export.model.graph.node}
    assert not operators & {"DFT", "Gather", "GatherND", "Loop", "If", "BatchNormalization"}
    assert lint_onnx(export.model, "tensorrt") == lint_onnx(export.model, "webgpu") == []


def test_a_merged_delta_adds_no_node():
    ours, base = (
        [node.op_type for node in export_of(build).model.graph.node] for build in (merged, plain)
    )

    assert ours == base


def test_an_adapted_vit_runs_from_onnx():
    spec = encoder_spec(shape_of(tiny_net("vit_tiny")))

    export = convert(with_adapters("vit_tiny"), spec, inputs=inputs())

    assert export.max_difference < 1e-4
    assert "DFT" not in {node.op_type for node in export.model.graph.node}


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float16", 2e-3)])
def test_a_correction_runs_from_core_ml(tmp_path, precision, tolerance):
    graph = Correction(randomised(build_cad_lite(SIDE, 32, 12)))
    target = ExportTarget(
        name="correction",
        description="For tests.",
        format="coreml",
        precision=precision,
        slots=SlotsConfig(num_prompts=1, num_points=2),
        tolerance=ToleranceConfig(max_logit_difference=0.1, min_mask_iou=0.9),
    )
    path = tmp_path / "correction.mlpackage"

    part = CoreMLPart("encoder", graph, CORRECTION_SPEC)
    export_coreml(part, path, target, CoreMLFacts("edgeseg_tiny", "a1" * 32, "CC0-1.0"))

    package = load_package(path)
    if precision == "float16":
        assert lint_coreml(package) == []  # the Neural Engine takes all of it
    interpreter = Interpreter(package, precision)
    for each in inputs():
        answer = torch.from_numpy(interpreter.run(each)["image_embedding"])
        expected = graph(torch.from_numpy(each["image"]))
        assert expected.std() > 0.05
        torch.testing.assert_close(answer, expected, rtol=0, atol=tolerance)
