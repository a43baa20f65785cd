import numpy as np
import pytest

from edgeseg.errors import ImageError
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD, preprocess, resize_longest_side


def grey(rows):
    return np.repeat(np.uint8(rows)[..., None], 3, axis=2)


def test_an_image_is_shrunk_by_averaging_areas():
    row = [255, 0, 0, 255] * 2  # the two middle samples alone would say black
    image = grey([row] * 8)

    shrunk = resize_longest_side(image, 2)

    assert shrunk.shape == (2, 2, 3)
    np.testing.assert_allclose(shrunk, 127.5, atol=0.5)


def test_an_image_is_enlarged_bilinearly():
    enlarged = resize_longest_side(grey([[0, 100]]), 4)

    # centres lie at columns -0.25, 0.25, 0.75 and 1.25 of the original
    assert enlarged[..., 0].tolist() == [[0, 25, 75, 100]] * 2


def test_height_and_width_keep_their_places():
    assert resize_longest_side(np.zeros((4, 8, 3), np.uint8), 16).shape == (8, 16, 3)
    assert resize_longest_side(np.zeros((8, 4, 3), np.uint8), 2).shape == (2, 1, 3)


def test_an_image_of_the_right_size_is_not_touched():
    image = np.zeros((3, 8, 3), np.uint8)

    assert resize_longest_side(image, 8) is image


def test_pixels_are_normalised_channel_by_channel():
    pixels = preprocess(np.uint8([[[124, 0, 255]]]), 1)

    expected = [(124 - 123.675) / 58.395, -116.28 / 57.12, (255 - 103.53) / 57.375]
    np.testing.assert_allclose(pixels[0, :, 0, 0], expected, rtol=1e-5)
    assert pixels.dtype == np.float32
    assert PIXEL_MEAN.dtype == PIXEL_STD.dtype == np.float32


def test_padding_is_zero_after_normalisation_and_at_the_right_and_bottom():
    image = np.full((2, 4, 3), 255, np.uint8)

    wide = preprocess(image, 8)
    tall = preprocess(image.transpose(1, 0, 2), 8)

    assert wide.shape == tall.shape == (1, 3, 8, 8)
    assert wide.dtype == np.float32
    assert (wide[0, :, :4, :] > 2).all()  # (255 - mean) / std is 2.2 to 2.6
    assert not wide[0, :, 4:, :].any()
    assert (tall[0, :, :, :4] > 2).all()
    assert not tall[0, :, :, 4:].any()


def test_channels_stay_red_green_blue_and_come_first():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1] = (255, 0, 0)

    pixels = preprocess(image, 2)

    black = -PIXEL_MEAN / PIXEL_STD
    np.testing.assert_allclose(pixels[0, :, 1, 0], black, rtol=1e-6)
    np.testing.assert_allclose(pixels[0, 1:, 0, 1], black[1:], rtol=1e-6)
    np.testing.assert_allclose(pixels[0, 0, 0, 1], (255 - 123.675) / 58.395, rtol=1e-6)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 2), np.uint8), r"got shape \(2, 2\) uint8; read the file with"),
        (np.zeros((2, 2, 4), np.uint8), r"got shape \(2, 2, 4\) uint8"),
        (np.zeros((3, 2, 2), np.uint8), r"got shape \(3, 2, 2\) uint8"),
        (np.zeros((2, 2, 3), np.float32), r"got shape \(2, 2, 3\) float32"),
        (np.zeros((0, 2, 3), np.uint8), r"at least one pixel, got shape \(0, 2, 3\)"),
        ([[[0, 0, 0]]], "must be a numpy array, .* got list; convert it with numpy.asarray"),
    ],
)
def test_what_is_no_rgb_image_is_refused(image, message):
    with pytest.raises(ImageError, match=message):
        preprocess(image, 64)
