"""The smallest and the largest number that each tensor of an ONNX model holds on given inputs."""

from collections.abc import Iterable

import onnx
from onnx import TensorProto, helper

from edgeseg.exporter.onnx_inputs import Arrays
from edgeseg.exporter.onnx_sessions import runner_of

Range = tuple[float, float]
_PROBES = {"ReduceMin": "/lowest", "ReduceMax": "/highest"}


def tensor_ranges(model: onnx.ModelProto, inputs: Iterable[Arrays]) -> dict[str, Range]:
    """Run a model and return the range of every float tensor that is no weight, by name.

    Args:
        model: Any float32 model.
        inputs: What to run it on, one after another.
    """
    names = _computed_tensors(model)
    run = runner_of(_with_probes(model, names))
    ranges: dict[str, Range] = {}
    for arrays in inputs:
        found = run(arrays)
        for name in names:
            low, high = (float(found[name + suffix]) for suffix in _PROBES.values())
            before = ranges.get(name, (low, high))
            ranges[name] = min(low, before[0]), max(high, before[1])
    return ranges


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of each tensor of a model by name, as `TensorProto` numbers them."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _computed_tensors(model: onnx.ModelProto) -> list[str]:
    types = element_types(model)
    names = [value.name for value in model.graph.input]
    names += [name for node in model.graph.node for name in node.output]
    return [name for name in names if types.get(name) == TensorProto.FLOAT]


def _with_probes(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Return the model with two scalars for each tensor as further outputs."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    graph = probed.graph
    for name in names:
        for operator, suffix in _PROBES.items():
            probe = name + suffix
            graph.node.append(helper.make_node(operator, [name], [probe], probe, keepdims=0))
            graph.output.append(helper.make_tensor_value_info(probe, TensorProto.FLOAT, []))
    return probed
