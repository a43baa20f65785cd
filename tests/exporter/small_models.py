"""ONNX models of a few nodes, written by hand."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def model_of(nodes, inputs, outputs, **constants):
    """A model of nodes, with inputs and outputs by name and shape, and float constants."""
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in s.items()]
        for s in (inputs, outputs)
    ]
    weights = [
        numpy_helper.from_array(np.asarray(array, np.float32), name)
        for name, array in constants.items()
    ]
    graph = helper.make_graph(nodes, "g", *values, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def node(operator, inputs, output, **attributes):
    """A node called after operator and output; `inputs` are names with spaces between."""
    name = f"{operator}_{output}"
    return helper.make_node(operator, inputs.split(), [output], name, **attributes)
