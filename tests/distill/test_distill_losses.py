import math

import pytest
import torch
import torch.nn.functional as F

from edgeseg.distill.losses import (
    MaskLossWeights,
    content_mask,
    distilled_masks,
    ground_truth_masks,
    mask_losses,
    masked_mse,
    score_error,
    true_iou,
    uncertain_points,
)

ONLY_BCE = MaskLossWeights(bce=1.0, dice=0.0)
ONLY_DICE = MaskLossWeights(bce=0.0, dice=1.0)
LOG_2 = math.log(2)  # cross-entropy of a logit of zero


def masks(*rows):
    """Build (1, number of rows, N) bool from strings of "#" and "."."""
    return torch.tensor([[[pixel == "#" for pixel in row] for row in rows]])


def value(mean):
    return (mean.total / mean.count).item()


def test_content_mask_covers_the_cells_whose_centre_is_inside_the_image():
    content_hw = torch.tensor([[32, 17], [8, 32]])  # cells are 16 px, centres at 8 and 24 px
    first = [[True, False], [True, False]]
    second = [[False, False], [False, False]]  # a centre on the edge of the content is outside

    expected = torch.tensor([[first], [second]])
    assert torch.equal(content_mask(content_hw, image_size=32, grid_hw=(2, 2)), expected)


def test_content_mask_keeps_rows_and_columns_apart_on_any_grid():
    mask = content_mask(torch.tensor([[20, 40]]), image_size=40, grid_hw=(4, 8))

    assert mask.shape == (1, 1, 4, 8)
    assert mask[0, 0].any(dim=1).tolist() == [True, True, False, False]  # rows of 10 px, 20 high
    assert mask[0, 0, 0].all()


def test_masked_mse_averages_channels_and_ignores_cells_outside_the_mask():
    student = torch.zeros(1, 2, 1, 2)
    teacher = torch.tensor([[[[3.0, 1e6]], [[1.0, -1e6]]]])  # content cell, padding cell
    mask = torch.tensor([[[[True, False]]]])

    error = masked_mse(student, teacher, mask)

    assert (error.total.item(), error.count.item()) == (5.0, 1.0)  # (3**2 + 1**2) / 2


def test_masked_mse_weighs_every_content_cell_of_the_batch_alike():
    student = torch.zeros(2, 1, 1, 2)
    teacher = torch.tensor([[[[2.0, 2.0]]], [[[4.0, 9.0]]]])
    mask = torch.tensor([[[[True, True]]], [[[True, False]]]])

    assert value(masked_mse(student, teacher, mask)) == 8.0  # (4 + 4 + 16) / 3


def test_cross_entropy_is_that_of_torch():
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 4, 7) * 3, torch.rand(3, 4, 7) > 0.6
    valid = torch.ones(3, 1, 7, dtype=torch.bool)

    losses = mask_losses(logits, targets, valid, ONLY_BCE)

    expected = F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none")
    torch.testing.assert_close(losses, expected.mean(-1))


def test_cross_entropy_of_huge_logits_is_finite():
    logits = torch.tensor([[[1e4, -1e4]]])

    losses = mask_losses(logits, masks(".#"), masks("##"), ONLY_BCE)

    assert losses.item() == 1e4  # each of the two pixels is wrong by 1e4


def test_dice_is_one_minus_twice_the_overlap_over_both_areas():
    certain = torch.tensor([[[50.0, 50.0, -50.0, -50.0]]])  # probabilities 1, 1, 0, 0

    losses = mask_losses(certain, masks("#.#."), masks("####"), ONLY_DICE)

    assert losses.item() == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))


def test_dice_uses_probabilities():
    unsure = torch.zeros(1, 1, 4)  # probability 0.5 everywhere

    losses = mask_losses(unsure, masks("##.."), masks("####"), ONLY_DICE)

    assert losses.item() == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))  # overlap 2 * 0.5


def test_mask_losses_add_both_parts_with_their_weights():
    logits, targets, valid = torch.zeros(1, 1, 4), masks("##.."), masks("####")

    losses = mask_losses(logits, targets, valid, MaskLossWeights(bce=5.0, dice=3.0))

    assert losses.item() == pytest.approx(5 * LOG_2 + 3 * 0.4)


def test_a_perfect_mask_costs_nothing_and_neither_does_a_rightly_empty_one():
    certain = torch.tensor([[[60.0, 60.0, -60.0]], [[-60.0, -60.0, -60.0]]])
    targets = torch.cat([masks("##."), masks("...")])
    valid = torch.ones(2, 1, 3, dtype=torch.bool)

    assert mask_losses(certain, targets, valid, MaskLossWeights()).abs().max() < 1e-6


@pytest.mark.parametrize("weights", [ONLY_BCE, ONLY_DICE, MaskLossWeights(balance=True)])
def test_padding_does_not_reach_the_loss_however_wrong_it_is(weights):
    logits = torch.tensor([[[2.0, -1.0, 0.5]]])
    padded = torch.tensor([[[2.0, -1.0, 0.5, 1e30, -1e30]]], requires_grad=True)

    alone = mask_losses(logits, masks("#.."), masks("###"), weights)
    beside = mask_losses(padded, masks("#...#"), masks("###.."), weights)
    beside.sum().backward()

    torch.testing.assert_close(beside.detach(), alone)
    assert padded.grad[0, 0, 3:].tolist() == [0.0, 0.0]


def test_an_image_without_content_cells_costs_nothing():
    losses = mask_losses(torch.randn(1, 4, 3), masks("###"), masks("..."), MaskLossWeights())

    assert losses.tolist() == [[0.0] * 4]


def test_balanced_cross_entropy_gives_the_mask_half_of_the_weight():
    logits = torch.tensor([[[3.0, 0.0, 0.0, 0.0]]])  # the one pixel of the mask is almost right
    hit = math.log(1 + math.exp(-3))

    plain = mask_losses(logits, masks("#..."), masks("####"), ONLY_BCE)
    balanced = mask_losses(
        logits, masks("#..."), masks("####"), MaskLossWeights(1.0, 0.0, balance=True)
    )

    assert plain.item() == pytest.approx((hit + 3 * LOG_2) / 4)
    assert balanced.item() == pytest.approx((hit + LOG_2) / 2)


def test_balanced_cross_entropy_of_an_empty_mask_is_the_mean_over_its_pixels():
    logits = torch.tensor([[[1.0, 0.0]]])

    losses = mask_losses(logits, masks(".."), masks("##"), MaskLossWeights(1.0, 0.0, balance=True))

    assert losses.item() == pytest.approx((math.log(1 + math.e) + LOG_2) / 2)


def test_one_target_serves_all_four_masks():
    torch.manual_seed(1)
    logits, valid = torch.randn(2, 4, 5), torch.ones(2, 1, 5, dtype=torch.bool)
    target = torch.rand(2, 1, 5) > 0.5

    shared = mask_losses(logits, target, valid, MaskLossWeights(balance=True))

    repeated = mask_losses(logits, target.repeat(1, 4, 1), valid, MaskLossWeights(balance=True))
    torch.testing.assert_close(shared, repeated)


def test_distilled_masks_is_the_mean_over_prompts_and_tokens():
    losses = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 0.0, 4.0]])

    joined = distilled_masks(losses)

    assert (joined.total.item(), joined.count.item()) == (4.0, 2.0)  # 3 + 1 over two prompts


def test_ground_truth_asks_the_single_token_and_the_best_of_the_other_three():
    losses = torch.tensor([[4.0, 3.0, 2.0, 9.0], [1.0, 5.0, 7.0, 6.0]])

    joined = ground_truth_masks(losses)

    assert (joined.total.item(), joined.count.item()) == (6.0, 2.0)  # (4 + 2) / 2 + (1 + 5) / 2


def test_only_the_best_ambiguous_token_learns_from_ground_truth():
    losses = torch.tensor([[0.5, 3.0, 2.0, 9.0]], requires_grad=True)

    ground_truth_masks(losses).total.backward()

    assert losses.grad.tolist() == [[0.5, 0.0, 0.5, 0.0]]


def test_score_error_is_the_mean_square_over_all_tokens_and_does_not_move_the_target():
    scores = torch.tensor([[0.5, 1.0]], requires_grad=True)
    wanted = torch.tensor([[0.0, 0.5]], requires_grad=True)

    error = score_error(scores, wanted)
    error.total.backward()

    assert (error.total.item(), error.count.item()) == (0.5, 2.0)
    assert wanted.grad is None


def test_true_iou_counts_pixels_on_content_only():
    logits = torch.tensor([[[1.0, 1.0, -1.0, 1.0], [-1.0, -1.0, -1.0, 9.0]]])
    target = masks("#.##")

    iou = true_iou(logits, target, masks("###."))

    assert iou.tolist() == [[pytest.approx(1 / 3), 0.0]]  # {0, 1} and {0, 2}; {} and {0, 2}


def test_true_iou_of_two_empty_masks_is_one():
    logits = torch.tensor([[[-1.0, -1.0, 5.0]]])

    assert true_iou(logits, masks("..#"), masks("##.")).tolist() == [[1.0]]


def test_uncertain_points_are_the_smallest_logits_among_the_candidates():
    logits = torch.tensor([[5.0, -0.1, 4.0, 0.2, -6.0, 3.0]])
    valid = torch.ones(1, 6, dtype=torch.bool)
    uniform = torch.tensor([[0.9, 0.1, 0.5, 0.2, 0.8, 0.3]])

    points = uncertain_points(logits, valid, uniform, num_points=2, share=1.0)

    assert sorted(points[0].tolist()) == [1, 3]  # all six are candidates


def test_candidates_are_three_times_the_points_by_their_random_number():
    logits = torch.tensor([[5.0, -0.1, 4.0, 0.2, -6.0, 3.0]])
    valid = torch.ones(1, 6, dtype=torch.bool)
    uniform = torch.tensor([[0.9, 0.1, 0.5, 0.2, 0.8, 0.3]])  # the first three: 0, 4 and 2

    points = uncertain_points(logits, valid, uniform, num_points=1, share=1.0)

    assert points.tolist() == [[2]]  # |4| is the least certain of 5, -6 and 4


def test_the_other_points_are_drawn_evenly():
    logits = torch.tensor([[0.0, 9.0, 9.0, 9.0]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    uniform = torch.tensor([[0.1, 0.5, 0.9, 0.2]])

    points = uncertain_points(logits, valid, uniform, num_points=4, share=0.5)

    assert points[0, :2].tolist()[0] == 0  # the doubtful half begins with the pixel at zero
    assert points[0, 2:].tolist() == [2, 1]  # the other half are the largest random numbers


def test_uncertain_points_never_lie_on_padding_while_there_is_content():
    torch.manual_seed(2)
    logits = torch.randn(3, 40) * 10
    valid = torch.zeros(3, 40, dtype=torch.bool)
    valid[:, ::4] = True  # 10 pixels of content
    logits[:, 1::4] = 0.0  # padding is as doubtful as can be

    points = uncertain_points(logits, valid, torch.rand(3, 40), num_points=8, share=0.75)

    assert points.shape == (3, 8)
    assert valid.gather(1, points).all()


def test_more_points_than_pixels_takes_every_pixel():
    points = uncertain_points(
        torch.randn(2, 5), torch.ones(2, 5, dtype=torch.bool), torch.rand(2, 5), 16, share=1.0
    )

    assert [sorted(row) for row in points.tolist()] == [[0, 1, 2, 3, 4]] * 2
