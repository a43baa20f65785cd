"""What TensorRT and WebGPU take of an ONNX graph."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeseg.exporter.lint_findings import MAX_ON_CPU, Finding, Runtime
from edgeseg.exporter.lint_onnx_rules import (
    SHAPE_INPUTS,
    TENSORRT_MAX_RANK,
    TENSORRT_REFUSED,
    TENSORRT_RESIZE_FRAMES,
    TENSORRT_RESIZE_MODES,
    WEBGPU_SHAPE_WORK,
    WEBGPU_TAKEN,
    WEBGPU_TYPES,
)

_OWN_DOMAINS = ("", "ai.onnx")
_OPEN_SIZE = 16
"""What an open size is taken as when results are counted: many prompts, or many points of one."""


class OnnxFacts:
    """A model with the types, shapes and makers of its tensors.

    Args:
        model: An `onnx.ModelProto` whose shapes have been inferred.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - protobuf classes are untyped
        from onnx import TensorProto

        graph = model.graph
        self.nodes: Sequence[Any] = graph.node
        self.stored: Mapping[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.inputs = [value for value in graph.input if value.name not in self.stored]
        self._type_name = TensorProto.DataType.Name
        self._types: dict[str, Any] = {}
        for value in (*graph.input, *graph.output, *graph.value_info):
            self._types[value.name] = value.type.tensor_type

    def dtype(self, name: str) -> str:
        """Return the element type of a tensor, or "" if it is not known."""
        if name in self.stored:
            return str(self._type_name(self.stored[name].data_type))
        known = self._types.get(name)
        return str(self._type_name(known.elem_type)) if known is not None else ""

    def shape(self, name: str) -> list[int | None] | None:
        """Return the sizes of a tensor, None where open; None if nothing is known."""
        if name not in self._types or not self._types[name].HasField("shape"):
            return None
        dims = self._types[name].shape.dim
        return [int(dim.dim_value) if dim.HasField("dim_value") else None for dim in dims]

    def rank(self, name: str) -> int:
        """Return the number of dimensions of a tensor, 0 if it is not known."""
        return len(self.shape(name) or ())

    def is_stored(self, name: str) -> bool:
        """Whether a tensor is part of the file rather than computed."""
        maker = self.makers.get(name)
        return (
            not name or name in self.stored or (maker is not None and maker.op_type == "Constant")
        )

    def origin(self, name: str) -> str:
        """Return where a tensor's numbers are from: "stored", "sizes" of tensors, or "data"."""
        waiting, seen, found = [name], set[str](), "stored"
        while waiting:
            current = waiting.pop()
            if current in seen or self.is_stored(current):
                continue
            seen.add(current)
            maker = self.makers.get(current)
            if maker is None:
                return "data"
            if maker.op_type in ("Shape", "Size"):
                found = "sizes"
            else:
                waiting += maker.input
        return found


def lint_tensorrt(facts: OnnxFacts) -> Iterator[Finding]:
    """Yield what TensorRT would refuse, and what it needs to be told."""
    for value in facts.inputs:
        if None in (facts.shape(value.name) or ()):
            reason = "has open sizes; an optimisation profile has to give their range"
            yield Finding("input", value.name, reason, "tensorrt", is_error=False)
    for node in facts.nodes:
        finding = _Node(node, facts, "tensorrt")
        if node.domain not in _OWN_DOMAINS:
            yield finding.error(f"is of the domain {node.domain}, which needs a plugin")
        elif node.op_type in TENSORRT_REFUSED:
            yield finding.error(TENSORRT_REFUSED[node.op_type])
        yield from _tensorrt_types(finding)
        yield from _tensorrt_sizes(finding)
        yield from _TENSORRT_CHECKS.get(node.op_type, _nothing)(finding)


def lint_webgpu(facts: OnnxFacts) -> Iterator[Finding]:
    """Yield what ONNX Runtime Web would leave to the CPU; a note where that is little."""
    for node in facts.nodes:
        finding = _Node(node, facts, "webgpu")
        if node.op_type in ("Constant", "Reshape") or _computes_sizes(node, facts):
            continue
        foreign = finding.computed_types() - WEBGPU_TYPES
        if node.op_type not in WEBGPU_TAKEN:
            yield finding.left_to_cpu("has no WebGPU kernel (webgpu-operators.md)")
        elif foreign:
            kinds = ", ".join(sorted(foreign))
            yield finding.left_to_cpu(f"computes {kinds}; shaders have float, int32 and uint32")
        elif node.op_type in ("Conv", "ConvTranspose") and facts.rank(node.output[0]) == 5:
            yield finding.error("is a convolution over volumes (webgpu-operators.md)")


def _computes_sizes(node: Any, facts: OnnxFacts) -> bool:  # noqa: ANN401
    """Whether a node works on sizes of tensors, which is done on the CPU by design."""
    return node.op_type in WEBGPU_SHAPE_WORK and all(
        node.op_type == "Shape" or facts.origin(name) != "data" for name in node.output
    )


class _Node:
    """A node with what is needed to judge it."""

    def __init__(self, node: Any, facts: OnnxFacts, runtime: Runtime) -> None:  # noqa: ANN401
        self.node, self.facts, self._runtime = node, facts, runtime
        self._name = node.name or (node.output[0] if node.output else "")

    def error(self, reason: str) -> Finding:
        return Finding(self.node.op_type, self._name, reason, self._runtime)

    def note(self, reason: str) -> Finding:
        return Finding(self.node.op_type, self._name, reason, self._runtime, is_error=False)

    def left_to_cpu(self, reason: str) -> Finding:
        """Return an error, or a note if the results are known to be small."""
        for name in filter(None, self.node.output):
            shape = self.facts.shape(name)
            if shape is None or math.prod(size or _OPEN_SIZE for size in shape) > MAX_ON_CPU:
                return self.error(reason)
        return self.note(reason)

    def text(self, attribute: str, default: str) -> str:
        """Return a string attribute."""
        for each in self.node.attribute:
            if each.name == attribute:
                return str(each.s.decode())
        return default

    def number(self, attribute: str, default: int) -> int:
        """Return an integer attribute."""
        return next((int(a.i) for a in self.node.attribute if a.name == attribute), default)

    def computed_types(self) -> set[str]:
        """Return the types of results and of operands that are no sizes or indices."""
        indices = SHAPE_INPUTS.get(self.node.op_type, ())
        if self.node.op_type in ("Gather", "GatherElements", "GatherND", "ScatterND"):
            indices = (1,)
        if self.node.op_type in ("Squeeze", "Unsqueeze", "Clip") or "Reduce" in self.node.op_type:
            indices = (1, 2)
        operands = [name for place, name in enumerate(self.node.input) if place not in indices]
        if self.node.op_type == "Cast":
            operands = []
        return {self.facts.dtype(n) for n in (*operands, *self.node.output) if n} - {""}


def _nothing(_: _Node) -> Iterator[Finding]:
    yield from ()


def _tensorrt_types(finding: _Node) -> Iterator[Finding]:
    node, facts = finding.node, finding.facts
    types = {facts.dtype(name) for name in (*node.input, *node.output) if name}
    if "STRING" in types or "COMPLEX64" in types:
        yield finding.error("has strings or complex numbers, which TensorRT does not know")
    if "DOUBLE" in types:
        yield finding.note("has float64, which TensorRT casts down to float32")
    if "UINT8" in {facts.dtype(name) for name in node.output} or (
        "UINT8" in types and node.op_type not in ("Cast", "DequantizeLinear", "QuantizeLinear")
    ):
        yield finding.error("computes with uint8, which must be cast right at the input")
    results = {facts.dtype(name) for name in node.output}
    if "INT64" in results and any(facts.origin(name) == "data" for name in node.output):
        yield finding.note("has int64, which versions before 10 cast down to int32")
    if any(facts.rank(name) > TENSORRT_MAX_RANK for name in node.output):
        yield finding.error(f"gives more than {TENSORRT_MAX_RANK} dimensions")


def _tensorrt_sizes(finding: _Node) -> Iterator[Finding]:
    """Judge inputs that decide the size of a result."""
    node, facts = finding.node, finding.facts
    for place in SHAPE_INPUTS.get(node.op_type, ()):
        name = node.input[place] if place < len(node.input) else ""
        origin = facts.origin(name)
        if origin == "data":
            yield finding.error(f"takes a size from the data of '{name}', a shape tensor")
        elif origin == "sizes":
            yield finding.note(f"takes a size computed from sizes, '{name}'; fix the sizes")


def _tensorrt_resize(finding: _Node) -> Iterator[Finding]:
    mode = finding.text("mode", "nearest")
    if mode not in TENSORRT_RESIZE_MODES:
        yield finding.error(f"resizes by '{mode}'; known are nearest and linear")
    frame = finding.text("coordinate_transformation_mode", "half_pixel")
    if frame not in TENSORRT_RESIZE_FRAMES:
        yield finding.error(f"samples by '{frame}', which is not known")
    if finding.number("antialias", 0) or finding.number("exclude_outside", 0):
        yield finding.error("resizes with antialias or exclude_outside")


def _tensorrt_deconvolution(finding: _Node) -> Iterator[Finding]:
    if not finding.facts.is_stored(finding.node.input[1]):
        yield finding.error("has weights that are computed; they must be initializers")


def _tensorrt_einsum(finding: _Node) -> Iterator[Finding]:
    if "..." in finding.text("equation", ""):
        yield finding.error("has an ellipsis in its equation")


def _tensorrt_quantization(finding: _Node) -> Iterator[Finding]:
    from onnx import numpy_helper

    inputs = finding.node.input
    if len(inputs) < 3 or not inputs[2]:
        return
    stored = finding.facts.stored.get(inputs[2])
    if stored is None or numpy_helper.to_array(stored).any():
        yield finding.error("has a zero point; TensorRT quantises symmetrically, around 0")


_TENSORRT_CHECKS = {
    "Resize": _tensorrt_resize,
    "ConvTranspose": _tensorrt_deconvolution,
    "Einsum": _tensorrt_einsum,
    "QuantizeLinear": _tensorrt_quantization,
    "DequantizeLinear": _tensorrt_quantization,
}
