"""How an image sits in the square input of a model, and the way back.

The longest side is scaled to the side S of the input, the image lies in the top left corner and
the rest is padding, as in SAM (Kirillov et al. 2023, arXiv:2304.02643). Both sides are rounded to
whole pixels, so x and y have scales of their own. Coordinates are continuous in both frames: pixel
column c reaches from c to c + 1 and its centre is c + 0.5.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseg.errors import ImageError


def content_size_hw(image_hw: tuple[int, int], image_size: int) -> tuple[int, int]:
    """Return the height and width an image has inside a square of `image_size` pixels.

    Raises:
        ImageError: The image has no pixels.

    >>> content_size_hw((480, 640), 512)
    (384, 512)
    """
    height, width = image_hw
    if height < 1 or width < 1:
        raise ImageError(
            f"an image needs at least one pixel, got {height} x {width} (height x width); "
            "give the size of the original image"
        )
    scale = image_size / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


@dataclass(frozen=True)
class ModelFrame:
    """The place of one image in the square model input.

    Attributes:
        image_hw: Height and width of the original image, in pixels.
        image_size: Side S of the square model input, in pixels.
    """

    image_hw: tuple[int, int]
    image_size: int

    @property
    def content_hw(self) -> tuple[int, int]:
        """Height and width of the scaled image without padding, in model pixels."""
        return content_size_hw(self.image_hw, self.image_size)

    @property
    def scale_xy(self) -> NDArray[np.float32]:
        """(2,) float32, model pixels per image pixel along x and along y."""
        (height, width), (content_h, content_w) = self.image_hw, self.content_hw
        return np.array([content_w / width, content_h / height], np.float32)

    def to_model_xy(self, points_xy: ArrayLike) -> NDArray[np.float32]:
        """Map (..., 2) points, x then y, from image pixels to model pixels.

        >>> ModelFrame((480, 640), 512).to_model_xy([[320, 240]]).tolist()
        [[256.0, 192.0]]
        """
        return np.asarray(points_xy, np.float32) * self.scale_xy

    def to_image_xy(self, points_xy: ArrayLike) -> NDArray[np.float32]:
        """Map (..., 2) points, x then y, from model pixels to image pixels.

        >>> ModelFrame((480, 640), 512).to_image_xy([[256, 192]]).tolist()
        [[320.0, 240.0]]
        """
        return np.asarray(points_xy, np.float32) / self.scale_xy

    def to_model_box(self, box_xyxy: ArrayLike) -> NDArray[np.float32]:
        """Map (..., 4) boxes, x0 y0 x1 y1, from image pixels to model pixels.

        >>> ModelFrame((480, 640), 512).to_model_box([0, 0, 640, 240]).tolist()
        [0.0, 0.0, 512.0, 192.0]
        """
        return np.asarray(box_xyxy, np.float32) * np.tile(self.scale_xy, 2)
