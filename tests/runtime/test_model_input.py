import numpy as np
import pytest

from edgeseg.errors import ImageError
from edgeseg.preprocess import preprocess, resize_longest_side
from edgeseg.runtime.model_input import model_input

IMAGE = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)


def test_most_encoders_get_the_floats_that_training_uses():
    np.testing.assert_array_equal(model_input(IMAGE, 64), preprocess(IMAGE, 64))


@pytest.mark.parametrize("image", [IMAGE, IMAGE.transpose(1, 0, 2).copy()])
def test_an_encoder_that_normalises_gets_the_scaled_bytes_over_the_padding_colour(image):
    pixels = model_input(image, 64, normalises=True)

    content = resize_longest_side(image, 64)  # 40 of 64 rows or columns
    height, width = content.shape[:2]
    assert (pixels.shape, pixels.dtype) == ((64, 64, 3), np.uint8)
    np.testing.assert_array_equal(pixels[:height, :width], content)
    padding = np.ones((64, 64), bool)
    padding[:height, :width] = False
    assert padding.sum() == 24 * 64
    assert (pixels[padding] == (124, 116, 104)).all()


def test_something_that_is_no_image_is_refused_in_both_forms():
    for normalises in (False, True):
        with pytest.raises(ImageError, match="must be .* uint8 RGB"):
            model_input(np.zeros((4, 4), np.uint8), 64, normalises)
