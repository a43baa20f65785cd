import pytest
import torch
from random_networks import randomised
from torch import nn

from edgeseg.modeling.mask_decoder import MaskDecoder, _doubled
from edgeseg.modeling.prompt_batch import PromptGroups

ROWS, COLS = 2, 3


def rows_of(feature):
    """(T, C, H, W) to (T, HW, C)."""
    return feature.flatten(2).transpose(1, 2)


def test_doubling_twice_is_two_transposed_convolutions_in_reading_order():
    torch.manual_seed(0)
    first, second = (nn.ConvTranspose2d(c, c - 1, 2, stride=2) for c in (5, 4))
    feature = torch.randn(2, 5, ROWS, COLS)

    once = _doubled(rows_of(feature), first, (ROWS, COLS))  # (2, HW * 4, 4)
    twice = _doubled(once, second, (2 * ROWS, 2 * COLS))  # (2, HW * 16, 3)

    torch.testing.assert_close(once, rows_of(first(feature)), rtol=0, atol=1e-5)
    torch.testing.assert_close(twice, rows_of(second(first(feature))), rtol=0, atol=1e-5)


def test_the_bias_may_be_left_out():
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(3, 2, 2, stride=2)
    feature = torch.randn(1, 3, ROWS, COLS)

    without = _doubled(rows_of(feature), layer, (ROWS, COLS), with_bias=False)

    torch.testing.assert_close(without + layer.bias, rows_of(layer(feature)), rtol=0, atol=1e-5)


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

    upscaled = decoder._upscaled(rows_of(cells), (ROWS, COLS), PromptGroups(counts), skips)
    masks = decoder._masks(upscaled, kernels, (ROWS, COLS), None)

    first, norm, gelu, second, _ = decoder.output_upscaling
    images = [0] * counts[0] + [1] * counts[1]
    x = gelu(norm(first(cells)) + decoder.high_res_s8(stride8)[images])
    x = gelu(second(x) + decoder.high_res_s4(stride4)[images])
    expected = torch.einsum("tmc,tchw->tmhw", kernels, x)
    torch.testing.assert_close(masks, expected, rtol=0, atol=1e-5)
