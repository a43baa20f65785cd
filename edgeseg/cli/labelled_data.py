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
    if folder is None:
        return []
    from edgeseg.data.records import evenly
    from edgeseg.errors import DataError
    from edgeseg.images import read_image

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no images; give a folder with .jpg or .png files")
    chosen = paths if limit is None else evenly(paths, limit)
    return [(path.name, read_image(path)) for path in chosen]


def list_validation(data: Path | None, max_images: int) -> "list[ImageRecord]":
    """List labelled images, so many a domain; those of the validation split where there is one.

    Raises:
        DataError: There is no such folder, or it holds no labelled images.
    """
    if data is None:
        return []
    from edgeseg.data.records import evenly
    from edgeseg.data.sources import SourceConfig, list_records

    has_split = any(data.glob("val")) or any(data.glob("*/val"))
    source = SourceConfig(format="sa1b", path=data, split="val" if has_split else None)
    chosen: dict[str, list[ImageRecord]] = {}
    for record in list_records([source]):
        chosen.setdefault(record.domain, []).append(record)
    return [record for records in chosen.values() for record in evenly(records, max_images)]
