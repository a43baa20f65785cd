import math

import pytest
import torch
from random_networks import decoding_net, mixed_prompts, random_features

from edgeseg.modeling import PromptableNet, PromptBatch
from edgeseg.modeling.mask_decoder import MaskDecoder
from edgeseg.modeling.prompt_encoder import (
    PositionEmbeddingRandom,
    PromptEncoder,
    draw_prompt_map,
)

E05, E2 = math.exp(-0.5), math.exp(-2)  # one and two deviations away


def embedding_of(matrix):
    embedding = PositionEmbeddingRandom(len(matrix[0]))
    embedding.positional_encoding_gaussian_matrix.copy_(torch.tensor(matrix))
    return embedding


def test_a_position_becomes_sines_and_cosines_of_its_phase():
    embedding = embedding_of([[0.25, 0.0], [0.0, 0.25]])  # the first feature sees x, the second y

    encoded = embedding(torch.tensor([0.75, 0.625]))  # 0.5 and 0.25 on the scale from -1 to 1

    phase_x, phase_y = math.pi / 4, math.pi / 8  # 2 pi * 0.25 * 0.5, 2 pi * 0.25 * 0.25
    expected = [math.sin(phase_x), math.sin(phase_y), math.cos(phase_x), math.cos(phase_y)]
    torch.testing.assert_close(encoded, torch.tensor(expected))


def test_the_grid_holds_the_centres_of_the_cells_row_by_row():
    embedding = embedding_of([[0.7, 0.2], [0.1, -0.4]])

    grid = embedding.grid((2, 4))

    assert grid.shape == (1, 8, 4)
    torch.testing.assert_close(grid[0, 3], embedding(torch.tensor([7 / 8, 1 / 4])))
    torch.testing.assert_close(grid[0, 4], embedding(torch.tensor([1 / 8, 3 / 4])))


def test_half_precision_training_does_not_blur_positions():
    embedding = PositionEmbeddingRandom(16)
    unit_xy = torch.tensor([[0.123, 0.877], [0.501, 0.499]])
    exact = embedding(unit_xy)

    with torch.autocast("cpu", torch.bfloat16):
        encoded = embedding(unit_xy)

    torch.testing.assert_close(encoded, exact)


def drawn(points, labels, grid_hw=(2, 4)):
    prompts = PromptBatch(torch.tensor([points]), torch.tensor([labels]), (1,))
    return draw_prompt_map(prompts, image_size=8, grid_hw=grid_hw)[0]  # cells 4 high and 2 wide


def test_a_box_is_drawn_as_the_share_of_each_cell_it_covers():
    cover, offset_x, offset_y, has_box, on, off = drawn([[1.0, 1.0], [5.0, 6.0]], [2, 3])

    share_x = torch.tensor([0.5, 1.0, 0.5, 0.0])  # columns 0-2, 2-4, 4-6, 6-8 of 1 to 5
    share_y = torch.tensor([[0.75], [0.5]])  # rows 0-4 and 4-8 of 1 to 6
    torch.testing.assert_close(cover, share_y * share_x)
    # centres 1 3 5 7 from the middle 3 in widths of 4; centres 2 6 from 3.5 in heights of 5
    torch.testing.assert_close(offset_x, cover * torch.tensor([-0.5, 0.0, 0.5, 1.0]))
    torch.testing.assert_close(offset_y, cover * torch.tensor([[-0.3], [0.5]]))
    assert has_box.tolist() == [[1.0] * 4] * 2
    assert not on.any()
    assert not off.any()


def test_clicks_are_drawn_as_gaussians_of_one_cell():
    cover, _, _, has_box, on, off = drawn([[3.0, 2.0], [7.0, 6.0], [0.0, 0.0]], [1, 0, -1])

    # centres at x = 1 3 5 7 and y = 2 6
    torch.testing.assert_close(on[0], torch.tensor([E05, 1.0, E05, E2]))
    torch.testing.assert_close(on[1], on[0] * E05)
    torch.testing.assert_close(off[1], torch.tensor([math.exp(-4.5), E2, E05, 1.0]))
    torch.testing.assert_close(off[0], off[1] * E05)
    assert not cover.any()
    assert not has_box.any()


def test_clicks_add_up_and_absent_slots_are_not_drawn():
    _, _, _, _, on, off = drawn([[3.0, 2.0], [3.0, 2.0], [5.0, 2.0]], [1, 1, -2])

    torch.testing.assert_close(on[0], 2 * torch.tensor([E05, 1.0, E05, E2]))
    assert not off.any()


def test_a_box_thinner_than_a_pixel_has_offsets_within_one():
    _, offset_x, _, _, _, _ = drawn([[3.9, 0.0], [4.0, 8.0]], [2, 3])

    # a twentieth of the second column; its centre is 0.95 left of the box's, in units of 1 pixel
    torch.testing.assert_close(offset_x[0], torch.tensor([0.0, -0.95 * 0.05, 0.0, 0.0]))


@torch.no_grad()
def test_new_parts_change_nothing_until_they_are_trained():
    torch.manual_seed(0)
    plain = decoding_net(extras=False)
    extended = PromptableNet(
        torch.nn.Identity(),
        PromptEncoder(32, prompt_map_width=8),
        MaskDecoder(32, 64, high_res_channels=(5, 3), refine=True),
        64,
        "extended",
    ).eval()
    extended.load_state_dict(plain.state_dict(), strict=False)
    stride8, stride4 = torch.randn(2, 5, 8, 8), torch.randn(2, 3, 16, 16)
    high_res = extended.mask_decoder.project_high_res(stride8, stride4)
    features = random_features(2, extras=False)
    extended_features = type(features)(features.embedding, high_res)

    expected = plain.decode(features, mixed_prompts((2, 3)))
    output = extended.decode(extended_features, mixed_prompts((2, 3)))

    torch.testing.assert_close(output.low_res_logits, expected.low_res_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.iou_scores, expected.iou_scores, rtol=0, atol=1e-5)


def test_new_parts_learn_from_their_zero_weights():
    torch.manual_seed(0)
    net = PromptableNet(
        torch.nn.Identity(),
        PromptEncoder(32, prompt_map_width=8),
        MaskDecoder(32, 64, high_res_channels=(5, 3), refine=True),
        64,
        "extended",
    )
    high_res = net.mask_decoder.project_high_res(torch.randn(1, 5, 8, 8), torch.randn(1, 3, 16, 16))
    features = type(random_features(1, False))(random_features(1, False).embedding, high_res)

    output = net.decode(features, mixed_prompts((5,)))
    output.low_res_logits.square().sum().backward()

    for layer in (
        net.prompt_encoder.prompt_map[2],
        net.mask_decoder.high_res_s8,
        net.mask_decoder.high_res_s4,
    ):
        assert not layer.weight.any()
        assert layer.weight.grad.abs().max() > 1e-6


@pytest.mark.parametrize(
    ("labels", "absent"),
    [
        ([[1], [0]], None),
        ([[1, 0], [2, 3]], [[False, False, False], [False, False, True]]),
        ([[1, -2], [-2, -2]], [[False, True, False], [True, True, True]]),
    ],
)
def test_the_padding_point_stands_where_there_are_points_and_no_box(labels, absent):
    labels = torch.tensor(labels)
    prompts = PromptBatch(torch.ones(*labels.shape, 2), labels, (len(labels),))

    tokens = PromptEncoder(16)(prompts, 64, (4, 4))

    assert tokens.sparse.shape == (2, labels.shape[1] + 1, 16)
    assert absent is None if tokens.absent is None else tokens.absent.tolist() == absent
