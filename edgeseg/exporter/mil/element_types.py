"""Element types of MIL tensors: how wide, of which kind, and how they are stored.

Source: DataType and TensorValue in MIL.proto; BlobDataType.hpp of MILBlob.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeseg.errors import ExportError

Kind = Literal["float", "int", "bool", "string"]


@dataclass(frozen=True)
class ElementType:
    """One element type.

    Attributes:
        name: As MIL writes it, for example "fp16".
        code: Its number in MIL.proto.
        kind: Float, integer, bool or string.
        field: The field of a TensorValue that holds immediate values.
        bits: Width of one stored element; below 8 the elements are packed.
        stored_as: Little-endian numpy type of stored bytes; of the unpacked value below 8 bits.
        blob_code: Its number in weight files; None where they cannot hold it.
    """

    name: str
    code: int
    kind: Kind
    field: str
    bits: int = 0
    stored_as: str = ""
    blob_code: int | None = None

    @property
    def is_float(self) -> bool:
        """Whether values are floating-point numbers."""
        return self.kind == "float"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """Return the numpy type of decoded values."""
        return np.dtype(self.stored_as)

    @property
    def bounds(self) -> tuple[int, int]:
        """Return the smallest and the largest value of an integer type.

        >>> element_type("int4").bounds, element_type("uint6").bounds
        ((-8, 7), (0, 63))
        """
        if self.name.startswith("u"):
            return 0, 2**self.bits - 1
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1


_TYPES = (
    ElementType("bool", 1, "bool", "bools", 8, "?"),
    ElementType("string", 2, "string", "strings"),
    ElementType("fp16", 10, "float", "bytes", 16, "<f2", 1),
    ElementType("fp32", 11, "float", "floats", 32, "<f4", 2),
    ElementType("fp64", 12, "float", "doubles", 64, "<f8"),
    ElementType("int4", 25, "int", "bytes", 4, "i1", 8),
    ElementType("int8", 21, "int", "bytes", 8, "i1", 4),
    ElementType("int16", 22, "int", "ints", 16, "<i2", 6),
    ElementType("int32", 23, "int", "ints", 32, "<i4", 14),
    ElementType("int64", 24, "int", "longInts", 64, "<i8"),
    ElementType("uint1", 37, "int", "bytes", 1, "u1", 9),
    ElementType("uint2", 36, "int", "bytes", 2, "u1", 10),
    ElementType("uint3", 39, "int", "bytes", 3, "u1", 12),
    ElementType("uint4", 35, "int", "bytes", 4, "u1", 11),
    ElementType("uint6", 38, "int", "bytes", 6, "u1", 13),
    ElementType("uint8", 31, "int", "bytes", 8, "u1", 3),
    ElementType("uint16", 32, "int", "ints", 16, "<u2", 7),
    ElementType("uint32", 33, "int", "bytes", 32, "<u4", 15),
)
_BY_NAME: Mapping[str, ElementType] = {element.name: element for element in _TYPES}
_BY_CODE: Mapping[int, ElementType] = {element.code: element for element in _TYPES}


def element_type(key: str | int) -> ElementType:
    """Return an element type by its MIL name or its number in MIL.proto.

    Raises:
        ExportError: There is no such type here.
    """
    found = _BY_NAME.get(key) if isinstance(key, str) else _BY_CODE.get(key)
    if found is None:
        known = ", ".join(_BY_NAME)
        raise ExportError(f"element type {key!r} is not supported; use one of {known}")
    return found


def unpack_elements(packed: bytes, element: ElementType, count: int) -> np.ndarray:
    """Return the elements of stored bytes.

    Elements narrower than a byte follow each other from the least significant bit up, across byte
    borders; what is left of the last byte must be zero.

    Args:
        packed: As stored.
        element: Type of one element; not a string.
        count: How many elements there are.

    Returns:
        (count,) of `element.numpy`.

    Raises:
        ExportError: The bytes are too few, too many, or have bits set after the last element.

    >>> unpack_elements(bytes([0x21, 0x03]), element_type("uint4"), 3).tolist()
    [1, 2, 3]
    >>> unpack_elements(bytes([0x0F]), element_type("int4"), 1).tolist()
    [-1]
    """
    expected = (count * element.bits + 7) // 8
    if len(packed) != expected:
        raise ExportError(
            f"{count} values of type {element.name} are {expected} bytes, got {len(packed)}; "
            "the file is damaged"
        )
    if element.bits >= 8:
        return np.frombuffer(packed, element.numpy)
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
    used = count * element.bits
    if bits[used:].any():
        raise ExportError(f"bits are set after {count} values of type {element.name}; file damaged")
    weights = 1 << np.arange(element.bits, dtype=np.int64)
    values = bits[:used].reshape(count, element.bits) @ weights
    if element.bounds[0] < 0:  # the highest bit is the sign
        values = np.where(values > element.bounds[1], values - 2**element.bits, values)
    return values.astype(element.numpy)
