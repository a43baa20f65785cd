import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapted_networks import random_bytes

from edgeseg.adapt.high_frequency import HighFrequency, replicate_padding
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD, preprocess
from edgeseg.signature import PADDING_RGB

# Square; wide; high; odd sides; all short sides pass; the square as long as the short side.
SIZES_HW = [(64, 64), (48, 80), (80, 48), (33, 47), (7, 9), (16, 200), (200, 16), (16, 64), (2, 3)]


def by_fourier_transform(images):
    """The definition: leave out the frequencies from -c to c - 1 of rows and columns."""
    height, width = images.shape[-2:]
    half_side = math.floor(math.sqrt(height * width / 4) / 2)
    rows, columns = (torch.fft.fftfreq(n, 1 / n).round() for n in (height, width))
    in_rows = (rows >= -half_side) & (rows < half_side)
    in_columns = (columns >= -half_side) & (columns < half_side)
    is_low = in_rows[:, None] & in_columns
    return torch.fft.ifft2(torch.fft.fft2(images.double()) * ~is_low).real.abs()


def waves(frequency, length):
    return (2 * math.pi * frequency / length * torch.arange(length)).cos()


def normalised(colours_rgb):
    return torch.from_numpy((np.asarray(colours_rgb, np.float32) - PIXEL_MEAN) / PIXEL_STD)


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_matrices_give_what_the_fourier_transform_gives(size_hw):
    images = torch.from_numpy(random_bytes(2 * size_hw[0], size_hw[1])).float()
    images = images.view(2, *size_hw, 3).permute(0, 3, 1, 2)

    detail = HighFrequency(*size_hw)(images)

    expected = by_fourier_transform(images).float()
    assert expected.max() > 50
    torch.testing.assert_close(detail, expected, rtol=0, atol=255e-4)


def test_a_checkerboard_is_all_detail_and_a_flat_image_has_none():
    board = torch.tensor([[3.0, -3.0], [-3.0, 3.0]]).tile(2, 3)[None, None]  # 4 x 6 pixels

    flat = torch.full((1, 1, 4, 6), 200.0)
    detail = HighFrequency(4, 6)

    torch.testing.assert_close(detail(board), board.abs())
    torch.testing.assert_close(detail(flat), torch.zeros_like(flat), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("frequency", "left"), [(1, 0.0), (2, 0.5), (3, 1.0)])
def test_half_of_the_frequency_at_the_edge_of_the_square_passes(frequency, left):
    # A quarter of 8 x 16 is 32, the side 5.7, half of it 2: frequencies -2, -1, 0 and 1 are low.
    along_columns = waves(frequency, 16).expand(1, 1, 8, 16)
    along_rows = waves(frequency, 8)[:, None].expand(1, 1, 8, 16)
    detail = HighFrequency(8, 16)

    torch.testing.assert_close(detail(along_columns), left * along_columns.abs())
    torch.testing.assert_close(detail(along_rows), left * along_rows.abs())


def test_one_of_the_four_corners_of_the_square_passes():
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(16.0), indexing="ij")
    rising, falling = (  # frequencies (2, 2) and (-2, -2); (2, -2) and (-2, 2)
        (2 * math.pi * (row / 4 + sign * column / 8)).cos() for sign in (1, -1)
    )
    detail = HighFrequency(8, 16)

    torch.testing.assert_close(detail(rising[None, None]), rising.abs()[None, None] / 2)
    torch.testing.assert_close(detail(falling[None, None]), falling.abs()[None, None])


def test_matrices_are_no_weights():
    assert HighFrequency(8, 16).state_dict() == {}


@pytest.mark.parametrize("content_hw", [(64, 40), (24, 64), (64, 64), (1, 64), (64, 1)])
@pytest.mark.parametrize("padding", ["zero", "bytes"])
def test_the_last_row_and_column_go_on_over_the_padding(content_hw, padding):
    height, width = content_hw
    images = torch.from_numpy(preprocess(random_bytes(*content_hw), 64))
    content = images[:, :, :height, :width]
    if padding == "bytes":
        colour = normalised(PADDING_RGB)
        images = colour[None, :, None, None].repeat(1, 1, 64, 64)
        images[:, :, :height, :width] = content
    expected = F.pad(content, (0, 64 - width, 0, 64 - height), mode="replicate")

    assert torch.equal(replicate_padding(images), expected)


def test_images_of_a_batch_have_paddings_of_their_own():
    one, other = (
        torch.from_numpy(preprocess(random_bytes(*size_hw), 64)) for size_hw in [(64, 40), (24, 64)]
    )

    together = replicate_padding(torch.cat([one, other]))

    assert torch.equal(together[:1], replicate_padding(one))
    assert torch.equal(together[1:], replicate_padding(other))


@pytest.mark.parametrize("colour", [(124, 116, 103), (123, 116, 104), (124, 117, 104)])
def test_the_colours_beside_that_of_the_padding_are_content(colour):
    images = torch.zeros(1, 3, 4, 6)
    images[:, :, :3, :5] = normalised(colour)[None, :, None, None]  # the padding's but for one byte

    assert torch.equal(replicate_padding(images), images[:, :, :1, :1].expand(1, 3, 4, 6))


def test_rows_of_the_padding_colour_inside_an_image_stay():
    images = torch.zeros(1, 3, 5, 4)
    images[:, :, 0] = 1.0
    images[:, :, 3] = 2.0  # row 4 is padding

    rows = replicate_padding(images)[0, 0, :, 0]

    assert rows.tolist() == [1.0, 0.0, 0.0, 2.0, 2.0]


def test_an_image_that_is_all_padding_stays():
    images = torch.zeros(1, 3, 4, 6)

    assert torch.equal(replicate_padding(images), images)


def test_half_precision_finds_the_same_padding():
    images = torch.from_numpy(preprocess(random_bytes(1024, 600), 1024))[:, :, ::64].half()

    assert torch.equal(
        replicate_padding(images), F.pad(images[..., :600], (0, 424, 0, 0), mode="replicate")
    )


def test_the_edge_of_the_padding_makes_no_line():
    image = np.full((40, 64, 3), 200, np.uint8)  # flat: what detail there is, padding has made
    images = torch.from_numpy(preprocess(image, 64))
    detail = HighFrequency(64, 64)

    assert 58 * detail(images)[:, :, :40].max() > 20  # of 255
    assert 58 * detail(replicate_padding(images)).max() < 0.01
