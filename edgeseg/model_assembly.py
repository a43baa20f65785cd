"""Putting a model's folder together out of sight, by one process, until it is whole."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeseg.downloads import can_continue
from edgeseg.errors import WeightsError

_HIDDEN = ".fetching-"
_LOCK = "lock"


@dataclass(frozen=True)
class Assembly:
    """Where a model is put together.

    Attributes:
        folder: Empty; becomes the model's folder, all at once.
        downloads: For downloads; they survive a failure if they can be continued.
    """

    folder: Path
    downloads: Path


@contextmanager
def assembling(yours: Path, name: str) -> Iterator[Assembly]:
    """Give an empty folder to fill, which becomes the model's if the block succeeds.

    If the block fails, or the process is killed, nothing remains but downloads that the next
    attempt can continue.

    Args:
        yours: Folder of the user's models; it is created.
        name: Of the model, which does not exist yet.

    Raises:
        WeightsError: Another process is fetching a model of this name.
        OSError: The folder cannot be written.
    """
    work = yours / f"{_HIDDEN}{name}"
    assembly = Assembly(work / "model", work / "downloads")
    work.mkdir(parents=True, exist_ok=True)
    with _locked(work / _LOCK, name):
        try:
            shutil.rmtree(assembly.folder, ignore_errors=True)  # of a process that was killed
            assembly.folder.mkdir()
            assembly.downloads.mkdir(exist_ok=True)
            yield assembly
            assembly.folder.rename(yours / name)
            shutil.rmtree(assembly.downloads)
        finally:
            shutil.rmtree(assembly.folder, ignore_errors=True)
            if not any(can_continue(path) for path in assembly.downloads.glob("*")):
                shutil.rmtree(assembly.downloads, ignore_errors=True)


def unfinished_downloads(yours: Path) -> dict[str, int]:
    """Return the bytes of the downloads that can be continued, by the model's name."""
    return {
        path.parents[1].name.removeprefix(_HIDDEN): path.stat().st_size
        for path in sorted(yours.glob(f"{_HIDDEN}*/downloads/*"))
        if can_continue(path)
    }


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    """Hold a lock that ends with this process, and clear its folder away if nothing is in it."""
    with contextlib.ExitStack() as afterwards, path.open("a") as file:
        _lock(file, name)
        afterwards.callback(_clear, path)  # once the file is closed, as Windows wants
        yield


def _clear(lock: Path) -> None:
    with contextlib.suppress(OSError):  # the next process may have come
        lock.unlink()
        lock.parent.rmdir()  # refuses while a download is in it


def _lock(file: IO[str], name: str) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise WeightsError(
            f"another process is fetching {name} already; wait for it, or end it"
        ) from error
