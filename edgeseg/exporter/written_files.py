"""The files of a target, written and linted, not yet compared with PyTorch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgeseg.exporter.graphs import (
    DecoderGraph,
    EncoderGraph,
    FusedGraph,
    ProposalGraph,
    shape_of,
)
from edgeseg.exporter.targets import ExportTarget
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.signature import (
    GraphSpec,
    decoder_spec,
    encoder_spec,
    fused_spec,
    proposals_spec,
)

Role = Literal["encoder", "decoder", "proposals", "fused"]


@dataclass(frozen=True)
class ExportFacts:
    """What exported files say about the weights.

    Attributes:
        weights_sha256: Of the weight file.
        licence: Of the weights.
    """

    weights_sha256: str
    licence: str


@dataclass(frozen=True)
class WrittenFile:
    """One file of an export.

    Attributes:
        name: File or package, in the folder.
        role: What it computes.
        spec: Its tensors.
        notes: What is worth knowing, such as the layers that quantisation left alone.
    """

    name: str
    role: Role
    spec: GraphSpec
    notes: tuple[str, ...] = ()


def write_files(
    net: PromptableNet,
    folder: Path,
    target: ExportTarget,
    facts: ExportFacts,
    calibration: Sequence[NDArray[np.uint8]],
    say: Callable[[str], None],
) -> list[WrittenFile]:
    """Write the files of a target into a folder and check them against its runtimes' operators.

    Raises:
        ExportError: A file cannot be made or would not run where the target says.
        MissingExtraError: A converter is not installed.
    """
    if target.format == "coreml":
        return list(_write_coreml(net, folder, target, facts, say))
    if target.format == "onnx_sam_compatible":
        return list(_write_sam_compatible(net, folder, target, facts, say))
    return list(_write_onnx(net, folder, target, facts, calibration, say))


def onnx_graphs(
    net: PromptableNet, target: ExportTarget
) -> Iterator[tuple[Role, nn.Module, GraphSpec]]:
    """Build the graphs of an ONNX target one by one."""
    shape, slots, normalises = shape_of(net), target.slots.slots, target.normalises
    yield "encoder", EncoderGraph(net, normalises), encoder_spec(shape, normalises)
    yield "decoder", DecoderGraph(net), decoder_spec(shape, slots)
    if net.proposal_head is not None:
        yield "proposals", ProposalGraph(net), proposals_spec(shape)
    if target.fused:
        yield "fused", FusedGraph(net, normalises), fused_spec(shape, slots, normalises)


def _write_coreml(
    net: PromptableNet,
    folder: Path,
    target: ExportTarget,
    facts: ExportFacts,
    say: Callable[[str], None],
) -> Iterator[WrittenFile]:
    from edgeseg.exporter.coreml_files import CoreMLFacts, coreml_parts, export_coreml
    from edgeseg.exporter.lint import lint_coreml
    from edgeseg.exporter.lint_findings import check_lint

    described = CoreMLFacts(net.name, facts.weights_sha256, facts.licence)
    for part in coreml_parts(net, target):
        say(f"writing the {part.role}")
        name = f"{part.role}.mlpackage"
        export_coreml(part, folder / name, target, described)
        findings = lint_coreml(folder / name) if "neural_engine" in target.runs_on else []
        check_lint(findings)
        notes = tuple(f"neural_engine: {finding}" for finding in findings)
        yield WrittenFile(name, part.role, part.spec, notes)


def _write_onnx(
    net: PromptableNet,
    folder: Path,
    target: ExportTarget,
    facts: ExportFacts,
    calibration: Sequence[NDArray[np.uint8]],
    say: Callable[[str], None],
) -> Iterator[WrittenFile]:
    from edgeseg.exporter.onnx_files import convert, write_onnx
    from edgeseg.exporter.onnx_precision import in_precision

    described = _described(net, target, facts)
    for role, graph, spec in onnx_graphs(net, target):
        say(f"writing the {role}")
        name = f"{role}.onnx"
        export = convert(graph, spec, target.opset)
        max_error = target.calibration.max_error if target.calibration else 0.0
        precise = in_precision(export.model, spec, target.precision, calibration, max_error)
        write_onnx(precise.model, folder / name, described)
        yield WrittenFile(name, role, spec, precise.notes + _lint(folder / name, target))


def _write_sam_compatible(
    net: PromptableNet,
    folder: Path,
    target: ExportTarget,
    facts: ExportFacts,
    say: Callable[[str], None],
) -> Iterator[WrittenFile]:
    from edgeseg.exporter.sam_compatible import (
        export_sam_compatible,
        sam_decoder_spec,
        sam_encoder_spec,
    )

    say("writing encoder and decoder")
    described = _described(net, target, facts)
    encoder, decoder = export_sam_compatible(net, folder, opset=target.opset, metadata=described)
    yield WrittenFile(encoder.name, "encoder", sam_encoder_spec(net), _lint(encoder, target))
    yield WrittenFile(decoder.name, "decoder", sam_decoder_spec(net), _lint(decoder, target))


def _described(net: PromptableNet, target: ExportTarget, facts: ExportFacts) -> dict[str, str]:
    return {
        "edgeseg.model": net.name,
        "edgeseg.target": target.name,
        "edgeseg.image_size": str(net.image_size),
        "edgeseg.weights_sha256": facts.weights_sha256,
        "edgeseg.licence": facts.licence,
    }


def _lint(path: Path, target: ExportTarget) -> tuple[str, ...]:
    from edgeseg.exporter.lint import lint_onnx
    from edgeseg.exporter.lint_findings import check_lint

    notes: list[str] = []
    for runtime in target.runs_on:
        assert runtime != "neural_engine"  # a target refuses that for ONNX
        findings = lint_onnx(path, runtime)
        check_lint(findings)
        notes += [f"{runtime}: {finding}" for finding in findings]
    return tuple(notes)
