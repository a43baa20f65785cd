import numpy as np
import pytest

from edgeseg.errors import ImageError
from edgeseg.geometry import ModelFrame, content_size_hw


@pytest.mark.parametrize(
    ("image_hw", "image_size", "content_hw"),
    [
        ((480, 640), 512, (384, 512)),
        ((640, 480), 512, (512, 384)),
        ((1, 3), 64, (21, 64)),  # 21.33
        ((2, 3), 64, (43, 64)),  # 42.67
        ((3, 128), 64, (2, 64)),  # 1.5 rounds up
        ((1, 1000), 64, (1, 64)),  # 0.064, but a pixel remains
        ((1000, 1), 64, (64, 1)),
        ((64, 64), 64, (64, 64)),
        ((1, 1), 64, (64, 64)),
    ],
)
def test_the_longest_side_fills_the_input(image_hw, image_size, content_hw):
    assert content_size_hw(image_hw, image_size) == content_hw


@pytest.mark.parametrize("image_hw", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(image_hw):
    with pytest.raises(ImageError, match=r"at least one pixel, got [05] x [05] \(height x width\)"):
        content_size_hw(image_hw, 64)


def test_x_and_y_have_scales_of_their_own():
    frame = ModelFrame((3, 128), 64)  # content 2 x 64

    assert frame.content_hw == (2, 64)
    np.testing.assert_allclose(frame.scale_xy, [1 / 2, 2 / 3], rtol=1e-6)
    assert frame.scale_xy.dtype == np.float32


def test_corners_of_the_image_are_corners_of_the_content():
    frame = ModelFrame((3, 128), 64)

    corners = frame.to_model_xy([[0, 0], [128, 3]])

    np.testing.assert_allclose(corners, [[0, 0], [64, 2]], rtol=1e-6)
    assert corners.dtype == np.float32


def test_a_box_is_scaled_like_its_corners():
    frame = ModelFrame((30, 60), 120)

    assert frame.to_model_box([[1, 2, 3, 4]]).tolist() == [[2, 4, 6, 8]]
    assert ModelFrame((3, 128), 64).to_model_box([2, 0, 4, 3]).tolist() == [1, 0, 2, 2]


def test_points_return_to_where_they_were():
    frame = ModelFrame((427, 640), 512)  # 341.6 rounds: the two scales differ
    points_xy = np.float32([[[0.5, 0.5], [639.5, 426.5]], [[17, 401], [333, 2]]])

    there_and_back = frame.to_image_xy(frame.to_model_xy(points_xy))

    np.testing.assert_allclose(there_and_back, points_xy, rtol=1e-6)
    assert not np.allclose(frame.to_model_xy(points_xy), points_xy)
