"""Weight files of `.mlpackage` folders, read as stored.

The file is a chain: a header of 64 bytes (number of blobs, version), then for every blob 64 bytes
that describe it (sentinel, type, size, offset, unused bits of the last byte) followed by its bytes.
Every description and every blob starts at a multiple of 64; all bytes in between are zero. A
constant of the program names a blob by the offset of its description.

Source: StorageFormat.hpp of MILBlob, version 2 ("blob v2").
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.element_types import ElementType, unpack_elements

_ALIGNMENT = 64
_SENTINEL = 0xDEADBEEF
_VERSION = 2
_HEADER = struct.Struct("<II56s")
_DESCRIPTION = struct.Struct("<IIQQQ32s")


@dataclass(frozen=True)
class Blob:
    """One stored tensor.

    Attributes:
        code: Its type, as weight files number it.
        data: Its bytes.
        unused_bits: Bits of the last byte that belong to no element.
    """

    code: int
    data: bytes
    unused_bits: int


class WeightFile:
    """The blobs of a weight file.

    The whole chain is checked when the file is opened, so that a byte that changed outside of the
    values themselves is found.

    Args:
        path: The file.

    Raises:
        ExportError: It cannot be read or does not follow the format.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ExportError(
                f"{path}: cannot read the weight file ({error.strerror}); export it again"
            ) from error
        self._blobs = self._walk(content)

    def read(self, offset: int, element: ElementType, shape: tuple[int, ...]) -> np.ndarray:
        """Return a blob as an array of `shape`.

        Args:
            offset: Of the blob's description, in bytes.
            element: Type that the program declares.
            shape: Shape that the program declares.

        Raises:
            ExportError: There is no such blob, or it has another type or size.
        """
        blob = self._blobs.get(offset)
        if blob is None:
            raise self._damaged(f"no blob is described at byte {offset}")
        if blob.code != element.blob_code:
            raise self._damaged(
                f"the blob at byte {offset} has type {blob.code}, the program declares "
                f"{element.name} (type {element.blob_code})"
            )
        count = int(np.prod(shape, dtype=np.int64))
        if blob.unused_bits != -count * element.bits % 8:
            raise self._damaged(
                f"the blob at byte {offset} leaves {blob.unused_bits} bits unused, {count} values "
                f"of {element.name} leave {-count * element.bits % 8}"
            )
        try:
            return unpack_elements(blob.data, element, count).reshape(shape)
        except ExportError as error:
            raise self._damaged(f"the blob at byte {offset}: {error}") from error

    def _walk(self, content: bytes) -> Mapping[int, Blob]:
        if len(content) < _ALIGNMENT:
            raise self._damaged(f"{len(content)} bytes are less than a header")
        count, version, reserved = _HEADER.unpack_from(content)
        if version != _VERSION or any(reserved):
            raise self._damaged(f"version {version} or a reserved byte; known is {_VERSION}")
        blobs: dict[int, Blob] = {}
        end = _ALIGNMENT
        for _ in range(count):
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
            if any(content[end:start]):
                raise self._damaged(f"bytes between {end} and {start} are not zero")
            blobs[start], end = self._blob(content, start)
        if end != len(content):
            raise self._damaged(f"{count} blobs end at byte {end} of {len(content)}")
        return blobs

    def _blob(self, content: bytes, start: int) -> tuple[Blob, int]:
        if start + _DESCRIPTION.size > len(content):
            raise self._damaged(f"a description at byte {start} is cut off")
        sentinel, code, size, offset, unused_bits, reserved = _DESCRIPTION.unpack_from(
            content, start
        )
        if sentinel != _SENTINEL or any(reserved):
            raise self._damaged(f"no valid description at byte {start}")
        if offset != start + _DESCRIPTION.size or offset + size > len(content):
            raise self._damaged(
                f"the blob described at byte {start} lies at {offset} with {size} bytes"
            )
        return Blob(code, content[offset : offset + size], unused_bits), offset + size

    def _damaged(self, reason: str) -> ExportError:
        return ExportError(f"{self._path}: not a weight file as written: {reason}; export it again")
