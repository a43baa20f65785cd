"""Reading photographs the way people have them, as RGB arrays."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ImageError


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an encoded image (JPEG, PNG, WebP, TIFF, BMP, ...).

    EXIF orientation is applied. Grey and palette images become RGB, 16 bits become the upper 8, and
    alpha is dropped: a transparent pixel keeps the colour stored for it.

    Args:
        data: The bytes of the file.
        name: What to call the image in an error, usually its path.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: The bytes are not an image that can be decoded.
    """
    if not data:  # OpenCV raises on it, where other broken files give None
        raise ImageError(f"cannot decode {name}: the file is empty; copy it again")
    buffer = np.frombuffer(data, np.uint8)
    try:
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ImageError(
            f"cannot decode {name}: {error.err}; save it as an ordinary JPEG or PNG file"
        ) from error
    if image is None:
        raise ImageError(
            f"cannot decode {name} ({len(data)} bytes); it must be a complete JPEG, PNG, WebP, "
            "TIFF or BMP file"
        )
    return image  # type: ignore[return-value]


def read_image(path: Path | str) -> NDArray[np.uint8]:
    """Read an image file; see `decode_image`.

    Raises:
        ImageError: The file cannot be read or decoded.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(
            f"cannot read {path}: {error.strerror or error}; give the path of an image file"
        ) from error
    return decode_image(data, str(path))
