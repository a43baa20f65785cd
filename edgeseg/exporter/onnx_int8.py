"""ONNX models in int8, through `onnxruntime.quantization`.

Dynamic: weights of matrix products are int8, one scale a channel, and their other factor is
quantised as it comes. Convolutions stay float32, since ONNX Runtime has no fast integer convolution
without ranges; an image encoder made of convolutions hardly changes. It is what suits a decoder.

Static: weights and activations of convolutions and of products with a weight are int8, with ranges
measured on calibration inputs; the file has a QuantizeLinear and DequantizeLinear around them, as
TensorRT, OpenVINO and ONNX Runtime read it. It is what suits a convolutional encoder.

Weights use 7 of the 8 bits: the products of two full bytes saturate on x86 without VNNI, which is
most of it (measured: relative error of a decoder's logits 0.055 with 8 bits and 0.007 with 7).
"""

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgeseg.exporter.onnx_ranges import Range

_PRODUCTS = ("MatMul", "Gemm")
_ACTIVATIONS = ("Clip", "Relu")


@dataclass(frozen=True)
class Layer:
    """A node with weights, and the activation after it.

    Attributes:
        node: Its name.
        activation: Name of the activation that is its only consumer, or None. The two are quantised
            together, since the range before an activation is much wider than after it.
        source: Name of the tensor it reads.
        target: Name of the tensor it writes, behind the activation.
        weight: Name of its weight.
        weight_axis: Axis of the weight's output channels.
    """

    node: str
    activation: str | None
    source: str
    target: str
    weight: str
    weight_axis: int

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of both nodes."""
        return (self.node,) if self.activation is None else (self.node, self.activation)


def quantize_dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with int8 weights in its matrix products."""
    layers = {layer.node for layer in find_layers(model)}
    products = [node.name for node in model.graph.node if node.op_type in _PRODUCTS]
    if layers.isdisjoint(products):
        return model
    others = [name for name in products if name not in layers]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        quant_pre_process(model, source, skip_optimization=True, skip_symbolic_shape=True)
        quantization.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(_PRODUCTS),
            # The library takes a Gemm apart first and gives its product this name.
            nodes_to_exclude=[*others, *(f"{name}_MatMul" for name in others)],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return _finished(onnx.load(target))


def quantize_static(
    model: onnx.ModelProto, ranges: Mapping[str, Range], float_nodes: Collection[str] = ()
) -> onnx.ModelProto:
    """Return a model with int8 weights and activations.

    Layers that make an output of the graph stay in float32: they are small, and what they lose
    nothing brings back.

    Args:
        model: A float32 model.
        ranges: Of all its tensors, from `edgeseg.exporter.onnx_ranges.tensor_ranges`.
        float_nodes: Names of nodes to leave in float32.
    """
    chosen = [name for layer in find_layers(model) for name in layer.nodes]
    chosen += residual_sums(model)
    nodes = [name for name in chosen if name not in float_nodes]
    if not nodes:  # an empty list would mean all to the library
        return model
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    data = {name: tuple(np.float32(end) for end in ends) for name, ends in ranges.items()}
    quantizer = quantization.QDQQuantizer(
        copied,
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(quantization.CalibrationMethod.MinMax, data),
        nodes_to_quantize=nodes,
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({n.op_type for n in model.graph.node if n.name in nodes}),
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return _finished(quantizer.model.model)


def find_layers(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """Return the convolutions and matrix products with a weight that may be quantised, in order."""
    graph = model.graph
    dims = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    layers = []
    for node in graph.node:
        axis = _weight_axis(node, dims)
        if axis is None:
            continue
        readers = [other for other in graph.node if node.output[0] in other.input]
        activation = None
        if len(readers) == 1 and readers[0].op_type in _ACTIVATIONS:
            activation = readers[0]
        target = (activation or node).output[0]
        if target not in outputs:
            name = None if activation is None else activation.name
            layers.append(Layer(node.name, name, node.input[0], target, node.input[1], axis))
    return tuple(layers)


def _weight_axis(node: onnx.NodeProto, dims: Mapping[str, int]) -> int | None:
    """Return the axis of a node's output channels in its weight, or None if it has no weight."""
    if len(node.input) < 2 or node.input[0] in dims:
        return None
    if node.op_type == "Conv" and dims.get(node.input[1]) == 4:
        return 0
    if node.op_type not in _PRODUCTS or dims.get(node.input[1]) != 2:
        return None
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if transposed else 1


def residual_sums(model: onnx.ModelProto) -> list[str]:
    """Return the names of sums of two feature maps that a convolution reads."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    maps = {node.input[0] for node in graph.node if node.op_type == "Conv"}
    found = []
    for node in graph.node:
        if node.op_type != "Add" or weights & set(node.input):
            continue
        if node.output[0] in maps and node.output[0] not in outputs:
            found.append(node.name)
    return found


def _finished(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model
