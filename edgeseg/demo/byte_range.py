"""The part of a file that a request asks for."""

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class ByteRange:
    """A part of a file.

    Attributes:
        start: First byte.
        size_bytes: How many; 0 if the range lies beyond the end of the file.
    """

    start: int
    size_bytes: int


def parse_range(header: str | None, file_size_bytes: int) -> ByteRange | None:
    """Return what a `Range` header asks for; None if all is to be sent.

    Several ranges and what is not understood mean everything, as RFC 9110 allows.

    >>> parse_range("bytes=2-5", 10)
    ByteRange(start=2, size_bytes=4)
    >>> parse_range("bytes=-3", 10)
    ByteRange(start=7, size_bytes=3)
    """
    match = _ONE_RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.group() == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        size_bytes = min(int(last), file_size_bytes)
        return ByteRange(file_size_bytes - size_bytes, size_bytes)
    start = int(first)
    end = min(int(last) + 1, file_size_bytes) if last else file_size_bytes
    if last and int(last) < start:
        return None
    return ByteRange(start, max(0, end - start))
