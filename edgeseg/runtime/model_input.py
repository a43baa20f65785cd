"""Image to the input of whichever encoder runs: floats for most, bytes for some.

Both forms come from the one resize of `edgeseg.preprocess`, so they show a network the same pixels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.preprocess import preprocess, resize_longest_side
from edgeseg.signature import PADDING_RGB


def model_input(
    image: NDArray[np.uint8], image_size: int, normalises: bool = False
) -> NDArray[Any]:
    """Scale and pad an image for the encoder of a backend.

    Args:
        image: (H, W, 3) uint8 RGB.
        image_size: Side S of the square model input, in pixels.
        normalises: The encoder takes bytes and normalises them itself.

    Returns:
        (1, 3, S, S) float32, normalised, padded with zeros at the right and bottom; for an encoder
        that normalises (S, S, 3) uint8 RGB, padded with PADDING_RGB, which is zero once normalised
        but for rounding.

    Raises:
        ImageError: The image is not (H, W, 3) uint8.

    >>> model_input(np.zeros((1, 2, 3), np.uint8), 2, normalises=True)[:, 0].tolist()
    [[0, 0, 0], [124, 116, 104]]
    """
    if not normalises:
        return preprocess(image, image_size)
    resized = resize_longest_side(image, image_size)
    height, width = resized.shape[:2]
    padded = np.empty((image_size, image_size, 3), np.uint8)
    padded[:height, :width] = resized
    padded[height:] = PADDING_RGB
    padded[:height, width:] = PADDING_RGB
    return padded
