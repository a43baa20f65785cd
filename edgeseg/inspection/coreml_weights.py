"""How many weights an ML Program has and in which form, counted from its text alone."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.errors import ExportError

if TYPE_CHECKING:
    from edgeseg.exporter.mil.element_types import ElementType
    from edgeseg.exporter.mil.program import Binding, MilOperation, MilProgram
    from edgeseg.exporter.mil.values import Constant

NUMPY_NAMES = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}
"""Name of an element type in MIL -> numpy's, where they differ."""

_COMPRESSED = "constexpr_"
_WAYS = {
    "constexpr_affine_dequantize": "linear",
    "constexpr_blockwise_shift_scale": "linear by blocks",
    "constexpr_cast": "half precision",
    "constexpr_lut_to_dense": "palette",
    "constexpr_sparse_to_dense": "sparse",
}


class StoredNumbers:
    """Counts what a program reads from its weight files, and reads nothing."""

    def __init__(self) -> None:
        self.by_type: Counter[str] = Counter()

    def read(
        self, file_name: str, offset: int, element: "ElementType", shape: tuple[int, ...]
    ) -> "np.ndarray":
        """Return an array of the right shape and type that takes no memory."""
        self.by_type[NUMPY_NAMES.get(element.name, element.name)] += math.prod(shape)
        try:
            return np.broadcast_to(np.zeros((), element.numpy), shape)
        except (TypeError, ValueError) as error:
            raise ExportError(f"a weight cannot have the shape {shape}") from error


def count_parameters(program: "MilProgram", stored: StoredNumbers) -> int:
    """Count the numbers of the weights as the graph uses them: a palette is none, its indices are.

    A compressed weight is the result of an operation, or of several that follow each other. The
    rest of the weight files are weights as they are, without what compressed ones consist of.
    """
    constants = _constants(program)
    compressed = [each for each in program.operations if each.kind.startswith(_COMPRESSED)]
    taken = {name for each in compressed for name in _bindings(each) if isinstance(name, str)}
    unpacked = sum(
        math.prod(size or 0 for size in output.type.shape)
        for each in compressed
        for output in each.outputs
        if output.name not in taken
    )
    parts = [part for each in compressed for part in _parts(each, constants)]
    packed = sum(math.prod(_shape(part)) for part in parts if _is_stored(part))
    return sum(stored.by_type.values()) - packed + unpacked


def compressions(program: "MilProgram") -> Iterator[str]:
    """Yield how each compressed weight is compressed."""
    constants = _constants(program)
    for operation in program.operations:
        if not operation.kind.startswith(_COMPRESSED):
            continue
        names = operation.inputs.get("lut", ())
        tables = [constants.get(each) if isinstance(each, str) else each for each in names]
        table = operation.attributes.get("lut") or next(iter(tables), None)
        size = ""
        if table is not None and table.type is not None and table.type.shape:
            # iOS 16: (palette size,); iOS 18: (*groups, palette size, vector size)
            size = f" of {table.type.shape[-2 if table.type.rank > 1 else 0]} values"
        yield _WAYS.get(operation.kind, operation.kind) + size


def _constants(program: "MilProgram") -> "dict[str, Constant]":
    return {
        each.outputs[0].name: each.attributes["val"]
        for each in program.operations
        if each.kind == "const" and each.outputs and "val" in each.attributes
    }


def _bindings(operation: "MilOperation") -> "list[Binding]":
    return [each for argument in operation.inputs.values() for each in argument]


def _parts(operation: "MilOperation", constants: "dict[str, Constant]") -> "Iterator[Constant]":
    """Yield the constants that an operation unpacks; iOS 16 has them as attributes."""
    yield from operation.attributes.values()
    for binding in _bindings(operation):
        part = constants.get(binding) if isinstance(binding, str) else binding
        if part is not None:
            yield part


def _shape(part: "Constant") -> tuple[int, ...]:
    return part.value.shape if isinstance(part.value, np.ndarray) else ()


def _is_stored(part: "Constant") -> bool:
    """Return whether a weight file holds a constant: it is then a view without strides."""
    return (
        isinstance(part.value, np.ndarray) and part.value.size > 1 and not any(part.value.strides)
    )
