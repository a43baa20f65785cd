import copy
import math

import pytest
import torch
from scripted_nets import (
    IMAGE_HW,
    ScriptedNet,
    clicked_batch,
    config,
    losses_of,
    painted,
    prompts_on,
    ramps,
    scores,
    value,
)

from edgeseg.distill.prompt_losses import (
    model_frame,
    prompt_losses,
)
from edgeseg.distill.step_random import StepRandom
from edgeseg.distill.teachers import NetTeacher
from edgeseg.geometry import ModelFrame
from edgeseg.modeling.registry import build_model
from edgeseg.prompts import ABSENT

# 33 px high and 50 px wide: 42 x 64 px in a 64 px input and 84 x 128 px in one of 128 px, so the
# scale along x is 1.28 and 2.56, along y 42 / 33 and 84 / 33.
STUDENT_SCALE_XY = torch.tensor([1.28, 42 / 33])
TEACHER_SCALE_XY = torch.tensor([2.56, 84 / 33])


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


def test_a_share_of_the_clicks_corrects_towards_the_annotated_mask():
    # The teacher agrees with the student everywhere; the truth is the cell in row 3, column 12.
    total = 40
    student = ScriptedNet(64, (painted(total, 16, cols=slice(0, 0)), scores(total)))
    teacher = ScriptedNet(128, (painted(total, 32, cols=slice(0, 0)), scores(total)))
    batch = clicked_batch(total)
    batch.masks[:, 3, 12] = True

    losses_of(student, teacher, batch, config(refinement_rounds=1, truth_click_share=0.5))

    labels = student.asked[1].point_labels[:, 2]
    clicked = student.asked[1].points_xy[labels == 1, 2]
    assert set(labels.tolist()) == {1, ABSENT}
    assert 10 < len(clicked) < 30  # about half
    assert clicked.unique(dim=0).tolist() == [[50.0, 14.0]]  # (12 + 0.5) * 4, (3 + 0.5) * 4
    assert torch.equal(teacher.asked[1].point_labels, student.asked[1].point_labels)


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
