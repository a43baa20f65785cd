"""Folders of images: which files there are, and which domain and name each one gets."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Endings, in lower case, of the files that are taken for images."""


@dataclass(frozen=True)
class PlacedFile:
    """A file under the root of a source.

    Attributes:
        path: The file.
        relative: Its path from the root of the source.
        domain: The domain it belongs to.
        name: Unique name: domain, folders and stem, joined by "/".
    """

    path: Path
    relative: Path
    domain: str
    name: str


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, sorted, following links but never in a circle.

    Hidden entries are passed over (".DS_Store", and the "._NAME.jpg" that macOS leaves behind).

    Raises:
        DataError: A folder cannot be listed.
    """
    yield from _walk(folder, frozenset())


def _walk(folder: Path, ancestors: frozenset[Path]) -> Iterator[Path]:
    try:
        real = folder.resolve()
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}") from error
    if real in ancestors:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, ancestors | {real})
        else:
            yield entry


def place_files(root: Path, domain: str | None, split: str | None) -> list[PlacedFile]:
    """List the files of a source with their domains and names.

    With a split, the files come from `root/split`, or from every `root/DOMAIN/split` when there is
    no `root/split`. The domain is the first folder below the root, or the root's own name for files
    that lie in it directly or in its split; a given domain replaces both.

    Args:
        root: The folder of the source.
        domain: Domain of all files, or None to take it from the folders.
        split: Name of the split's folders, such as "train", or None to read everything.

    Raises:
        DataError: The root is no folder, or has no such split.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give a folder that holds images")
    is_own_split = split is not None and (root / split).is_dir()
    own_domain = domain or (root.absolute().name if is_own_split else None)
    return [
        place_file(path, root, own_domain)
        for folder in _split_folders(root, split)
        for path in walk_files(folder)
    ]


def place_file(path: Path, root: Path, domain: str | None) -> PlacedFile:
    """Derive the domain and the name of one file.

    Args:
        path: The file, below `root`.
        root: The folder of the source.
        domain: Domain to use, or None to take it from the folders.
    """
    relative = path.relative_to(root)
    stem = relative.with_suffix("").as_posix()
    if domain is None and len(relative.parts) > 1:
        return PlacedFile(path, relative, relative.parts[0], stem)
    domain = domain or root.absolute().name
    return PlacedFile(path, relative, domain, f"{domain}/{stem}")


def _split_folders(root: Path, split: str | None) -> list[Path]:
    if split is None:
        return [root]
    if (root / split).is_dir():
        return [root / split]
    folders = [path / split for path in sorted(root.iterdir()) if (path / split).is_dir()]
    if not folders:
        found = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())[:8])
        raise DataError(
            f"{root} has no split {split!r}; expected {root / split} or {root / 'DOMAIN' / split}, "
            f"found the folders: {found or 'none'}"
        )
    return folders
