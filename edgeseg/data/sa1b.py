"""SA-1B: NAME.jpg beside NAME.json, in folders or in the tar shards it is distributed in."""

import tarfile
from pathlib import Path, PurePosixPath

from edgeseg.data.folders import IMAGE_SUFFIXES, PlacedFile, place_file, place_files
from edgeseg.data.records import ByteRange, ImageRecord
from edgeseg.errors import DataError


def read_sa1b(path: Path, domain: str | None = None, split: str | None = None) -> list[ImageRecord]:
    """List the images of a folder (recursively, with the shards in it) or of one tar shard.

    An image whose JSON is absent is listed all the same: it serves wherever no masks are needed,
    and is reported as broken where they are.

    Args:
        path: A folder or a `.tar` file.
        domain: Domain of all images, or None to take it from the folders.
        split: Name of the split's folders, or None.

    Raises:
        DataError: The path or the split is absent, or a shard is damaged.
    """
    if path.is_file():
        return read_shard(place_file(path, path.parent, domain))
    records = []
    for file in place_files(path, domain, split):
        suffix = file.path.suffix.lower()
        if suffix == ".tar":
            records += read_shard(file)
        elif suffix in IMAGE_SUFFIXES:
            annotations = ByteRange(str(file.path.with_suffix(".json")))
            image = ByteRange(str(file.path))
            records.append(ImageRecord(file.name, file.domain, image, annotations))
    return records


def read_shard(shard: PlacedFile) -> list[ImageRecord]:
    """List the images of a tar shard by its headers; nothing is extracted.

    The records point into the shard, which has to stay where it is.

    Raises:
        DataError: The file is no uncompressed tar, or it is truncated.
    """
    path = str(shard.path)
    members = _index(shard.path)
    records = []
    for member, image in sorted(members.items()):
        if member.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        partner = member.with_suffix(".json")
        # An absent partner gets a path that cannot be read, so reading it says which one it is.
        annotations = members.get(partner, ByteRange(f"{path}/{partner}"))
        name = f"{shard.name}/{member.with_suffix('')}"
        records.append(ImageRecord(name, shard.domain, image, annotations))
    return records


def _index(path: Path) -> dict[PurePosixPath, ByteRange]:
    """Map the regular files of a tar to where their bytes lie."""
    shared_path = str(path)  # one string for all members: a shard has ten thousand
    members = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if member.isreg() and not member.issparse() and not name.name.startswith("."):
                    members[name] = ByteRange(shared_path, member.offset_data, member.size)
        _check_end_mark(path)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"cannot read the tar shard {path}: {error}; it must be an uncompressed tar and "
            "complete, so fetch it again or unpack what is left of it into a folder"
        ) from error
    return members


def _check_end_mark(path: Path) -> None:
    """Refuse a tar that was cut between two members, which `tarfile` takes for complete."""
    with path.open("rb") as file:
        file.seek(-tarfile.BLOCKSIZE, 2)
        if any(file.read()):
            raise tarfile.ReadError("the empty blocks that end a tar are absent (truncated)")
