"""A float32 ONNX model in the precision of a target."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.exporter.onnx_float16 import to_float16
from edgeseg.exporter.onnx_inputs import Arrays, example_inputs
from edgeseg.exporter.onnx_int8 import find_layers, quantize_dynamic
from edgeseg.exporter.onnx_sensitivity import quantize_to_goal
from edgeseg.runtime.model_input import model_input
from edgeseg.signature import IMAGE, IMAGE_RGB, GraphSpec

Precision = Literal["float32", "float16", "int8_dynamic", "int8"]


@dataclass(frozen=True)
class PreciseModel:
    """A model in some precision.

    Attributes:
        model: The model.
        notes: What is worth telling about it, such as layers that stayed in float32.
    """

    model: onnx.ModelProto
    notes: tuple[str, ...] = ()


def in_precision(
    model: onnx.ModelProto,
    spec: GraphSpec,
    precision: Precision,
    calibration: Sequence[NDArray[np.uint8]] = (),
    max_error: float = 0.1,
) -> PreciseModel:
    """Convert a float32 model to another precision.

    Args:
        model: A float32 model with the tensors of `spec`.
        spec: Of an encoder or of a decoder.
        precision: "int8" is static for an encoder and dynamic for a decoder, which loses less that
            way: its cells differ from prompt to prompt more than any range tells.
        calibration: (H, W, 3) uint8 RGB images whose ranges are measured, for a static int8 or a
            float16 encoder; all are held in memory as inputs of the model.
        max_error: Largest relative error of the encoder's features, for the same.

    Raises:
        ExportError: See `edgeseg.exporter.onnx_sensitivity.quantize_to_goal`.
    """
    if precision == "float32":
        return PreciseModel(model)
    images = calibration if takes_image(spec) else ()
    if precision == "float16":
        inputs = [image_inputs(spec, image) for image in images] or example_inputs(spec)
        return PreciseModel(to_float16(model, inputs))
    if precision == "int8" and takes_image(spec):
        inputs = [image_inputs(spec, image) for image in images]
        quantized = quantize_to_goal(model, inputs, max_error)
        notes = [f"relative error of the features {quantized.error:.3f}"]
        if quantized.float_layers:
            notes.append(f"in float32: {', '.join(quantized.float_layers)}")
        return PreciseModel(quantized.model, tuple(notes))
    return _dynamic(model)


def _dynamic(model: onnx.ModelProto) -> PreciseModel:
    products = {node.name for node in model.graph.node if node.op_type != "Conv"}
    count = sum(layer.node in products for layer in find_layers(model))
    return PreciseModel(quantize_dynamic(model), (f"int8 weights in {count} matrix products",))


def takes_image(spec: GraphSpec) -> bool:
    """Whether an image is all a graph takes."""
    return len(spec.inputs) == 1 and spec.inputs[0].name in (IMAGE, IMAGE_RGB)


def image_inputs(spec: GraphSpec, image: NDArray[np.uint8]) -> Arrays:
    """Bring an (H, W, 3) uint8 RGB image into the form an encoder takes."""
    (tensor,) = spec.inputs
    size = max(side for side in tensor.shape if isinstance(side, int))
    return {tensor.name: model_input(image, size, normalises=tensor.name == IMAGE_RGB)}
