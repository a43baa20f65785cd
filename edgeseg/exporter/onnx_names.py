"""Names in a recorded ONNX model: sizes as the specification calls them, nodes by their module."""

import ast
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import onnx

from edgeseg.errors import ExportError
from edgeseg.signature import GraphSpec

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_sizes(model: onnx.ModelProto, spec: GraphSpec) -> None:
    """Give inputs and outputs the sizes of the specification, and inner tensors its letters.

    Raises:
        ExportError: A size that was to stay open is not.
    """
    graph = model.graph
    letters = {
        size.dim_param: wanted
        for value, tensor in zip(graph.input, spec.inputs, strict=True)
        for size, wanted in zip(_sizes(value), tensor.shape, strict=True)
        if isinstance(wanted, str)
    }
    for value, tensor in zip(graph.output, spec.outputs, strict=True):
        for size, wanted in zip(_sizes(value), tensor.shape, strict=True):
            if isinstance(wanted, int):
                size.dim_value = wanted
            elif size.HasField("dim_value"):
                raise ExportError(
                    f"{tensor.name} was recorded with the size {size.dim_value} where it should "
                    f"take any ({wanted}); this is a fault of the graph, please report it"
                )
            else:
                size.dim_param = wanted
    for value in (*graph.input, *graph.value_info):
        for size in _sizes(value):
            if size.HasField("dim_param"):
                size.dim_param = re.sub(r"\w+", lambda m: letters.get(m[0], m[0]), size.dim_param)


def _sizes(value: onnx.ValueInfoProto) -> Iterable[Any]:
    return value.type.tensor_type.shape.dim


def name_nodes(model: onnx.ModelProto) -> None:
    """Call each node by module and operator, such as `image_encoder.neck.0/Conv`.

    Reports name layers, and a number would say nothing to their readers.
    """
    taken: Counter[str] = Counter()
    for node in model.graph.node:
        name = f"{_module_of(node)}/{node.op_type}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"


def _module_of(node: onnx.NodeProto) -> str:
    """Return the path of the module a node was recorded in; empty outside of all."""
    notes = {note.key: note.value for note in node.metadata_props}
    *modules, _ = ast.literal_eval(notes.get(_SCOPES, "['', '']"))
    return modules[-1].removeprefix("net.") if modules else ""


def forget_origin(model: onnx.ModelProto) -> None:
    """Take out what the recorder noted about our source: it holds paths of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.doc_string = ""
        del value.metadata_props[:]
