"""Types and constants of a MIL program, decoded from its protobuf.

Source: ValueType and Value in MIL.proto.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.element_types import ElementType, element_type, unpack_elements

Message = Any
"""A message of a protobuf class; these classes carry no types."""

# (file name in the program, offset, type, shape) -> values
BlobReader = Callable[[str, int, ElementType, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class TensorType:
    """What a program declares about a tensor.

    Attributes:
        dtype: Element type as MIL names it ("fp16", "fp32", "int32", "bool", ...).
        shape: Sizes; None for a size known only when the program runs.
    """

    dtype: str
    shape: tuple[int | None, ...]

    @property
    def rank(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    @property
    def element(self) -> ElementType:
        """Return the facts of the element type."""
        return element_type(self.dtype)

    def allows(self, shape: tuple[int, ...]) -> bool:
        """Say whether a tensor of this shape is what was declared.

        >>> TensorType("fp32", (1, None)).allows((1, 7)), TensorType("fp32", (2,)).allows((1,))
        (True, False)
        """
        sizes = zip(self.shape, shape, strict=False)
        return len(shape) == self.rank and all(size in (None, got) for size, got in sizes)

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype}[{sizes}]"


@dataclass(frozen=True)
class Constant:
    """A value stored in the package.

    Attributes:
        type: Its type; None for a list, whose elements have their own.
        value: An array, also for single numbers; a string; or the elements of a list.
    """

    type: TensorType | None
    value: "np.ndarray | str | tuple[Constant, ...]"


def decode_type(value_type: Message) -> TensorType:
    """Return the tensor type of a ValueType message.

    Raises:
        ExportError: It is not a tensor of known rank and element type.
    """
    which = value_type.WhichOneof("type")
    if which != "tensorType":
        raise ExportError(f"a value has type {which}; only tensors of fixed rank are supported")
    tensor = value_type.tensorType
    if tensor.attributes or tensor.rank != len(tensor.dimensions):
        raise ExportError(
            f"a tensor type has rank {tensor.rank}, {len(tensor.dimensions)} dimensions and the "
            f"attributes {sorted(tensor.attributes)}; only tensors of fixed rank are supported"
        )
    return TensorType(element_type(tensor.dataType).name, tuple(map(_size, tensor.dimensions)))


def decode_constant(value: Message, read_blob: BlobReader) -> Constant:
    """Return the constant of a Value message.

    Args:
        value: The message.
        read_blob: Reads what is stored in a weight file.

    Raises:
        ExportError: Its type or storage is not known, or its values do not fill its shape.
    """
    if value.WhichOneof("value") == "blobFileValue":
        tensor_type = decode_type(value.type)
        stored = value.blobFileValue
        shape = _constant_shape(tensor_type)
        array = read_blob(stored.fileName, stored.offset, tensor_type.element, shape)
        return Constant(tensor_type, array)
    immediate = value.immediateValue
    which = immediate.WhichOneof("value")
    if which == "list":
        return Constant(None, tuple(decode_constant(v, read_blob) for v in immediate.list.values))
    if which != "tensor":
        raise ExportError(f"a constant is stored as {which}; only tensors and lists are supported")
    tensor_type = decode_type(value.type)
    return Constant(tensor_type, _immediate(immediate.tensor, tensor_type))


def _size(dimension: Message) -> int | None:
    which = dimension.WhichOneof("dimension")
    if which == "constant":
        return int(dimension.constant.size)
    if which == "unknown" and not dimension.unknown.variadic:
        return None
    raise ExportError("a tensor has a variable number of dimensions; export it with a fixed rank")


def _constant_shape(tensor_type: TensorType) -> tuple[int, ...]:
    shape = tuple(size for size in tensor_type.shape if size is not None)
    if len(shape) != tensor_type.rank:
        raise ExportError(f"a constant has the open shape {tensor_type}; its sizes must be numbers")
    return shape


def _immediate(tensor: Message, tensor_type: TensorType) -> np.ndarray | str:
    element = tensor_type.element
    shape = _constant_shape(tensor_type)
    count = int(np.prod(shape, dtype=np.int64))
    field = tensor.WhichOneof("value")
    if field != element.field:
        raise ExportError(
            f"a constant of type {tensor_type} is stored in {field}, expected {element.field}"
        )
    stored = getattr(tensor, field).values
    if field == "bytes":
        return unpack_elements(stored, element, count).reshape(shape)
    if len(stored) != count:
        raise ExportError(f"a constant of type {tensor_type} holds {len(stored)} values")
    if element.kind == "string":
        if shape:
            raise ExportError(f"a constant has type {tensor_type}; only single strings are known")
        return str(stored[0])
    return np.array(stored, element.numpy).reshape(shape)
