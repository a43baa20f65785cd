"""COCO and LVIS: one JSON with the instances of many images.

Source: COCO (Lin et al. 2014, arXiv:1405.0312) and LVIS (Gupta et al. 2019, arXiv:1908.03195), the
published annotation formats.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from edgeseg.data.records import ByteRange, ImageRecord, InlineAnnotations
from edgeseg.errors import DataError

_FileOf = Callable[[dict[str, Any], set[str]], PurePosixPath | None]


def read_coco(path: Path, images: Path, domain: str = "coco") -> list[ImageRecord]:
    """List the images of a COCO instance file.

    Args:
        path: The instance JSON.
        images: The folder that its file names start from.
        domain: Domain of all images.

    Raises:
        DataError: A path is absent or the JSON is malformed.
    """
    return _read_instances(path, images, domain, _coco_file)


def read_lvis(path: Path, images: Path, domain: str = "lvis") -> list[ImageRecord]:
    """List the images of an LVIS instance file.

    LVIS names its images by their COCO address and mixes `train2017` and `val2017`. `images` may
    hold these folders or, when it does not, the images themselves.

    Args:
        path: The instance JSON.
        images: The folder of COCO images.
        domain: Domain of all images.

    Raises:
        DataError: A path is absent or the JSON is malformed.
    """
    return _read_instances(path, images, domain, _lvis_file)


def _read_instances(path: Path, images: Path, domain: str, file_of: _FileOf) -> list[ImageRecord]:
    document = _load(path)
    if not images.is_dir():
        raise DataError(f"the folder of images {images} of {path} does not exist")
    by_image = _segmentations_by_image(document["annotations"], path)
    known = {entry.get("id") for entry in document["images"]}
    if by_image and not known & by_image.keys():
        raise DataError(
            f"no annotation of {path} belongs to one of its images; 'image_id' must be the 'id' of "
            "an image, of the same type"
        )
    folders = {folder.name for folder in images.iterdir() if folder.is_dir()}
    records = []
    for number, entry in enumerate(document["images"]):
        file = file_of(entry, folders)
        if file is None:
            raise DataError(f"{path}: image {number} has no usable file name, got {entry!r:.200}")
        inline = {
            "image": {key: entry[key] for key in ("height", "width") if key in entry},
            "annotations": by_image.get(entry.get("id"), []),
        }
        data = json.dumps(inline, separators=(",", ":")).encode()
        annotations = InlineAnnotations(str(path), data)
        name = f"{domain}/{file.with_suffix('')}"
        records.append(ImageRecord(name, domain, ByteRange(str(images / file)), annotations))
    return records


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
    for key in ("images", "annotations"):
        entries = document.get(key) if isinstance(document, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(
                f"{path} has no list of tables {key!r}; it must be a COCO or LVIS instance file"
            )
    return document


def _segmentations_by_image(
    annotations: list[dict[str, Any]], path: Path
) -> dict[object, list[dict[str, Any]]]:
    """Group what is needed of the annotations; one for an unlisted image is of no use."""
    by_image: defaultdict[object, list[dict[str, Any]]] = defaultdict(list)
    for number, annotation in enumerate(annotations):
        image_id = annotation.get("image_id")
        if not isinstance(image_id, int | str):
            raise DataError(f"{path}: annotation {number} has no 'image_id', got {image_id!r:.60}")
        kept = {"segmentation": annotation.get("segmentation")}
        if annotation.get("iscrowd"):
            kept["iscrowd"] = 1
        by_image[image_id].append(kept)
    return dict(by_image)


def _coco_file(entry: dict[str, Any], _: set[str]) -> PurePosixPath | None:
    name = entry.get("file_name")
    return PurePosixPath(name) if isinstance(name, str) and name else None


def _lvis_file(entry: dict[str, Any], folders: set[str]) -> PurePosixPath | None:
    address = entry.get("coco_url") or entry.get("file_name")
    if not isinstance(address, str) or not address:
        return None
    file = PurePosixPath(urlparse(address).path)
    # LVIS 0.5 writes COCO_val2014_000000000042.jpg for the image that COCO 2017 calls by number.
    number = file.name.rsplit("_", 1)[-1] if file.name.startswith("COCO_") else file.name
    split = file.parent.name
    return PurePosixPath(split, number) if split in folders else PurePosixPath(number)
