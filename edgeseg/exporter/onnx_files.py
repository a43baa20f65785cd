"""PyTorch graphs to ONNX files: recorded, translated, checked, simplified and held against PyTorch.

`torch.export` records with symbolic numbers of prompts and points, so one file takes any. What
`onnxsim` does is kept only if the outputs stay the same.
"""

import contextlib
import inspect
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxsim
import torch
from torch import nn

import edgeseg
from edgeseg.errors import ExportError
from edgeseg.exporter.onnx_inputs import Arrays, example_inputs
from edgeseg.exporter.onnx_names import forget_origin, name_nodes, name_sizes
from edgeseg.exporter.onnx_sessions import largest_difference, run_all
from edgeseg.exporter.onnx_translation import translation_table
from edgeseg.files import write_atomically
from edgeseg.signature import GraphSpec

OLDEST_OPSET = 18
"""PyTorch's exporter writes no older operator set."""
MAX_DIFFERENCE = 1e-3
"""Largest difference of any output between PyTorch and ONNX Runtime in float32."""
MAX_SIMPLIFIED_DIFFERENCE = 1e-4
"""Largest difference of any output that a simplification may make."""
_MAX_BYTES = 2**31 - 2**24  # the format's limit of 2 GiB, less what is not weights


@dataclass(frozen=True)
class OnnxExport:
    """A graph in ONNX, found equal to PyTorch.

    Attributes:
        model: With names, shapes and weights.
        max_difference: Largest difference of any output to PyTorch on random inputs.
        simplified: Whether onnxsim's version was kept.
    """

    model: onnx.ModelProto
    max_difference: float
    simplified: bool


def export_onnx(
    graph: nn.Module,
    spec: GraphSpec,
    path: Path,
    opset: int = OLDEST_OPSET,
    metadata: Mapping[str, str] | None = None,
) -> OnnxExport:
    """Write a float32 ONNX file that is equal to PyTorch.

    Args:
        graph: One of `edgeseg.exporter.graphs`, in eval mode on the CPU.
        spec: Its inputs and outputs; letters in shapes stay open.
        path: File to write, atomically; nothing is written unless all checks pass.
        opset: Operator set, 18 or newer.
        metadata: Facts stored in the file, such as model, licence and version.

    Returns:
        What was written.

    Raises:
        ExportError: See `convert`.
    """
    export = convert(graph, spec, opset)
    write_onnx(export.model, path, metadata)
    return export


def convert(
    graph: nn.Module,
    spec: GraphSpec,
    opset: int = OLDEST_OPSET,
    inputs: Sequence[Arrays] | None = None,
) -> OnnxExport:
    """Turn a PyTorch graph into a float32 ONNX model that is equal to it.

    Args:
        graph: A module in eval mode on the CPU whose arguments are the inputs of `spec`.
        spec: Inputs and outputs; letters in shapes stay open.
        opset: Operator set, 18 or newer.
        inputs: What to record with, in the first, and to compare with; default: random.

    Raises:
        ExportError: The operator set is too old, the weights are too large for one file, or the
            model is not equal to PyTorch.
    """
    if opset < OLDEST_OPSET:
        raise ExportError(f"opset must be {OLDEST_OPSET} or newer, got {opset}; use {OLDEST_OPSET}")
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    if size > _MAX_BYTES:
        raise ExportError(
            f"the weights take {size / 1e9:.1f} GB, and an ONNX file holds 2; export a smaller "
            "model"
        )
    inputs = example_inputs(spec) if inputs is None else inputs
    expected = [_answers(graph, spec, arrays) for arrays in inputs]
    model = _translate(graph, spec, inputs[0], opset)
    answers = run_all(model, inputs)
    difference = largest_difference(expected, answers)
    if not difference <= MAX_DIFFERENCE:
        raise ExportError(
            f"the ONNX model differs from PyTorch by {difference:.2g}, allowed are "
            f"{MAX_DIFFERENCE:g}; this is a fault of the exporter or of its versions, not of the "
            "weights"
        )
    simple = simplified(model)
    simple_answers = run_all(simple, inputs)
    if largest_difference(answers, simple_answers) > MAX_SIMPLIFIED_DIFFERENCE:
        return OnnxExport(model, difference, simplified=False)
    return OnnxExport(simple, largest_difference(expected, simple_answers), simplified=True)


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with everything folded that does not depend on its inputs.

    Folding only: onnxsim's fusions put matrix products with a bias between two reshapes, which
    brings 18 Shape operators into a decoder and makes it no faster.
    """
    with _quiet():
        folded, _ = onnxsim.simplify(model, perform_optimization=False)
    del folded.metadata_props[:]  # how it was called
    onnx.checker.check_model(folded, full_check=True)
    return folded


def write_onnx(
    model: onnx.ModelProto, path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a model with metadata, atomically, after `onnx.checker` has passed it."""
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    del kept.metadata_props[:]
    onnx.helper.set_model_props(kept, dict(metadata or {}))
    kept.producer_name = "edgeseg"
    kept.producer_version = edgeseg.__version__
    onnx.checker.check_model(kept, full_check=True)
    write_atomically(path, lambda temporary: temporary.write_bytes(kept.SerializeToString()))


@torch.inference_mode()
def _answers(graph: nn.Module, spec: GraphSpec, inputs: Arrays) -> Arrays:
    outputs = graph(*(torch.from_numpy(inputs[tensor.name]) for tensor in spec.inputs))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return {
        tensor.name: output.numpy() for tensor, output in zip(spec.outputs, outputs, strict=True)
    }


def _translate(graph: nn.Module, spec: GraphSpec, inputs: Arrays, opset: int) -> onnx.ModelProto:
    example = tuple(torch.from_numpy(inputs[tensor.name]) for tensor in spec.inputs)
    with _quiet():
        recorded = torch.export.export(
            graph, example, dynamic_shapes=_dynamic_shapes(graph, spec), strict=False
        )
        program = torch.onnx.export(
            recorded,
            dynamo=True,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            opset_version=opset,
            custom_translation_table=translation_table(),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    name_sizes(model, spec)
    name_nodes(model)
    forget_origin(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _dynamic_shapes(graph: nn.Module, spec: GraphSpec) -> tuple[Any, ...]:
    """Return the open sizes of each argument; 2 is the least while recording, not of the file."""
    letters = {size for tensor in spec.inputs for size in tensor.shape if isinstance(size, str)}
    dims = {letter: torch.export.Dim(letter, min=2) for letter in sorted(letters)}
    shapes = tuple(
        {axis: dims[size] for axis, size in enumerate(tensor.shape) if isinstance(size, str)}
        for tensor in spec.inputs
    )
    kinds = {parameter.kind for parameter in inspect.signature(graph.forward).parameters.values()}
    return (shapes,) if inspect.Parameter.VAR_POSITIONAL in kinds else shapes


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the warnings of other people's converters from our users."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
