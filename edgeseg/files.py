"""Writing files so that a reader never meets half of one."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    A crash at any moment leaves the old file or the new one, never a mixture.

    Args:
        path: Where the finished file belongs; its folder is created.
        write: Receives the temporary path, with the suffix of `path`, and writes the whole file
            there. If it raises, `path` is left as it was and nothing remains beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("r+b") as file:  # writable, or Windows refuses to flush it
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
