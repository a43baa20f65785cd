import torch
from random_networks import randomised
from torch import nn

from edgeseg.modeling import PromptBatch
from edgeseg.modeling.mask_decoder import MaskDecoder
from edgeseg.modeling.mask_refinement import MaskRefinement, draw_prompts

ROWS, COLS = 2, 3


def box_batch(**masks):
    """Two prompts, a box and a click, on 8 x 8 pixels."""
    points_xy = torch.tensor([[[0.0, 0.0], [4.0, 2.0]], [[3.0, 5.0], [0.0, 0.0]]])
    labels = torch.tensor([[2, 3], [1, -2]])
    return PromptBatch(points_xy, labels, (2,), **masks)


def test_a_mask_prompt_is_drawn_last_and_scaled_to_one():
    logits = torch.tensor([[-20.0, -4.0], [2.0, 20.0]]).expand(2, 1, 2, 2)

    drawn = draw_prompts(box_batch(mask_logits=logits), 8, (2, 2))

    assert drawn.shape == (2, 7, 2, 2)
    assert drawn[0, 6].tolist() == [[-1.0, -0.5], [0.25, 1.0]]  # divided by 8, cut at 1
    assert drawn[0, 0].tolist() == [[0.5, 0.0], [0.0, 0.0]]  # the box: half of the first cell


def test_rows_without_a_mask_prompt_have_an_empty_channel():
    logits = torch.full((2, 1, 2, 2), 8.0)

    drawn = draw_prompts(
        box_batch(mask_logits=logits, has_mask=torch.tensor([False, True])), 8, (2, 2)
    )
    without = draw_prompts(box_batch(), 8, (2, 2))

    assert drawn[:, 6].flatten(1).tolist() == [[0.0] * 4, [1.0] * 4]
    assert torch.equal(without[:, :6], drawn[:, :6])
    assert not without[:, 6].any()


@torch.no_grad()
def test_the_block_is_a_depthwise_separable_residual_before_the_kernels():
    block = randomised(MaskRefinement(4, 3))
    torch.manual_seed(0)
    x = torch.randn(2, 4, 4 * ROWS, 4 * COLS)
    drawn = torch.randn(2, 7, 4 * ROWS, 4 * COLS)
    kernels = torch.randn(2, 5, 4)

    added = block(kernels, x.flatten(2).transpose(1, 2), drawn)

    hidden = nn.functional.gelu(block.mix(block.reduce(x) + block.prompt(drawn)))
    expected = torch.einsum("tmc,tchw->tmhw", kernels, block.out(hidden))
    torch.testing.assert_close(added, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_decoder_adds_the_block_to_its_masks_pixel_by_pixel():
    decoder = randomised(MaskDecoder(32, 64, refine=True))
    torch.manual_seed(0)
    pixels = torch.randn(2, 4, 4 * ROWS, 4 * COLS)  # upscaled features in pixel order
    drawn = torch.randn(2, 7, 4 * ROWS, 4 * COLS)
    kernels = torch.randn(2, 4, 4)

    rows = pixels.flatten(2).transpose(1, 2)

    masks = decoder._masks(rows, kernels, (ROWS, COLS), drawn)

    plain = torch.einsum("tmc,tchw->tmhw", kernels, pixels)
    added = decoder.refinement(kernels, rows, drawn)
    torch.testing.assert_close(masks, plain + added, rtol=0, atol=1e-5)
    assert added.abs().max() > 0.1
