"""Limits that keep a stranger's file from taking the memory or the time of whoever looks at it."""

import os
from collections.abc import Iterator
from pathlib import Path

from edgeseg.errors import EdgesegError

MAX_TEXT_BYTES = 16 * 2**20
"""Settings, manifests and reports are a thousand times smaller."""
MAX_FILES = 10_000
"""Files in a folder that is one model."""


def check_text_size(path: Path) -> None:
    """Refuse a text file that is too large to be what it should be.

    Raises:
        EdgesegError: It is; or it is no file.
    """
    if not path.is_file():
        raise EdgesegError(f"{path} is no file; give a whole folder")
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise EdgesegError(
            f"{path} has {size / 1e6:.0f} MB, and a file of that name has less than "
            f"{MAX_TEXT_BYTES / 1e6:.0f}; give the right one"
        )


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that is one model.

    Raises:
        EdgesegError: There are links, which may lead anywhere, or very many files.
    """
    count = 0
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            if (Path(place) / name).is_symlink():
                raise EdgesegError(
                    f"{Path(place) / name} is a link, and a model's folder holds files only; put "
                    "the file it means in its place"
                )
        for name in files:
            count += 1
            if count > MAX_FILES:
                raise EdgesegError(
                    f"{folder} has more than {MAX_FILES} files; give the folder of one model"
                )
            path = Path(place) / name
            if not path.is_file():
                raise EdgesegError(f"{path} is no ordinary file; a model's folder has none such")
            yield path
