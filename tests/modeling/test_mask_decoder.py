import pytest
import torch
from random_networks import randomised
from torch import nn

from edgeseg.modeling.mask_decoder import MaskDecoder, _cell_order, _pixel_order, _quarter
from edgeseg.modeling.prompt_batch import PromptGroups

ROWS, COLS = 2, 3


def as_cells(feature):
    """(T, C, H, W) to (T, HW, C)."""
    return feature.flatten(2).transpose(1, 2)


def test_quartering_twice_is_two_transposed_convolutions():
    torch.manual_seed(0)
    first, second = (nn.ConvTranspose2d(c, c - 1, 2, stride=2) for c in (5, 4))
    feature = torch.randn(2, 5, ROWS, COLS)

    quartered = _quarter(_quarter(as_cells(feature), first), second)  # (2, HW * 16, 3)

    upscaled = _pixel_order(quartered.transpose(1, 2), (ROWS, COLS))
    torch.testing.assert_close(upscaled, second(first(feature)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2])
def test_cell_order_is_the_order_in_which_quartering_leaves_pixels(steps):
    torch.manual_seed(0)
    layers = [nn.ConvTranspose2d(3, 3, 2, stride=2) for _ in range(steps)]
    cells = feature = torch.randn(2, 3, ROWS, COLS)
    cells = as_cells(cells)
    for layer in layers:
        cells, feature = _quarter(cells, layer), layer(feature)

    torch.testing.assert_close(_cell_order(feature, (ROWS, COLS)), cells, rtol=0, atol=1e-5)


def test_pixel_order_undoes_cell_order():
    pixels = torch.arange(2.0 * 3 * 16 * ROWS * COLS).reshape(2, 3, 4 * ROWS, 4 * COLS)

    cells = _cell_order(pixels, (ROWS, COLS))

    assert torch.equal(_pixel_order(cells.transpose(1, 2), (ROWS, COLS)), pixels)


@pytest.mark.parametrize("counts", [(2, 2), (1, 3)], ids=str)
@torch.no_grad()
def test_masks_are_upscaled_as_sams_layers_do_with_the_skips_between(counts):
    torch.manual_seed(0)
    decoder = randomised(MaskDecoder(32, 64, high_res_channels=(5, 3)))
    cells = torch.randn(4, 32, ROWS, COLS)
    kernels = torch.randn(4, 4, 4)  # four masks of four channels
    stride8 = torch.randn(2, 5, 2 * ROWS, 2 * COLS)
    stride4 = torch.randn(2, 3, 4 * ROWS, 4 * COLS)
    skips = decoder.project_high_res(stride8, stride4)

    upscaled = decoder._upscaled(as_cells(cells), (ROWS, COLS), PromptGroups(counts), skips)
    masks = decoder._masks(upscaled, kernels, (ROWS, COLS), None)

    first, norm, gelu, second, _ = decoder.output_upscaling
    images = [0] * counts[0] + [1] * counts[1]
    x = gelu(norm(first(cells)) + decoder.high_res_s8(stride8)[images])
    x = gelu(second(x) + decoder.high_res_s4(stride4)[images])
    expected = torch.einsum("tmc,tchw->tmhw", kernels, x)
    torch.testing.assert_close(masks, expected, rtol=0, atol=1e-5)
