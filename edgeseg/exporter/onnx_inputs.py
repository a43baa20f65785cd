"""Random inputs that mean something, for graphs with the tensors of `edgeseg.signature`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import signature
from edgeseg.prompts import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, POSITIVE
from edgeseg.signature import GraphSpec, TensorSpec

Arrays = dict[str, NDArray[Any]]
"""The inputs or outputs of one run, by name."""

# The first is what a graph is recorded with, so no number is 1, which recording takes for fixed.
_SIZES = ({"N": 3, "P": 2}, {"N": 1, "P": 1}, {"N": 8, "P": 5})
_IMAGE_HW = (480, 640)


def example_inputs(spec: GraphSpec, seed: int = 0) -> list[Arrays]:
    """Draw inputs for a graph, with several numbers of prompts and points where it takes any.

    Points lie anywhere in their frame; prompts are clicks with empty slots or boxes, and odd ones
    have masks.
    """
    generator = np.random.default_rng(seed)
    is_fixed = all(tensor.is_fixed for tensor in spec.inputs)
    tries: tuple[dict[str, int], ...] = ({},) if is_fixed else _SIZES
    return [_draw(spec, sizes, generator) for sizes in tries]


def _draw(spec: GraphSpec, sizes: dict[str, int], generator: np.random.Generator) -> Arrays:
    image_wh = np.array(_IMAGE_HW[::-1], np.float32)
    arrays: Arrays = {}
    for tensor in spec.inputs:
        shape = tuple(size if isinstance(size, int) else sizes[size] for size in tensor.shape)
        array: NDArray[Any]
        if tensor.name == signature.POINT_LABELS:
            array = _labels(shape, generator)
        elif tensor.name == signature.POINTS_XY_MODEL:
            array = generator.uniform(0, _image_size(spec), shape)
        elif tensor.name == signature.POINTS_XY_IMAGE:
            array = generator.uniform(0, 1, shape) * image_wh
        elif tensor.name == signature.IMAGE_HW:
            array = np.array(_IMAGE_HW)
        elif tensor.name == signature.HAS_MASK:
            array = np.arange(shape[0]) % 2
        elif tensor.dtype == "uint8":
            array = generator.integers(0, 256, shape)
        else:
            array = generator.standard_normal(shape)
        arrays[tensor.name] = array.astype(tensor.dtype)
    return arrays


def _labels(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.int64]:
    labels = generator.choice([NEGATIVE, POSITIVE, POSITIVE, ABSENT], shape)
    labels[:, 0] = POSITIVE
    if shape[1] > 1:
        labels[2::3, :2] = BOX_TOP_LEFT, BOX_BOTTOM_RIGHT
    return labels


def _image_size(spec: GraphSpec) -> int:
    embedding: TensorSpec = spec.inputs[0]
    rows = embedding.shape[2]
    assert isinstance(rows, int)
    return 16 * rows
