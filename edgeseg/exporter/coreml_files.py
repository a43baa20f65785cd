"""Graphs to `.mlpackage` files: conversion, descriptions, compression, and a safe place on disk."""

import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg import __version__
from edgeseg.errors import ExportError
from edgeseg.exporter import coreml_geometry
from edgeseg.exporter.coreml_compression import compress
from edgeseg.exporter.coreml_graphs import CoreMLDecoderGraph, CoreMLEncoderGraph, CoreMLFusedGraph
from edgeseg.exporter.coreml_texts import describe_model, describe_tensor
from edgeseg.exporter.coreml_tools import load_coremltools, quiet_coremltools
from edgeseg.exporter.graphs import ProposalGraph, shape_of
from edgeseg.exporter.targets import ExportTarget
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.signature import (
    IMAGE_RGB,
    GraphSpec,
    TensorSpec,
    decoder_spec,
    encoder_spec,
    fused_spec,
    proposals_spec,
)

AUTHOR = "The EdgeSeg developers"
_EXACT = "computed in single precision"
_DTYPES = {"float32": torch.float32, "int32": torch.int32}


@dataclass(frozen=True)
class CoreMLFacts:
    """What a package says about itself beside what its graph says.

    Attributes:
        model: Registry name of the network.
        weights_sha256: Of the weights that were exported.
        licence: Licence of the weights.
        author: Who made the package.
        version: Of the package.
    """

    model: str
    weights_sha256: str
    licence: str
    author: str = AUTHOR
    version: str = __version__


@dataclass(frozen=True, eq=False)
class CoreMLPart:
    """One package to be written.

    Attributes:
        role: "encoder", "decoder", "proposals" or "fused".
        graph: What it computes.
        spec: Its tensors.
    """

    role: Literal["encoder", "decoder", "proposals", "fused"]
    graph: nn.Module
    spec: GraphSpec


def coreml_parts(net: PromptableNet, target: ExportTarget) -> Iterator[CoreMLPart]:
    """Build the graphs of a target one by one.

    Encoder and decoder, proposals if the network has them, and both in one if the target asks.
    """
    shape, slots, normalises = shape_of(net), target.slots.slots, target.normalises
    encoder = CoreMLEncoderGraph(net, normalises)
    yield CoreMLPart("encoder", encoder, encoder_spec(shape, normalises))
    yield CoreMLPart("decoder", CoreMLDecoderGraph(net), decoder_spec(shape, slots, "int32"))
    if net.proposal_head is not None:
        yield CoreMLPart("proposals", ProposalGraph(net), proposals_spec(shape))
    if target.fused:
        spec = fused_spec(shape, slots, normalises, "int32")
        yield CoreMLPart("fused", CoreMLFusedGraph(net, normalises), spec)


def export_coreml(part: CoreMLPart, path: Path, target: ExportTarget, facts: CoreMLFacts) -> None:
    """Convert a graph and write its package.

    The package is built beside its place and moved there when it is whole; one of that name is
    replaced. Nothing else stays on disk.

    Args:
        part: Graph and tensors; all sizes must be fixed.
        path: Where the package belongs, ending in `.mlpackage`.
        target: Precision, oldest iOS and compression.
        facts: What the package says about itself.

    Raises:
        ExportError: The path has another ending, a size is open, or coremltools cannot convert an
            operation of the graph.
        MissingExtraError: coremltools is not installed.
    """
    if path.suffix != ".mlpackage":
        raise ExportError(f"a Core ML package must end in .mlpackage, got {path}; rename it")
    for tensor in (*part.spec.inputs, *part.spec.outputs):
        if not tensor.is_fixed:
            raise ExportError(
                f"{tensor.name} must have fixed sizes for Core ML, got {tensor.shape}; set "
                "slots.num_prompts and slots.num_points in the target"
            )
    load_coremltools()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
        folder = Path(name)
        model = _convert(part, target, folder)
        if target.compression is not None:
            model = compress(model, target.compression, folder)
        _describe(model, part, target, facts)
        finished = folder / path.name
        model.save(str(finished))
        _move(finished, path, folder / "replaced.mlpackage")


def _convert(part: CoreMLPart, target: ExportTarget, folder: Path) -> Any:  # noqa: ANN401
    examples = tuple(map(_example, part.spec.inputs))
    with torch.no_grad(), quiet_coremltools(folder) as coremltools:
        precision: Any = coremltools.precision.FLOAT32
        if target.precision == "float16":
            precision = coremltools.transform.FP16ComputePrecision(op_selector=_may_be_half)
        try:
            program = torch.export.export(part.graph.eval(), examples).run_decompositions({})
            _mark_exact(program.graph.nodes)
            return coremltools.convert(
                program,
                inputs=[_input(coremltools, spec) for spec in part.spec.inputs],
                outputs=[
                    coremltools.TensorType(name=spec.name, dtype=np.dtype(spec.dtype).type)
                    for spec in part.spec.outputs
                ],
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target[target.deployment_target],
                compute_precision=precision,
                skip_model_load=True,
            )
        except Exception as error:  # coremltools raises whatever its passes meet
            traceback.clear_frames(error.__traceback__)  # they hold temporary folders
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExportError(
                f"coremltools cannot convert the {part.role}: {reason}; export a convolutional "
                "model, or an ONNX target"
            ) from error


def _example(spec: TensorSpec) -> Tensor:
    """Return zeros as the graph takes them; an image is what Core ML makes of it."""
    shape = tuple(size for size in spec.shape if isinstance(size, int))
    if spec.name == IMAGE_RGB:
        return torch.zeros(1, 3, *shape[:2])
    return torch.zeros(shape, dtype=_DTYPES[spec.dtype])


def _input(coremltools: Any, spec: TensorSpec) -> Any:  # noqa: ANN401
    if spec.name == IMAGE_RGB:
        layout = coremltools.colorlayout.RGB
        height, width, channels = spec.shape
        return coremltools.ImageType(
            name=spec.name, shape=(1, channels, height, width), color_layout=layout
        )
    dtype = np.dtype(spec.dtype).type
    return coremltools.TensorType(name=spec.name, shape=spec.shape, dtype=dtype)


def _mark_exact(nodes: Any) -> None:  # noqa: ANN401 - a torch.fx node list
    """Let the nodes of `coreml_geometry`'s modules be known after conversion.

    The recorded source line is all that coremltools carries from a node to its operations.
    """
    for node in nodes:
        modules = [str(kind) for _, kind in node.meta.get("nn_module_stack", {}).values()]
        if any(kind.startswith(f"{coreml_geometry.__name__}.") for kind in modules):
            node.meta["stack_trace"] = _EXACT


def _may_be_half(operation: Any) -> bool:  # noqa: ANN401 - a coremltools operation
    from coremltools.converters.mil.mil.scope import ScopeSource

    return _EXACT not in operation.scopes.get(ScopeSource.EXIR_STACK_TRACE, ())


def _describe(model: Any, part: CoreMLPart, target: ExportTarget, facts: CoreMLFacts) -> None:  # noqa: ANN401
    model.author, model.license, model.version = facts.author, facts.licence, facts.version
    model.short_description = describe_model(facts.model, part.role, target)
    for spec in part.spec.inputs:
        model.input_description[spec.name] = describe_tensor(spec, part.spec)
    for spec in part.spec.outputs:
        model.output_description[spec.name] = describe_tensor(spec, part.spec)
    kind = "none" if target.compression is None else target.compression.kind
    model.user_defined_metadata.update(
        {
            "edgeseg.model": facts.model,
            "edgeseg.role": part.role,
            "edgeseg.target": target.name,
            "edgeseg.precision": target.precision,
            "edgeseg.compression": kind,
            "edgeseg.weights_sha256": facts.weights_sha256,
        }
    )


def _move(finished: Path, path: Path, replaced: Path) -> None:
    """Put a package into its place; folders cannot be exchanged in one step as files can."""
    if path.exists():
        path.rename(replaced)
    try:
        finished.rename(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise
