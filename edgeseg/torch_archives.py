"""The archives that PyTorch saves to, listed without unpickling and without PyTorch.

PyTorch's files are ZIP archives whose records are stored as they are. A stranger's archive may
claim anything; nothing is read here but its directory, and that only up to a limit.

Source: APPNOTE.TXT of the ZIP format, for where the size of the directory stands.
"""

import struct
import zipfile
from pathlib import Path

from edgeseg.errors import WeightsError

MAX_DIRECTORY_BYTES = 16 * 2**20
"""That of SAM ViT-H, 596 records, has 0.05 MB."""
MAX_PICKLE_BYTES = 64 * 2**20
"""The record that names tensors; that of SAM ViT-H has 0.1 MB."""

_END = struct.Struct("<4s4H2LH")  # signature, disks and records, size and offset of the directory
_LOCATOR = struct.Struct("<4sLQL")  # in front of it in large archives: where the long end record is
_LONG_END = struct.Struct("<4sQ2H2L4Q")
_MAX_COMMENT = 2**16


def list_records(path: Path) -> list[zipfile.ZipInfo] | None:
    """Return the records of an archive that PyTorch may have written; None if it is no archive.

    Raises:
        WeightsError: It is an archive that is damaged, or too large to be looked at.
    """
    if not zipfile.is_zipfile(path):
        return None
    size = _directory_bytes(path)
    if size > MAX_DIRECTORY_BYTES:
        raise WeightsError(
            f"{path} is an archive whose directory has {size} bytes, allowed are "
            f"{MAX_DIRECTORY_BYTES}; it is no checkpoint"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{path} is a damaged archive ({error}); fetch it again") from error


def is_checkpoint(records: list[zipfile.ZipInfo]) -> bool:
    """Return whether records are those of a PyTorch file."""
    return any(_inner_name(record) == "data.pkl" for record in records)


def check_archive(path: Path, records: list[zipfile.ZipInfo]) -> None:
    """Refuse archives of programs, and those that would grow when they are read.

    Raises:
        WeightsError: It is one.
    """
    if any(_inner_name(record) == "constants.pkl" for record in records):
        raise WeightsError(
            f"{path} is a TorchScript program, not weights; save the state dict of the network"
        )
    for record in records:
        name = record.filename
        reason = ""
        if record.compress_type != zipfile.ZIP_STORED:
            reason = f"{name!r} is compressed"
        elif name.endswith(".pkl") and record.file_size > MAX_PICKLE_BYTES:
            reason = f"{name!r} has {record.file_size} bytes, allowed are {MAX_PICKLE_BYTES}"
        if reason:
            raise WeightsError(
                f"{path} is not as PyTorch writes: {reason}, which could exhaust the memory; load "
                "it where you trust it, and save it again"
            )


def _inner_name(record: zipfile.ZipInfo) -> str:
    """Return the name of a record inside the folder that all records of PyTorch share."""
    return record.filename.partition("/")[2]


def _directory_bytes(path: Path) -> int:
    """Return the size of an archive's directory as its end record states it; 0 if there is none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _MAX_COMMENT - _END.size))
        tail = file.read()
        place = tail.rfind(b"PK\x05\x06")
        if place < 0 or place + _END.size > len(tail):
            return 0
        stated = int(_END.unpack_from(tail, place)[5])
        start = place - _LOCATOR.size
        if start < 0 or tail[start : start + 4] != b"PK\x06\x07":
            return stated
        file.seek(max(0, size - len(tail) + start - _LONG_END.size))  # as zipfile looks for it
        record = file.read(_LONG_END.size)
    is_whole = len(record) == _LONG_END.size and record.startswith(b"PK\x06\x06")
    return (
        max(stated if stated < 2**32 - 1 else 0, _LONG_END.unpack(record)[8])
        if is_whole
        else stated
    )
