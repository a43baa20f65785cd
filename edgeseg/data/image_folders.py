"""A plain folder of images, without labels or with a second folder of JSON written for it."""

from pathlib import Path

from edgeseg.data.folders import IMAGE_SUFFIXES, place_files, walk_files
from edgeseg.data.records import ByteRange, ImageRecord
from edgeseg.errors import DataError


def read_image_folder(
    path: Path,
    domain: str | None = None,
    split: str | None = None,
    annotations: Path | None = None,
) -> list[ImageRecord]:
    """List the images of a folder, recursively.

    Args:
        path: The folder of images.
        domain: Domain of all images, or None to take it from the folders.
        split: Name of the split's folders, or None.
        annotations: Folder of JSON in the SA-1B layout, such as a teacher writes: the masks of
            `path/a/b.jpg` are in `annotations/a/b.json`. An image without such a file has no masks.

    Raises:
        DataError: A folder or the split is absent, or no JSON belongs to any image.
    """
    jsons = {} if annotations is None else _jsons_by_stem(annotations)
    records = []
    for file in place_files(path, domain, split):
        if file.path.suffix.lower() in IMAGE_SUFFIXES:
            masks = jsons.get(file.relative.with_suffix(""))
            records.append(ImageRecord(file.name, file.domain, ByteRange(str(file.path)), masks))
    if annotations is not None and not any(record.annotations for record in records):
        raise DataError(
            f"none of the {len(jsons)} JSON files in {annotations} belongs to an image in {path}; "
            "both folders must have the same inner folders and file names"
        )
    return records


def _jsons_by_stem(folder: Path) -> dict[Path, ByteRange]:
    if not folder.is_dir():
        raise DataError(f"the folder of annotations {folder} does not exist")
    return {
        path.relative_to(folder).with_suffix(""): ByteRange(str(path))
        for path in walk_files(folder)
        if path.suffix.lower() == ".json"
    }
