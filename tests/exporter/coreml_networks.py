"""Networks, exported folders and a reference for the Core ML tests; small, so that they convert fast."""

import functools
from itertools import islice

import torch

from edgeseg.export_manifest import (
    ExportedFile,
    ExportedTensor,
    ExportManifest,
    hash_of,
    size_of,
    write_export,
)
from edgeseg.exporter.coreml_files import CoreMLFacts, export_coreml
from edgeseg.exporter.proof import PairAnswerer, ProofReport, compare
from edgeseg.exporter.proof_cases import build_proof_images
from edgeseg.exporter.targets import ExportTarget, SlotsConfig, ToleranceConfig
from edgeseg.modeling.registry import build_model
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
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
    manifest = ExportManifest(
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
    write_export(folder, manifest)
    return folder


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


def prove(net, candidate, features=FEATURES, num_images=2, with_masks=True):
    """Hold an answerer against PyTorch on a square and a wide image; return the report."""
    reference = PairAnswerer(Segmenter(TorchBackend(net, fused=True)))
    images = islice(build_proof_images(SIDE, (), 6, with_masks), num_images)
    cases = tuple(compare(reference, candidate, images, SIDE, features))
    return ProofReport("test", "interpreter", TOLERANCE, cases)


@functools.cache
def shared_net():
    """The network that most tests convert."""
    return tiny_net(depth=1)
