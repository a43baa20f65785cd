"""`.safetensors` files: names, shapes and types from the header; no tensor is read.

Source: the format as described at https://github.com/huggingface/safetensors; the header is parsed
here so that a damaged one can be named, and without the numbers behind it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.errors import WeightsError
from edgeseg.inspection.description import TensorFacts, millions, written_counts
from edgeseg.inspection.tensor_counts import TensorCounts, count_tensors

MAX_HEADER_BYTES = 16 * 2**20
"""The header of SAM ViT-H is 0.06 MB; the format itself allows 100 MB."""

_LENGTH_BYTES = 8
_TYPES = {
    "BOOL": ("bool", 8),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "U16": ("uint16", 16),
    "I16": ("int16", 16),
    "U32": ("uint32", 32),
    "I32": ("int32", 32),
    "U64": ("uint64", 64),
    "I64": ("int64", 64),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F32": ("float32", 32),
    "F64": ("float64", 64),
}
"""Name in the file -> numpy's name and width in bits."""


@dataclass(frozen=True)
class SafetensorsHeader:
    """The header of a file.

    Attributes:
        tensors: In the order of the file.
        metadata: Texts that its writer added.
    """

    tensors: tuple[TensorFacts, ...]
    metadata: Mapping[str, str]

    @property
    def is_ours(self) -> bool:
        """Whether `edgeseg` wrote it."""
        return self.metadata.get("format") == "edgeseg"


@dataclass(frozen=True)
class WeightsFacts:
    """What a safetensors file holds.

    Attributes:
        model: Registry name of the network; None if it is none that is known.
        image_size: Side of the input it was trained for, in pixels; None if not stated.
        counts: Tensors and numbers.
        metadata: Texts that its writer added.
    """

    model: str | None
    image_size: int | None
    counts: TensorCounts
    metadata: Mapping[str, str]

    kind = "weights"

    @property
    def summary(self) -> str:
        """One sentence for people."""
        size = f" for {self.image_size} px input" if self.image_size else ""
        what = f"weights of `{self.model}`{size}" if self.model else "weights of an unknown network"
        numbers = written_counts(self.counts.numbers_by_type)
        return f"{what}, {millions(self.counts.num_parameters)} parameters ({numbers})"


def looks_like_safetensors(head: bytes, size_bytes: int) -> bool:
    """Return whether a file begins as the format does: a length that fits, then a JSON object.

    Args:
        head: First bytes of the file.
        size_bytes: Of the whole file.
    """
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    return len(head) > _LENGTH_BYTES and head[8:9] == b"{" and length <= size_bytes - _LENGTH_BYTES


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header of a file against the size of the file.

    Raises:
        WeightsError: The file is cut off, damaged, or no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES)
        length = int.from_bytes(start, "little")
        if len(start) < _LENGTH_BYTES:
            raise _damaged(path, f"it has {size} bytes, which is less than a header")
        if length > MAX_HEADER_BYTES:
            raise _damaged(
                path, f"its header would have {length} bytes, allowed {MAX_HEADER_BYTES}"
            )
        if length > size - _LENGTH_BYTES:
            raise _damaged(path, f"its header has {length} bytes, the whole file {size}")
        text = file.read(length)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is no JSON ({type(error).__name__})") from error
    if not isinstance(entries, dict):
        raise _damaged(path, "its header is no JSON object")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _damaged(path, "its metadata is no JSON object")
    _check_extents(path, entries, size - _LENGTH_BYTES - length)
    return SafetensorsHeader(
        tuple(_tensor(path, name, entry) for name, entry in entries.items()),
        {str(key): str(value) for key, value in metadata.items()},
    )


def describe_weights(path: Path) -> tuple[WeightsFacts, tuple[str, ...]]:
    """Return what a file holds, and notes; only files of others need PyTorch to be recognised.

    Raises:
        WeightsError: See `read_header`.
    """
    header = read_header(path)
    counts = count_tensors(header.tensors)
    if header.is_ours:
        image_size = header.metadata.get("image_size", "")
        known = int(image_size) if image_size.isdecimal() and len(image_size) < 6 else None
        return WeightsFacts(header.metadata.get("model"), known, counts, header.metadata), ()
    try:
        from edgeseg.modeling.stored_networks import recognise_tensors
    except ImportError:
        note = (
            "which network it is for takes PyTorch to tell; run: python -m pip install "
            "'edgeseg[train]'"
        )
        return WeightsFacts(None, None, counts, header.metadata), (note,)
    shapes = {tensor.name: _sizes(tensor) for tensor in header.tensors}
    found = recognise_tensors(shapes, path.name)
    notes = (found.problem,) if found.problem else ()
    return WeightsFacts(found.model, None, counts, header.metadata), notes


def _check_extents(path: Path, entries: Mapping[str, Any], data_bytes: int) -> None:
    """Refuse tensors that overlap, leave gaps or do not end with the file."""
    try:
        extents = sorted(_extent(name, entry) for name, entry in entries.items())
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "its header does not say where each tensor lies") from error
    end = 0
    for start, stop, name in extents:
        if start != end or stop < start:
            raise _damaged(path, f"the bytes of {name!r} do not follow those before")
        end = stop
    if end != data_bytes:
        what = "cut off" if end > data_bytes else "too long"
        raise _damaged(path, f"it is {what}: {end} bytes of tensors are stated, {data_bytes} there")


def _extent(name: str, entry: Mapping[str, Any]) -> tuple[int, int, str]:
    """Return first byte, byte after the last, and name of a tensor."""
    start, stop = entry["data_offsets"]
    if type(start) is not int or type(stop) is not int:  # True is an int to Python
        raise TypeError(f"offsets must be whole numbers, got {start!r} and {stop!r}")
    return start, stop, name


def _tensor(path: Path, name: str, entry: Mapping[str, Any]) -> TensorFacts:
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise _damaged(path, f"the shape of {name!r} is {shape!r}"[:200])
    stored = str(entry.get("dtype"))
    dtype, bits = _TYPES.get(stored, (stored, None))
    start, stop = entry["data_offsets"]
    if bits is not None and math.prod(shape) * bits != (stop - start) * 8:
        raise _damaged(
            path, f"{name!r} of shape {shape} and type {stored} has {stop - start} bytes"
        )
    return TensorFacts(name, tuple(shape), dtype)


def _sizes(tensor: TensorFacts) -> tuple[int, ...]:
    return tuple(size for size in tensor.shape if isinstance(size, int))


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{path} is no whole safetensors file: {reason}; fetch or write the file again"
    )
