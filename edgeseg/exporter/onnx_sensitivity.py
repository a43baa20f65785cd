"""Which layers may not be int8: measured in groups, and left out until the goal is met."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import ExportError
from edgeseg.exporter.onnx_inputs import Arrays
from edgeseg.exporter.onnx_int8 import Layer, find_layers, quantize_static, residual_sums
from edgeseg.exporter.onnx_ranges import Range, tensor_ranges
from edgeseg.exporter.onnx_sessions import run_all

MAX_GROUPS = 64
"""Groups of layers measured; each costs a session and a run on every ranked input."""
NUM_EVALUATED = 4
"""Inputs on which the error of a quantised model is measured."""
NUM_RANKED = 2
"""Inputs on which groups of layers are ranked."""
_WEIGHT_LIMIT = 64
"""Largest int8 weight in the 7 bits that `quantize_static` uses."""


@dataclass(frozen=True)
class SensitiveLayers:
    """A group of neighbouring layers.

    Attributes:
        layers: In order.
        error: Relative error of the outputs when only these are int8.
    """

    layers: tuple[Layer, ...]
    error: float

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of their nodes, activations included."""
        return tuple(name for layer in self.layers for name in layer.nodes)


@dataclass(frozen=True)
class QuantizedModel:
    """A model in int8 that keeps an error goal.

    Attributes:
        model: The model.
        float_layers: Names of the layers that stayed in float32, the most sensitive first, then
            those of residual sums.
        error: Relative error of the outputs.
    """

    model: onnx.ModelProto
    float_layers: tuple[str, ...]
    error: float


def quantize_to_goal(
    model: onnx.ModelProto, calibration: Sequence[Arrays], max_error: float
) -> QuantizedModel:
    """Quantise as many layers as an error goal allows.

    Sums of residuals are rounded like layers, unless they alone miss the goal: rounding one stream
    again and again, as deep residual networks do, adds up.

    Args:
        model: A float32 model.
        calibration: Inputs as in use; they give the ranges, and some of them the error.
        max_error: Largest relative error of any output.

    Raises:
        ExportError: There are no inputs, or no layer can be int8 within the goal.
    """
    if not calibration:
        raise ExportError(
            "static quantisation needs calibration inputs, got none; give some images"
        )
    ranges = tensor_ranges(model, calibration)
    evaluated = calibration[:: max(1, len(calibration) // NUM_EVALUATED)][:NUM_EVALUATED]
    expected = run_all(model, evaluated)

    def attempt(groups: Sequence[SensitiveLayers], sums: Sequence[str] = ()) -> QuantizedModel:
        nodes = [name for group in groups for name in group.nodes]
        quantized = quantize_static(model, ranges, [*nodes, *sums])
        names = [layer.node for group in groups for layer in group.layers]
        return QuantizedModel(
            quantized, (*names, *sums), relative_error(expected, run_all(quantized, evaluated))
        )

    best, sums = attempt(()), list[str]()
    if best.error <= max_error:
        return best
    if attempt([SensitiveLayers(find_layers(model), np.inf)]).error > max_error:
        sums = residual_sums(model)
        best = attempt((), sums)
        if best.error <= max_error:
            return best
    ranking = find_sensitive_layers(model, ranges, evaluated[:NUM_RANKED])
    too_few, enough = 0, len(ranking)
    best = attempt(ranking, sums)
    while enough - too_few > 1:  # errors hardly ever grow when a layer more stays in float32
        middle = (too_few + enough) // 2
        tried = attempt(ranking[:middle], sums)
        if tried.error <= max_error:
            best, enough = tried, middle
        else:
            too_few = middle
    if not any(node.op_type == "QuantizeLinear" for node in best.model.graph.node):
        raise ExportError(
            f"no layer can be int8 with a relative error of {max_error:g}, the least sensitive "
            f"alone makes {ranking[-1].error:.2g}; raise max_error or use another precision"
        )
    return best


def find_sensitive_layers(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    inputs: Sequence[Arrays],
    max_groups: int = MAX_GROUPS,
) -> tuple[SensitiveLayers, ...]:
    """Measure what int8 costs in each group of layers alone, the most sensitive first.

    Args:
        model: A float32 model.
        ranges: Of all its tensors.
        inputs: What to run it on.
        max_groups: With more layers than this, neighbours are measured together.
    """
    layers = find_layers(model)
    expected = run_all(model, inputs)
    size = max(1, -(-len(layers) // max_groups))
    groups = [layers[start : start + size] for start in range(0, len(layers), size)]
    measured = []
    for group in groups:
        rounded = with_rounded_layers(model, ranges, group)
        answers = run_all(rounded, inputs, fuse_quantized=False)
        measured.append(SensitiveLayers(group, relative_error(expected, answers)))
    return tuple(sorted(measured, key=lambda group: -group.error))


def relative_error(expected: Sequence[Arrays], answers: Sequence[Arrays]) -> float:
    """Return the root mean square error over the root mean square of the worst output."""
    errors = []
    for name in expected[0]:
        pairs = [
            (one[name].astype(np.float64), other[name])
            for one, other in zip(expected, answers, strict=True)
        ]
        error = sum(float(np.square(one - other).sum()) for one, other in pairs)
        power = sum(float(np.square(one).sum()) for one, _ in pairs)
        errors.append(np.sqrt(error / max(power, np.finfo(np.float64).tiny)))
    return float(max(errors))


def with_rounded_layers(
    model: onnx.ModelProto, ranges: Mapping[str, Range], layers: Collection[Layer]
) -> onnx.ModelProto:
    """Return the model with what some layers read, hold and write rounded as by int8."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    graph = rounded.graph
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    by_node = {layer.node: layer for layer in layers}
    targets = {layer.target for layer in layers}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        layer = by_node.get(node.name)
        if layer is not None:
            name = f"{node.name}/rounded"
            array = numpy_helper.to_array(weights[layer.weight])
            weight = _rounded_weight(array, layer.weight_axis)
            graph.initializer.append(numpy_helper.from_array(weight, f"{name}/weight"))
            graph.node.extend(_rounding(graph, layer.source, name, ranges[layer.source]))
            node.input[0], node.input[1] = name, f"{name}/weight"
        target, after = node.output[0], list[onnx.NodeProto]()
        if target in targets:
            node.output[0] = f"{target}/exact"
            after = list(_rounding(graph, node.output[0], target, ranges[target]))
        graph.node.extend([node, *after])
    return rounded


def _rounded_weight(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True) / _WEIGHT_LIMIT
    scale = np.where(scale > 0, scale, 1)
    return (np.rint(weight / scale) * scale).astype(np.float32)


def _rounding(
    graph: onnx.GraphProto, source: str, target: str, ends: Range
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """Return two nodes that round a tensor to 256 steps of its range, zero among them."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    scale = (high - low) / 255 or 1.0
    zero = int(np.rint(-low / scale))
    graph.initializer.append(helper.make_tensor(f"{target}/scale", TensorProto.FLOAT, [], [scale]))
    graph.initializer.append(helper.make_tensor(f"{target}/zero", TensorProto.UINT8, [], [zero]))
    steps = [f"{target}/scale", f"{target}/zero"]
    down = helper.make_node("QuantizeLinear", [source, *steps], [f"{target}/steps"])
    return down, helper.make_node("DequantizeLinear", [f"{target}/steps", *steps], [target])
