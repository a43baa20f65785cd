"""ONNX models in float16, with float32 where float16 is known to break this family of models.

Norms and softmax sum many numbers, and the position of a point needs more digits than float16 has:
between 512 and 1024 its steps are half a pixel, and sine and cosine of a rounded phase are those of
another position. Beside these, nodes whose outputs come near the largest float16 stay in float32;
they are found by running the model.

The converters at hand cast every input to float16 first, which loses the coordinates, and write a
tensor twice where two float32 nodes share it. The networks here have no subgraphs, so a short pass
does it.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgeseg import signature
from edgeseg.exporter.onnx_inputs import Arrays
from edgeseg.exporter.onnx_ranges import element_types, tensor_ranges

FLOAT32_OPERATORS = frozenset(
    {"LayerNormalization", "Softmax", "ReduceMean", "ReduceSum", "Pow", "Exp", "Sin", "Cos"}
)
"""Operators that stay in float32 wherever they stand."""
LARGEST_FLOAT16 = 65504.0
COORDINATES = frozenset(
    {
        signature.POINTS_XY_MODEL,
        signature.POINTS_XY_IMAGE,
        signature.IMAGE_HW,
        "point_coords",
        "orig_im_size",
    }
)
"""Inputs that are positions or sizes of images, of our graphs and of SAM's; they stay in float32,
and so does what is computed of them."""

# Where positions have become embeddings, shares of a cell or whole numbers of pixels.
_ENDS_OF_POSITIONS = frozenset({"Sin", "Cos", "Exp", "Clip", "Max", "Cast"})
# Inputs that are float32 by definition, whatever the others are.
_ALWAYS_FLOAT32 = {"Resize": {1, 2}}


def to_float16(
    model: onnx.ModelProto,
    inputs: Sequence[Arrays] = (),
    io: Literal["float32", "float16"] = "float32",
    float32_nodes: Collection[str] = (),
) -> onnx.ModelProto:
    """Return a model whose weights and most operators are float16.

    Args:
        model: A float32 model.
        inputs: What to run it on to find nodes that would overflow; without any, none is looked
            for.
        io: Element type of inputs and outputs. Positions are float32 in any case.
        float32_nodes: Names of further nodes to leave alone.
    """
    kept = {node.name for node in model.graph.node if node.op_type in FLOAT32_OPERATORS}
    kept |= set(nodes_on_positions(model.graph)) | set(float32_nodes)
    kept |= set(overflowing_nodes(model, inputs)) if inputs else set()
    half = _Conversion(model, kept, io).run()
    onnx.checker.check_model(half, full_check=True)
    return half


def nodes_on_positions(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the nodes that compute with positions of points."""
    consumers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    found: dict[str, None] = {}
    waiting = deque(value.name for value in graph.input if value.name in COORDINATES)
    while waiting:
        for node in consumers.get(waiting.popleft(), ()):
            if node.name not in found:
                found[node.name] = None
                waiting.extend(() if node.op_type in _ENDS_OF_POSITIONS else node.output)
    return list(found)


def overflowing_nodes(
    model: onnx.ModelProto, inputs: Iterable[Arrays], limit: float = LARGEST_FLOAT16 / 4
) -> list[str]:
    """Return the names of nodes that read or write numbers beyond `limit` on any of the inputs.

    The default leaves a factor of four for images and prompts that were not tried.
    """
    ranges = tensor_ranges(model, inputs)
    beyond = {name for name, ends in ranges.items() if not max(map(abs, ends)) <= limit}
    return [n.name for n in model.graph.node if beyond & {*n.input, *n.output}]


class _Conversion:
    """One pass over the nodes that casts a tensor where a node needs it otherwise than it is."""

    def __init__(self, model: onnx.ModelProto, kept: Collection[str], io: str) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.kept = kept
        self.io_type = TensorProto.FLOAT if io == "float32" else TensorProto.FLOAT16
        self.is_float = {n for n, kind in element_types(model).items() if kind == TensorProto.FLOAT}
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.kinds: dict[str, int] = {}
        self.nodes: list[NodeProto] = []
        self.used_weights: dict[str, TensorProto] = {}
        self.casts: dict[tuple[str, int], str] = {}

    def run(self) -> onnx.ModelProto:
        graph = self.model.graph
        for value in graph.input:
            if value.name in self.is_float:
                kind = TensorProto.FLOAT if value.name in COORDINATES else self.io_type
                self.kinds[value.name] = value.type.tensor_type.elem_type = kind
        for node in list(graph.node):
            self._convert(node)
        for value in graph.output:
            if value.name in self.is_float:
                self._deliver(value)
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.used_weights.values())
        return self.model

    def _convert(self, node: NodeProto) -> None:
        kind = TensorProto.FLOAT if node.name in self.kept else TensorProto.FLOAT16
        always = _ALWAYS_FLOAT32.get(node.op_type, set())
        for index, name in enumerate(node.input):
            if name in self.is_float:
                node.input[index] = self._as(name, TensorProto.FLOAT if index in always else kind)
            elif name in self.weights:
                self.used_weights[name] = self.weights[name]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = kind
        self.kinds |= {name: kind for name in node.output if name in self.is_float}
        self.nodes.append(node)

    def _as(self, name: str, kind: int) -> str:
        """Return the name under which a float tensor is to be had in an element type."""
        if name in self.weights:
            return self._weight_as(name, kind)
        if self.kinds[name] == kind:
            return name
        if (name, kind) not in self.casts:
            target = f"{name}/{'half' if kind == TensorProto.FLOAT16 else 'float'}"
            self.nodes.append(helper.make_node("Cast", [name], [target], f"{target}/cast", to=kind))
            self.casts[name, kind] = target
        return self.casts[name, kind]

    def _weight_as(self, name: str, kind: int) -> str:
        if kind == TensorProto.FLOAT:
            self.used_weights[name] = self.weights[name]
            return name
        half_name = f"{name}/half"
        if half_name not in self.used_weights:
            limits = -LARGEST_FLOAT16, LARGEST_FLOAT16
            array = numpy_helper.to_array(self.weights[name]).clip(*limits).astype(np.float16)
            self.used_weights[half_name] = numpy_helper.from_array(array, half_name)
        return half_name

    def _deliver(self, value: onnx.ValueInfoProto) -> None:
        """Give an output its element type."""
        value.type.tensor_type.elem_type = self.io_type
        if self.kinds[value.name] == self.io_type:
            return
        inner = f"{value.name}/inner"
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == value.name:
                        names[index] = inner
        self.nodes.append(
            helper.make_node("Cast", [inner], [value.name], f"{inner}/cast", to=self.io_type)
        )
