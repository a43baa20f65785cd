import math

import pytest
import torch
from scripted_nets import ScriptedNet, clicked_batch, config, losses_of, painted, scores, value

from edgeseg.distill.prompt_losses import (
    prompt_losses,
)
from edgeseg.distill.step_random import StepRandom
from edgeseg.modeling.prompt_batch import PromptGroups


def truth(total, rows, cols):
    masks = torch.zeros(total, 16, 16, dtype=torch.bool)
    masks[:, rows, cols] = True
    return masks


def test_ground_truth_alone_needs_no_teacher():
    student_logits = painted(1, 16, rows=slice(0, 4), cols=slice(0, 4))
    student_logits[:, 3] = painted(1, 16, rows=slice(0, 4), cols=slice(0, 8))[:, 0]
    student = ScriptedNet(64, (student_logits, scores(1, best=0)))
    batch = clicked_batch(masks=truth(1, slice(0, 4), slice(0, 8)))
    settings = config(refinement_rounds=0, targets={"teacher": 0, "ground_truth": 1})

    losses = losses_of(student, None, batch, settings)

    assert losses.keys() == {"truth_mask", "truth_score"}
    # Token 3 is right. Token 0 misses 16 of 160 pixels by 20 each; Dice 1 - 33 / 49.
    expected = (5 * 16 * 20 / 160 + 5 * (1 - 33 / 49)) / 2
    assert value(losses["truth_mask"]) == pytest.approx(expected, rel=1e-5)
    # IoU 0.5 three times and 1; predicted 0.75, 0.25, 0.25, 0.25.
    assert value(losses["truth_score"]) == pytest.approx((3 * 0.25**2 + 0.75**2) / 4)


def test_without_a_teacher_the_click_corrects_the_mask_the_students_scores_prefer():
    student_logits = painted(1, 16)
    student_logits[:, 2] = painted(1, 16, cols=slice(0))[:, 0]
    student_logits[:, 2, 3, 5] = 20.0  # token 2 alone is wrong, in one cell
    student = ScriptedNet(64, (student_logits, scores(1, best=2)))
    settings = config(refinement_rounds=1, targets={"teacher": 0, "ground_truth": 1})

    losses_of(student, None, clicked_batch(), settings)

    assert student.asked[1].points_xy[0, 2].tolist() == [22.0, 14.0]  # (5 + 0.5) * 4, (3 + 0.5) * 4
    assert student.asked[1].point_labels[0, 2] == 0


def test_with_both_targets_clicks_follow_the_teacher_and_all_four_parts_are_there():
    student = ScriptedNet(64, (painted(1, 16, cols=slice(0)), scores(1)))
    teacher = ScriptedNet(64, (painted(1, 16, rows=slice(2, 3), cols=slice(4, 5)), scores(1)))
    batch = clicked_batch(masks=truth(1, slice(6, 7), slice(8, 9)))
    settings = config(refinement_rounds=1, targets={"teacher": 1, "ground_truth": 1})

    losses = losses_of(student, teacher, batch, settings)

    assert losses.keys() == {"teacher_mask", "teacher_score", "truth_mask", "truth_score"}
    assert student.asked[1].points_xy[0, 2].tolist() == [18.0, 10.0]


def test_masks_are_fed_back_to_the_prompts_they_were_drawn_for():
    total = 12
    mine = painted(total, 16, cols=slice(0, 8), logit=50.0)
    mine[:, 1] = 7.0
    theirs = painted(total, 32, rows=slice(0, 16))
    student = ScriptedNet(64, (mine, scores(total, best=1)))
    teacher = ScriptedNet(128, (theirs, scores(total, best=3)))
    batch = clicked_batch(total)
    drawn = StepRandom(3, [0], (total,)).uniform("masks", 0, PromptGroups((total,))) < 0.5

    losses_of(student, teacher, batch, config(refinement_rounds=1, mask_prompt_share=0.5))

    assert student.asked[0].mask_logits is None
    for net in (student, teacher):
        assert torch.equal(net.asked[1].has_mask, drawn)
    assert 0 < drawn.sum() < total
    assert torch.equal(student.asked[1].mask_logits, mine[:, 1:2])  # its own best one
    assert torch.equal(teacher.asked[1].mask_logits, theirs[:, 3:4])


def test_a_mask_that_is_fed_back_stays_in_the_range_sam_was_trained_with():
    student = ScriptedNet(64, (painted(1, 16, cols=slice(0, 8), logit=50.0), scores(1)))
    teacher = ScriptedNet(64, (painted(1, 16), scores(1)))

    losses_of(student, teacher, clicked_batch(), config(mask_prompt_share=1.0))

    assert student.asked[1].has_mask.all()
    assert student.asked[1].mask_logits.unique().tolist() == [-32.0, 32.0]


def test_a_mask_prompt_holds_for_one_round():
    student = ScriptedNet(64, (painted(1, 16, cols=slice(0, 8)), scores(1)))
    teacher = ScriptedNet(64, (painted(1, 16), scores(1)))
    groups, random = PromptGroups((1,)), StepRandom(3, [0], (1,))
    drawn = [random.uniform("masks", k, groups).item() for k in range(4)]
    share = sorted(drawn)[1] + 1e-6  # two of the four rounds get a mask

    settings = config(refinement_rounds=4, mask_prompt_share=share)
    losses_of(student, teacher, clicked_batch(), settings)

    fed = [prompts.mask_logits is not None for prompts in student.asked[1:]]
    assert fed == [number < share for number in drawn]


def test_no_mask_is_fed_back_by_default():
    student = ScriptedNet(64, (painted(1, 16, cols=slice(0, 8)), scores(1)))
    teacher = ScriptedNet(64, (painted(1, 16), scores(1)))

    losses_of(student, teacher, clicked_batch(), config(refinement_rounds=2))

    assert all(prompts.mask_logits is None for prompts in student.asked + teacher.asked)


def test_points_that_cover_every_pixel_give_the_loss_of_all_pixels():
    torch.manual_seed(0)
    answer = torch.randn(3, 4, 16, 16), torch.rand(3, 4)
    teacher = ScriptedNet(128, (torch.randn(3, 4, 32, 32), torch.rand(3, 4)))
    settings = {"targets": {"ground_truth": 0.5}, "refinement_rounds": 0}
    batch = clicked_batch(3, masks=truth(3, slice(0, 9), slice(2, 7)))
    points = {"num_points": 256, "uncertain_share": 1.0}  # as many as there are pixels

    all_pixels = losses_of(ScriptedNet(64, answer), teacher, batch, config(**settings))
    teacher.asked.clear()
    at_points = losses_of(
        ScriptedNet(64, answer), teacher, batch, config(**settings, uncertain_points=points)
    )

    for name, mean in all_pixels.items():
        torch.testing.assert_close(at_points[name].total, mean.total)


def test_points_are_where_each_mask_token_hesitates():
    answer = painted(1, 16)  # right everywhere ...
    answer[:, 2, :4, :4] = -0.01  # ... but for 16 pixels of token 2, where it hesitates
    teacher = ScriptedNet(64, (painted(1, 16), scores(1)))
    points = {"num_points": 16, "uncertain_share": 1.0}

    student = ScriptedNet(64, (answer, scores(1)))
    settings = config(
        refinement_rounds=0,
        uncertain_points=points,
        bce_weight=1.0,
        dice_weight=0.0,
        balanced_share=0,
    )
    loss = value(losses_of(student, teacher, clicked_batch(), settings)["teacher_mask"])

    # Of 160 pixels 48 are candidates; those of the 16 that are among them come first.
    draw = StepRandom(3, [0], (1,)).uniform("points", 0, PromptGroups((1,)), 256)
    on_content = torch.zeros(16, 16, dtype=torch.bool)
    on_content[:10] = True
    candidates = torch.where(on_content.flatten(), draw[0], -1.0).topk(48).indices
    hesitant = ((candidates % 16 < 4) & (candidates // 16 < 4)).sum().item()
    assert hesitant > 0
    assert loss == pytest.approx(hesitant / 16 * math.log(1 + math.exp(0.01)) / 4, rel=1e-4)


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 10.0), (0.49, 10.0), (0.5, 5.0)])
def test_the_masks_own_pixels_have_half_the_weight_early_in_the_stage_only(progress, expected):
    nothing = ScriptedNet(64, (torch.full((1, 4, 16, 16), -20.0), scores(1)))
    true_mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    true_mask[:, :, :4] = True  # 40 of the 160 pixels on content, each 20 wrong
    settings = config(
        refinement_rounds=0,
        bce_weight=1.0,
        dice_weight=0.0,
        balanced_share=0.5,
        targets={"teacher": 0.0, "ground_truth": 1.0},
    )

    losses = prompt_losses(
        nothing,
        nothing.features(),
        None,
        None,
        clicked_batch(masks=true_mask),
        settings,
        StepRandom(3, [0], (1,), progress=progress),
    )

    assert value(losses["truth_mask"]) == pytest.approx(expected)
