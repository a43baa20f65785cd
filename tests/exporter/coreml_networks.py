"""Networks, exported folders and a reference for the Core ML tests; small, to convert fast."""

import functools
from itertools import islice

import torch
from torch import nn

from edgeseg.export_manifest import (
    ExportedFile,
    ExportedTensor,
    ExportManifest,
    hash_of,
    size_of,
    write_export,
)
from edgeseg.exporter.coreml_files import CoreMLFacts, coreml_parts, export_coreml
from edgeseg.exporter.graphs import DecoderGraph, EncoderGraph
from edgeseg.exporter.proof import PairAnswerer, compare
from edgeseg.exporter.proof_cases import build_proof_images
from edgeseg.exporter.proof_report import ProofReport
from edgeseg.exporter.targets import ExportTarget, SlotsConfig, ToleranceConfig
from edgeseg.modeling.mask_decoder import MaskDecoder
from edgeseg.modeling.prompt_encoder import PromptEncoder
from edgeseg.modeling.promptable import PromptableNet, PyramidFeatures
from edgeseg.modeling.registry import build_model
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
from edgeseg.runtime.exported_model import ExportedModel
from edgeseg.runtime.segmenter import Segmenter

SIDE = 64
FEATURES = ("image_embedding", "high_res_s8", "high_res_s4")
SHA256 = "a1" * 32
FACTS = CoreMLFacts("edgeseg_tiny", SHA256, "CC0-1.0")
TOLERANCE = ToleranceConfig(max_logit_difference=0.03, min_mask_iou=0.97)


def randomised(module, seed=0):
    """Draw every weight, bias and statistic anew, zero-initialised ones too; return the module."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict(keep_vars=True).items():
            if not tensor.is_floating_point() or name.endswith("head_mask"):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(1 + 0.2 * noise.abs())
            elif tensor.ndim == 1:
                tensor.copy_(0.2 * noise)
            elif name.endswith("gaussian_matrix"):
                tensor.copy_(noise)
            else:
                tensor.copy_(noise / max(1, tensor[0].numel()) ** 0.5)
    return module


def tiny_net(depth=2, name="edgeseg_tiny"):
    """A whole network with random weights; `depth` blocks in its decoder's transformer."""
    net = randomised(build_model(name, SIDE)).eval()
    transformer = net.mask_decoder.transformer
    transformer.layers = transformer.layers[:depth]
    return net


class FewConvolutions(nn.Module):
    """The least that an image encoder can be."""

    def __init__(self):
        super().__init__()
        self.to4 = nn.Conv2d(3, 4, 4, stride=4)
        self.to8 = nn.Conv2d(4, 6, 2, stride=2)
        self.to16 = nn.Conv2d(6, 32, 2, stride=2)
        self.mix = nn.Conv2d(32, 32, 1)

    def forward(self, images):
        stride4 = self.to4(images)
        stride8 = self.to8(stride4)
        return PyramidFeatures(self.mix(self.to16(stride8)), stride8, stride4)


@functools.cache
def plain_net():
    """A whole network of few operations: SAM's decoder of one block behind a few convolutions."""
    decoder = MaskDecoder(32, 64, depth=1)
    net = PromptableNet(FewConvolutions(), PromptEncoder(32), decoder, SIDE, FACTS.model)
    return randomised(net).eval()


def target(num_prompts=2, **settings):
    return ExportTarget(
        name="coreml_test",
        description="For tests.",
        format="coreml",
        slots=SlotsConfig(num_prompts=num_prompts, num_points=6),
        tolerance=TOLERANCE,
        **{"precision": "float16", "normalises": True, **settings},
    )


def write_folder(folder, parts, settings):
    """Export parts into a folder with its manifest; return the folder."""
    folder.mkdir(exist_ok=True)
    files = [_write(folder, part, settings) for part in parts]
    return describe_folder(folder, files, settings)


def describe_folder(folder, files, settings):
    """Write the manifest of files that are in a folder; return the folder."""
    write_export(folder, manifest_of(files, settings))
    return folder


def manifest_of(files, settings):
    return ExportManifest(
        model=FACTS.model,
        target=settings.name,
        format="coreml",
        precision=settings.precision,
        image_size=SIDE,
        normalises=settings.normalises,
        pixel_mean=tuple(PIXEL_MEAN.tolist()),
        pixel_std=tuple(PIXEL_STD.tolist()),
        padding="the mean colour",
        files=tuple(files),
        versions={},
        weights_sha256=FACTS.weights_sha256,
        licence=FACTS.licence,
    )


def _write(folder, part, settings):
    path = folder / f"{part.role}.mlpackage"
    export_coreml(part, path, settings, FACTS)
    return described(path, part.role, part.spec)


def described(path, role, spec):
    """Describe a package of a role for the manifest."""
    inputs, outputs = (
        tuple(ExportedTensor(name=t.name, shape=t.shape, dtype=t.dtype) for t in tensors)
        for tensors in (spec.inputs, spec.outputs)
    )
    return ExportedFile(
        path=path.name,
        role=role,
        sha256=hash_of(path),
        size_bytes=size_of(path),
        inputs=inputs,
        outputs=outputs,
    )


def prove(net, candidate, features=FEATURES, with_masks=True, tolerance=TOLERANCE):
    """Hold an answerer against PyTorch on the proof's second image, which is wide."""
    reference = PairAnswerer(Segmenter(torch_pair(net, target())))
    chosen = islice(build_proof_images(SIDE, (), 6, with_masks), 1, 2)
    cases = tuple(compare(reference, candidate, chosen, SIDE, features))
    return ProofReport("test", "interpreter", tolerance, cases)


class TorchGraph:
    """A graph as the runtime sees a loaded file, run by PyTorch."""

    def __init__(self, graph, spec):
        self.graph, self.inputs = graph, spec.inputs
        self.output_names = [tensor.name for tensor in spec.outputs]
        self.runs_on = ("torch",)

    def run(self, feeds):
        tensors = [torch.from_numpy(feeds[spec.name].copy()) for spec in self.inputs]
        with torch.inference_mode():
            answers = self.graph(*tensors)
        return {n: a.numpy() for n, a in zip(self.output_names, answers, strict=True)}


def torch_pair(net, settings, **halves):
    """Encoder and decoder as a backend, each run by PyTorch unless another graph is given."""
    encoder, decoder = (part.spec for part in islice(coreml_parts(net, settings), 2))
    ours = {
        "encoder": TorchGraph(EncoderGraph(net, normalises=True), encoder),
        "decoder": TorchGraph(DecoderGraph(net), decoder),
    }
    return ExportedModel(manifest_of([], settings), **{**ours, **halves})


@functools.cache
def shared_net():
    """The network that most tests convert."""
    return tiny_net(depth=1)
