"""The annotation file of one image, in the SA-1B layout.

Source: Segment Anything (Kirillov et al. 2023, arXiv:2304.02643), the published data set: one JSON
an image with `image` {height, width, ...} and `annotations` [{segmentation, ...}].
"""

import json

from edgeseg.data.segmentations import CocoRle, rle_of_segmentation
from edgeseg.errors import DataError


def parse_annotations(data: bytes, source: str, image_hw: tuple[int, int]) -> list[CocoRle]:
    """Read the masks of one image.

    Crowd annotations (`iscrowd`) mean no single object and are left out, and so are masks without
    any pixel. One malformed annotation refuses the whole file: what damaged it may have damaged the
    others as well.

    Args:
        data: The bytes of the JSON.
        source: What to call the file in an error, usually its path.
        image_hw: Height and width of the decoded image, in pixels.

    Returns:
        One compressed run-length mask an object, in the order of the file.

    Raises:
        DataError: The JSON, one of its masks or its size does not fit the image.
    """
    document = _load(data, source)
    _check_size(document.get("image"), source, image_hw)
    annotations = document.get("annotations")
    if not isinstance(annotations, list):
        raise DataError(f"{source} has no list 'annotations'; it must be in the SA-1B layout")

    masks = []
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, dict):
            raise DataError(
                f"{source}: annotation {number} must be a table, got {annotation!r:.60}"
            )
        if annotation.get("iscrowd"):
            continue
        try:
            rle = rle_of_segmentation(annotation.get("segmentation"), image_hw)
        except DataError as error:
            raise DataError(f"{source}: annotation {number}: {error}") from error
        if rle is not None:
            masks.append(rle)
    return masks


def _load(data: bytes, source: str) -> dict[str, object]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source} is not valid JSON ({len(data)} bytes): {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{source} must hold a JSON object, got a {type(document).__name__}")
    return document


def _check_size(image: object, source: str, image_hw: tuple[int, int]) -> None:
    """Compare the size the file states, if it does, with that of the image."""
    if not isinstance(image, dict) or "height" not in image or "width" not in image:
        return
    if (image["height"], image["width"]) != image_hw:
        raise DataError(
            f"{source} is about an image of {image['height']} x {image['width']} (height x width), "
            f"but the image decodes to {image_hw[0]} x {image_hw[1]}; they belong to different "
            "images or the image was resized or turned"
        )
