"""Which data to read: the table of a configuration file, and the records it stands for."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeseg.data.image_folders import read_image_folder
from edgeseg.data.instance_json import read_coco, read_lvis
from edgeseg.data.records import ImageRecord
from edgeseg.data.sa1b import read_sa1b
from edgeseg.errors import DataError

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_OPTIONAL_FIELDS = {
    "sa1b": {"split"},
    "images": {"split", "annotations"},
    "coco": {"images"},
    "lvis": {"images"},
}


class SourceConfig(BaseModel):
    """One data set to read.

    Paths may hold environment variables, as in `$EDGESEG_DATA`; they are looked up when the data is
    listed, so a resolved configuration stays valid on another machine.

    Attributes:
        format: `sa1b` (NAME.jpg beside NAME.json, in folders or tar shards), `coco` or `lvis` (one
            instance JSON), or `images` (a folder of images without labels).
        path: The folder or tar shard (`sa1b`), the instance JSON (`coco`, `lvis`) or the folder of
            images (`images`).
        annotations: Only for `images`: a second folder with a JSON an image, in the SA-1B layout,
            such as a teacher writes.
        images: Only for `coco` and `lvis`, which need it: the folder of images.
        split: Only for `sa1b` and `images`: read `path/split`, or every `path/DOMAIN/split`.
        domain: Domain of all images; by default the first folder below `path`, or the folder's own
            name, or the name of the format for `coco` and `lvis`. It begins every record's name.
        limit: Use at most so many images, evenly spread over the sorted list, so that all folders
            and shards are represented.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["sa1b", "coco", "lvis", "images"]
    path: Path
    annotations: Path | None = None
    images: Path | None = None
    split: str | None = Field(default=None, min_length=1)
    domain: str | None = Field(default=None, min_length=1)
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_fields_of_format(self) -> Self:
        usable = _OPTIONAL_FIELDS[self.format]
        for field in ("annotations", "images", "split"):
            if field not in usable and getattr(self, field) is not None:
                raise ValueError(f"format {self.format!r} has no {field!r}; remove it")
        if "images" in usable and self.images is None:
            raise ValueError(f"format {self.format!r} needs 'images', the folder of its images")
        return self


def expand_path(path: Path) -> Path:
    """Replace `$NAME`, `${NAME}` and a leading `~` in a path.

    Raises:
        DataError: A variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise DataError(
                f"the environment variable {name} of the path {path} is not set; set it to a "
                "folder or write the path out"
            )
        return os.environ[name]

    return Path(_VARIABLE.sub(value, str(path))).expanduser()


def list_records(sources: Sequence[SourceConfig]) -> list[ImageRecord]:
    """List the images of all sources, sorted by name.

    The order depends on the names only, not on the order of the sources or of a file system.

    Raises:
        DataError: There is no source, a source is absent, damaged or empty, or two images have the
            same name. Names key the cache of embeddings, so they are never changed silently; give
            one of the sources its own `domain`.
    """
    if not sources:
        raise DataError("there is no data source; give at least one with its format and path")
    by_name: dict[str, ImageRecord] = {}
    for source in sources:
        for record in _list_source(source):
            other = by_name.setdefault(record.name, record)
            if other is not record:
                raise DataError(
                    f"two images have the name {record.name!r}: {other.image} and {record.image}; "
                    "give one of the sources another 'domain', or rename or remove one"
                )
    return [by_name[name] for name in sorted(by_name)]


def _list_source(source: SourceConfig) -> list[ImageRecord]:
    path = expand_path(source.path)
    if not path.exists():
        raise DataError(f"the {source.format} data {path} does not exist (from {source.path})")
    records = sorted(_read_source(source, path), key=lambda record: record.name)
    if not records:
        raise DataError(f"the {source.format} data {path} holds no images (from {source})")
    if source.limit is None or source.limit >= len(records):
        return records
    return [records[k * len(records) // source.limit] for k in range(source.limit)]


def _read_source(source: SourceConfig, path: Path) -> list[ImageRecord]:
    if source.format == "sa1b":
        return read_sa1b(path, source.domain, source.split)
    if source.format == "images":
        annotations = expand_path(source.annotations) if source.annotations else None
        return read_image_folder(path, source.domain, source.split, annotations)
    assert source.images is not None  # checked by the configuration
    images = expand_path(source.images)
    if source.format == "coco":
        return read_coco(path, images, source.domain or "coco")
    return read_lvis(path, images, source.domain or "lvis")
