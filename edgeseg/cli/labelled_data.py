"""Images that commands about exported models are given."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeseg.data.records import ImageRecord

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def read_photos(
    folder: Path | None, limit: int | None = None
) -> "list[tuple[str, NDArray[np.uint8]]]":
    """Read the images of a folder and of folders inside it, by name, evenly spread up to a limit.

    Raises:
        DataError: There is no such folder, or it holds no images.
        ImageError: An image is damaged.
    """
    from edgeseg.errors import DataError
    from edgeseg.images import read_image

    if folder is None:
        return []
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no images; give a folder with .jpg or .png files")
    if limit is not None and len(paths) > limit:
        paths = [paths[index * len(paths) // limit] for index in range(limit)]
    return [(path.name, read_image(path)) for path in paths]


def list_validation(data: Path | None, max_images: int) -> "list[ImageRecord]":
    """List labelled images, so many a domain; those of the validation split where there is one.

    Raises:
        DataError: There is no such folder, or it holds no labelled images.
    """
    from edgeseg.data.sources import SourceConfig, list_records

    if data is None:
        return []
    has_split = any(data.glob("val")) or any(data.glob("*/val"))
    source = SourceConfig(format="sa1b", path=data, split="val" if has_split else None)
    chosen: dict[str, list[ImageRecord]] = {}
    for record in list_records([source]):
        chosen.setdefault(record.domain, []).append(record)
    return [
        records[index * len(records) // count]
        for records in chosen.values()
        for count in [min(max_images, len(records))]
        for index in range(count)
    ]
