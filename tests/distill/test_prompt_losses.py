import copy
import math

import pytest
import torch
from scripted_nets import ScriptedNet, painted, prompts_on, ramps, scores

from edgeseg.distill.prompt_losses import (
    RoundTargets,
    disagreement_clicks,
    model_frame,
    prompt_losses,
)
from edgeseg.distill.stage_config import PromptStageConfig
from edgeseg.distill.step_random import StepRandom
from edgeseg.distill.teachers import NetTeacher
from edgeseg.geometry import ModelFrame
from edgeseg.modeling.prompt_batch import PromptGroups
from edgeseg.modeling.promptable import DecoderOutput
from edgeseg.modeling.registry import build_model
from edgeseg.prompts import ABSENT

# 33 px high and 50 px wide: 42 x 64 px in a 64 px input and 84 x 128 px in one of 128 px, so the
# scale along x is 1.28 and 2.56, along y 42 / 33 and 84 / 33.
IMAGE_HW = (33, 50)
STUDENT_SCALE_XY = torch.tensor([1.28, 42 / 33])
TEACHER_SCALE_XY = torch.tensor([2.56, 84 / 33])


def config(**settings):
    return PromptStageConfig(steps=1, **settings)


def losses_of(student, teacher, batch, settings, seed=3):
    return prompt_losses(
        student,
        student.features(),
        teacher,
        None if teacher is None else teacher.features(),
        batch,
        settings,
        StepRandom(seed, range(len(batch.counts)), batch.counts),
    )


def clicked_batch(total=1, **settings):
    """One image with equal point prompts."""
    boxes, points = [[0, 0, 1, 1]] * total, [[10, 20]] * total
    return prompts_on([IMAGE_HW], [total], [False] * total, boxes, points, **settings)


def value(mean):
    return (mean.total / mean.count).item()


def test_frame_is_that_of_the_geometry_module():
    frame = model_frame(torch.tensor([IMAGE_HW, (50, 33)]), 64)

    for row, image_hw in enumerate([IMAGE_HW, (50, 33)]):
        expected = ModelFrame(image_hw, 64)
        assert tuple(frame.content_hw[row].tolist()) == expected.content_hw
        torch.testing.assert_close(frame.scale_xy[row], torch.from_numpy(expected.scale_xy))


def test_both_networks_are_asked_in_their_own_frame():
    student = ScriptedNet(64, (painted(2, 16), scores(2)))
    teacher = ScriptedNet(128, (painted(2, 32), scores(2)))
    batch = prompts_on([IMAGE_HW], [2], [True, False], [[10, 5, 40, 30]] * 2, [[12, 25]] * 2)

    losses_of(student, teacher, batch, config(refinement_rounds=0))

    in_image = torch.tensor([[[10.0, 5.0], [40.0, 30.0]], [[12.0, 25.0], [0.0, 0.0]]])
    for net, scale_xy in ((student, STUDENT_SCALE_XY), (teacher, TEACHER_SCALE_XY)):
        torch.testing.assert_close(net.asked[0].points_xy, in_image * scale_xy)
        assert net.asked[0].point_labels.tolist() == [[2, 3], [1, ABSENT]]
        assert net.asked[0].counts == (2,)


def test_every_image_of_a_batch_has_its_own_scale():
    student = ScriptedNet(64, (painted(3, 16), scores(3)))
    teacher = ScriptedNet(128, (painted(3, 32), scores(3)))
    batch = prompts_on([IMAGE_HW, (64, 32)], [1, 2], [False] * 3, [[0, 0, 1, 1]] * 3, [[8, 8]] * 3)

    losses_of(student, teacher, batch, config(refinement_rounds=0))

    asked = teacher.asked[0].points_xy[:, 0]
    expected = torch.stack([8 * TEACHER_SCALE_XY, torch.full((2,), 16.0), torch.full((2,), 16.0)])
    torch.testing.assert_close(asked, expected)  # the second image is scaled by 2


def test_clicks_fall_where_the_networks_disagree_and_say_what_the_teacher_has():
    # The student has the left half, the teacher the upper 8 of 16 rows of the student's grid.
    total = 60
    student = ScriptedNet(64, (painted(total, 16, cols=slice(0, 8)), scores(total)))
    teacher = ScriptedNet(128, (painted(total, 32, rows=slice(0, 16)), scores(total)))

    losses_of(student, teacher, clicked_batch(total), config(refinement_rounds=1))

    cells = student.asked[1].points_xy[:, 2] / 4 - 0.5  # column and row of the student's grid
    labels = student.asked[1].point_labels[:, 2]
    missed = (cells[:, 0] >= 8) & (cells[:, 1] < 8)
    surplus = (cells[:, 0] < 8) & (cells[:, 1] >= 8) & (cells[:, 1] < 10)  # 42 px end after row 10
    assert torch.equal(cells, cells.round())
    assert torch.equal(missed, labels == 1)
    assert torch.equal(surplus, labels == 0)
    assert missed.sum() > surplus.sum() > 0  # 64 cells against 16
    assert len(cells.unique(dim=0)) > 30  # not always the same one


def test_a_click_is_the_same_place_of_the_image_for_both_networks():
    total = 20
    student = ScriptedNet(64, (painted(total, 16, cols=slice(0, 8)), scores(total)))
    teacher = ScriptedNet(128, (painted(total, 32, rows=slice(0, 16)), scores(total)))

    losses_of(student, teacher, clicked_batch(total), config(refinement_rounds=1))

    mine, theirs = (net.asked[1].points_xy[:, 2] for net in (student, teacher))
    torch.testing.assert_close(mine / STUDENT_SCALE_XY, theirs / TEACHER_SCALE_XY)
    assert torch.equal(student.asked[1].point_labels, teacher.asked[1].point_labels)


def test_a_round_keeps_the_earlier_prompts():
    student = ScriptedNet(64, (painted(1, 16, cols=slice(0, 8)), scores(1)))
    teacher = ScriptedNet(128, (painted(1, 32, rows=slice(0, 16)), scores(1)))

    losses_of(student, teacher, clicked_batch(), config(refinement_rounds=2))

    for net in (student, teacher):
        first, second, third = (prompts.points_xy for prompts in net.asked)
        assert [prompts.shape[1] for prompts in (first, second, third)] == [2, 3, 4]
        assert torch.equal(third[:, :3], second)
        assert torch.equal(second[:, :2], first)


def test_networks_that_agree_get_no_click_and_hardly_a_loss():
    student = ScriptedNet(64, (painted(2, 16, rows=slice(2, 9)), scores(2)))
    teacher = ScriptedNet(128, (painted(2, 32, rows=slice(4, 18)), scores(2)))

    losses = losses_of(student, teacher, clicked_batch(2), config(refinement_rounds=1))

    assert student.asked[1].point_labels[:, 2].tolist() == [ABSENT, ABSENT]
    assert teacher.asked[1].point_labels[:, 2].tolist() == [ABSENT, ABSENT]
    assert value(losses["teacher_mask"]) < 1e-6
    assert value(losses["teacher_score"]) == 0


def test_the_teachers_scores_choose_the_mask_to_correct():
    student_logits, teacher_logits = painted(1, 16, cols=slice(0, 0)), painted(1, 32, cols=slice(0))
    teacher_logits[:, 2, 4:6, 8:10] = 20.0  # token 2 alone has something: cell row 2, column 4
    student = ScriptedNet(64, (student_logits, scores(1, best=1)))
    teacher = ScriptedNet(128, (teacher_logits, scores(1, best=2)))

    losses_of(student, teacher, clicked_batch(), config(refinement_rounds=1))

    assert student.asked[1].points_xy[0, 2].tolist() == [18.0, 10.0]  # (4 + 0.5) * 4, (2 + 0.5) * 4
    assert student.asked[1].point_labels[0, 2] == 1


def test_the_students_mask_is_the_one_of_the_same_token():
    student_logits, teacher_logits = painted(1, 16), painted(1, 32)
    student_logits[:, 2, 5, 7] = -20.0
    student = ScriptedNet(64, (student_logits, scores(1, best=1)))
    teacher = ScriptedNet(128, (teacher_logits, scores(1, best=2)))

    losses_of(student, teacher, clicked_batch(), config(refinement_rounds=1))

    assert student.asked[1].points_xy[0, 2].tolist() == [30.0, 22.0]  # (7 + 0.5) * 4, (5 + 0.5) * 4


@pytest.mark.parametrize("teacher_cells", [8, 16, 32])
def test_teacher_masks_come_to_the_students_resolution(teacher_cells):
    student = ScriptedNet(64, (painted(1, 16, cols=slice(0, 6)), scores(1)))
    teacher = ScriptedNet(
        4 * teacher_cells,
        (painted(1, teacher_cells, cols=slice(0, 3 * teacher_cells // 8)), scores(1)),
    )

    losses = losses_of(student, teacher, clicked_batch(), config(refinement_rounds=0))

    assert value(losses["teacher_mask"]) < 1e-6  # 3 / 8 of 16 columns are 6


def test_losses_of_a_round_by_hand():
    student = ScriptedNet(64, (torch.zeros(1, 4, 16, 16), scores(1, best=0)))
    teacher = ScriptedNet(64, (painted(1, 16, cols=slice(0, 8)), scores(1, best=1)))

    losses = losses_of(student, teacher, clicked_batch(), config(refinement_rounds=0))

    # 10 rows of content with 8 of 16 columns on the mask; every probability is one half.
    dice = 1 - (2 * 80 / 2 + 1) / (160 / 2 + 80 + 1)
    assert losses.keys() == {"teacher_mask", "teacher_score"}
    assert value(losses["teacher_mask"]) == pytest.approx(5 * math.log(2) + 5 * dice)
    assert value(losses["teacher_score"]) == 0.125  # two of four scores are off by 0.5


def test_the_loss_is_the_mean_over_rounds():
    wanted = painted(1, 16, cols=slice(0, 8))
    student = ScriptedNet(64, (torch.zeros(1, 4, 16, 16), scores(1)), (wanted, scores(1, best=1)))
    teacher = ScriptedNet(64, (wanted, scores(1)))

    first = losses_of(copy.deepcopy(student), teacher, clicked_batch(), config(refinement_rounds=0))
    both = losses_of(student, teacher, clicked_batch(), config(refinement_rounds=1))

    assert value(both["teacher_mask"]) == pytest.approx(value(first["teacher_mask"]) / 2)
    assert value(both["teacher_score"]) == pytest.approx(0.125 / 2)


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


# The same with real networks.


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(4)
    return build_model("edgeseg_tiny").eval(), NetTeacher(build_model("vit_tiny"))


def real_losses(student, teacher, batch, settings, positions):
    teacher_images = ramps(len(batch.counts), teacher.image_size)
    return prompt_losses(
        student,
        student.encode(batch.student_images),
        teacher,
        teacher.embed(teacher_images),
        batch,
        settings,
        StepRandom(3, positions, batch.counts),
    )


def test_losses_of_a_batch_are_the_sums_over_its_images(nets):
    student, teacher = nets
    settings = config(
        refinement_rounds=2, mask_prompt_share=0.5, uncertain_points={"num_points": 32}
    )
    sizes, counts = [IMAGE_HW, (50, 33)], [2, 1]
    boxes = [[4, 4, 20, 30], [1, 2, 30, 20], [3, 3, 30, 40]]
    points, use_box = [[9, 9], [20, 5], [8, 30]], [True, False, False]

    whole = real_losses(
        student, teacher, prompts_on(sizes, counts, use_box, boxes, points), settings, [6, 7]
    )
    parts = [
        real_losses(
            student,
            teacher,
            prompts_on([sizes[k]], [counts[k]], use_box[part], boxes[part], points[part]),
            settings,
            [6 + k],
        )
        for k, part in ((0, slice(0, 2)), (1, slice(2, 3)))
    ]

    for name, mean in whole.items():
        torch.testing.assert_close(mean.total, parts[0][name].total + parts[1][name].total)
        assert mean.count == parts[0][name].count + parts[1][name].count


def test_a_student_equal_to_its_teacher_has_nothing_to_correct(nets):
    student, _ = nets
    teacher = NetTeacher(copy.deepcopy(student))
    batch = prompts_on([IMAGE_HW], [2], [True, False], [[4, 4, 20, 30]] * 2, [[9, 9]] * 2)

    losses = real_losses(student, teacher, batch, config(refinement_rounds=2), [0])

    assert value(losses["teacher_score"]) < 1e-9  # rounding alone


def test_gradients_reach_the_student_and_not_the_teacher(nets):
    student, teacher = nets
    batch = prompts_on([IMAGE_HW], [2], [True, False], [[4, 4, 20, 30]] * 2, [[9, 9]] * 2)

    losses = real_losses(student, teacher, batch, config(mask_prompt_share=1.0), [0])
    sum(mean.total for mean in losses.values()).backward()

    grads = {name: p.grad for name, p in student.named_parameters()}
    assert grads["mask_decoder.mask_tokens.weight"].abs().min() > 0
    assert grads["mask_decoder.iou_prediction_head.layers.2.weight"].abs().max() > 0
    assert grads["image_encoder.neck.0.weight"].abs().max() > 0
    assert all(p.grad is None for p in teacher.net.parameters())
    student.zero_grad(set_to_none=True)


# Clicks and targets by themselves.


def test_a_click_is_the_wrong_pixel_its_random_number_points_at():
    mine = torch.zeros(5, 2, 3, dtype=torch.bool)
    wanted = torch.tensor([[[1, 0, 0], [0, 1, 1]]], dtype=torch.bool).expand(5, -1, -1)
    valid = torch.ones(5, 2, 3, dtype=torch.bool)
    uniform = torch.tensor([0.0, 0.33, 0.34, 0.66, 0.999])  # thirds: three pixels are wrong

    cells, labels = disagreement_clicks(mine, wanted, valid, uniform)

    assert cells.tolist() == [[0, 0], [0, 0], [1, 1], [1, 1], [2, 1]]  # column, then row
    assert labels.tolist() == [1] * 5


def test_a_click_off_the_wanted_mask_is_negative_and_padding_is_never_clicked():
    mine = torch.ones(1, 2, 2, dtype=torch.bool)
    wanted = torch.zeros(1, 2, 2, dtype=torch.bool)
    valid = torch.tensor([[[False, False], [True, False]]])

    for uniform in (0.0, 0.5, 0.999):
        cells, labels = disagreement_clicks(mine, wanted, valid, torch.tensor([uniform]))
        assert cells.tolist() == [[0, 1]]
        assert labels.tolist() == [0]


def test_masks_that_differ_on_padding_only_get_no_click():
    mine = torch.tensor([[[True, False]]])

    _, labels = disagreement_clicks(
        mine, ~mine, torch.zeros(1, 1, 2, dtype=torch.bool), torch.tensor([0.5])
    )

    assert labels.tolist() == [ABSENT]


def test_wanted_mask_is_chosen_for_each_prompt_by_itself():
    logits = torch.full((2, 4, 1, 1), -1.0)
    logits[0, 3] = logits[1, 1] = 1.0
    teacher_masks = torch.zeros(2, 4, 1, 1, dtype=torch.bool)
    teacher_masks[0, 3] = True
    preferred = torch.stack([scores(1, best=3)[0], scores(1, best=1)[0]])

    mine, wanted = RoundTargets(teacher_masks, preferred, None).wanted(
        DecoderOutput(logits, scores(2, best=0))
    )

    assert mine.flatten().tolist() == [True, True]
    assert wanted.flatten().tolist() == [True, False]
