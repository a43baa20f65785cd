"""The one record type: where an image and its masks lie, whatever format they came in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.annotations import parse_annotations
from edgeseg.data.segmentations import CocoRle
from edgeseg.errors import DataError
from edgeseg.images import decode_image

Item = TypeVar("Item")


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Return so many items, or all if there are fewer, evenly spread over the list.

    >>> evenly("abcdefg", 3)
    ['a', 'c', 'e']
    """
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A file, or a stretch of one such as a member of a tar shard.

    Nothing is kept open, so a range may be read from any thread or process.

    Attributes:
        path: The file.
        offset: Where the stretch begins, in bytes.
        length: How long it is, in bytes; None means up to the end of the file.
    """

    path: Path | str
    offset: int = 0
    length: int | None = None

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            DataError: The file cannot be read or ends before the stretch does.
        """
        try:
            with Path(self.path).open("rb") as file:
                file.seek(self.offset)
                data = file.read(-1 if self.length is None else self.length)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror or error}") from error
        if self.length is not None and len(data) < self.length:
            raise DataError(
                f"{self.path} ends {self.length - len(data)} bytes before the end of its entry at "
                f"byte {self.offset}; the file is truncated or was changed since it was listed"
            )
        return data

    def __str__(self) -> str:
        return f"{self.path}" if self.length is None else f"{self.path} (byte {self.offset})"


@dataclass(frozen=True, slots=True)
class InlineAnnotations:
    """The annotations of one image, cut out of a file that holds those of many.

    Attributes:
        path: The file they came from, for messages.
        data: JSON in the SA-1B layout. Bytes rather than lists: a polygon of Python numbers takes
            ten times the memory, and a data set has millions.
    """

    path: Path | str
    data: bytes

    def read(self) -> bytes:
        """Return the bytes of the JSON."""
        return self.data

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a data set.

    Attributes:
        name: Unique within the data set, such as "bsds/train/123"; keys a cache of embeddings.
        domain: What kind of image it is; figures are averaged within a domain first.
        image: The encoded image.
        annotations: Its masks, or None when there are none.
    """

    name: str
    domain: str
    image: ByteRange
    annotations: ByteRange | InlineAnnotations | None = None

    def read_image(self) -> NDArray[np.uint8]:
        """Return the image as (H, W, 3) uint8 RGB.

        Raises:
            DataError: The file cannot be read.
            ImageError: The bytes are not an image that can be decoded.
        """
        return decode_image(self.image.read(), f"{self.image} [{self.name}]")

    def read_masks(self, image_hw: tuple[int, int]) -> list[CocoRle]:
        """Return the masks as COCO run lengths, ready for `pycocotools.mask.decode`.

        Crowd annotations and empty masks are left out; a record without annotations has no masks.

        Args:
            image_hw: Height and width of the decoded image, in pixels.

        Raises:
            DataError: An annotation cannot be read, is malformed or has another size than the
                image.
        """
        if self.annotations is None:
            return []
        source = f"{self.annotations} [{self.name}]"
        return parse_annotations(self.annotations.read(), source, image_hw)
