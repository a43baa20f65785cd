import pytest
import torch
from torch import nn

from edgeseg.distill.encoder_losses import encoder_losses, on_one_grid
from edgeseg.modeling.promptable import ImageFeatures

SQUARE = torch.tensor([[64, 64]])  # the content fills a 64 px input
WIDE = torch.tensor([[32, 64]])  # 32 px high: the lower half is padding


def value(mean):
    return (mean.total / mean.count).item()


def features(embedding, stride8=None, stride4=None):
    return ImageFeatures(embedding, None if stride8 is None else (stride8, stride4))


def test_equal_grids_are_left_alone():
    student, teacher = torch.rand(1, 2, 4, 4), torch.rand(1, 2, 4, 4)

    mine, wanted = on_one_grid(student, teacher, "teacher")

    assert mine is student
    assert wanted is teacher


def test_a_finer_teacher_is_averaged_over_areas_on_the_students_grid():
    teacher = torch.arange(16.0).reshape(1, 1, 4, 4)
    student = torch.zeros(1, 1, 2, 2)

    mine, wanted = on_one_grid(student, teacher, "student")

    assert mine is student
    assert wanted.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]  # (0 + 1 + 4 + 5) / 4, ...


def test_a_coarser_student_is_upsampled_bilinearly_on_the_teachers_grid():
    student = torch.tensor([[[[0.0, 4.0]] * 2]])
    teacher = torch.zeros(1, 1, 4, 4)

    mine, wanted = on_one_grid(student, teacher, "teacher")

    assert wanted is teacher
    assert mine[0, 0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]  # centres at 1/4, 3/4 of the way


def test_a_coarser_teacher_is_upsampled_on_the_students_grid():
    _, wanted = on_one_grid(torch.zeros(1, 1, 4, 4), torch.tensor([[[[0.0, 4.0]] * 2]]), "student")

    assert wanted[0, 0, 3].tolist() == [0.0, 1.0, 3.0, 4.0]


def test_a_finer_student_is_averaged_on_the_teachers_grid():
    mine, _ = on_one_grid(
        torch.arange(16.0).reshape(1, 1, 4, 4), torch.zeros(1, 1, 2, 2), "teacher"
    )

    assert mine.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


@pytest.mark.parametrize("grid", ["student", "teacher"])
@pytest.mark.parametrize(("student_cells", "teacher_cells"), [(4, 4), (4, 8), (8, 4)])
def test_padding_does_not_reach_the_embedding_loss(grid, student_cells, teacher_cells):
    student = torch.zeros(1, 3, student_cells, student_cells)
    teacher = torch.full((1, 3, teacher_cells, teacher_cells), 2.0)
    # Two cells into the padding, so that bilinear upsampling does not smear it over the border.
    student[:, :, student_cells // 2 + 1 :] = 1e4
    teacher[:, :, teacher_cells // 2 + 1 :] = -1e4

    losses = encoder_losses(features(student), features(teacher), WIDE, 64, grid)

    assert losses.keys() == {"embedding"}
    assert value(losses["embedding"]) == 4.0


def test_content_of_a_tall_image_is_its_left_part():
    student, teacher = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    teacher[..., 2:] = 1e4  # padding to the right
    teacher[..., 3, 0] = 4.0

    losses = encoder_losses(features(student), features(teacher), torch.tensor([[64, 32]]), 64)

    assert losses["embedding"].count.item() == 8
    assert losses["embedding"].total.item() == 16.0


def test_high_resolution_levels_count_alike():
    student = features(torch.zeros(1, 8, 4, 4), torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 16, 16))
    teacher = features(
        torch.zeros(1, 8, 4, 4), torch.full((1, 2, 8, 8), 2.0), torch.full((1, 1, 16, 16), 4.0)
    )

    losses = encoder_losses(student, teacher, SQUARE, 64)

    assert value(losses["high_res"]) == 10.0  # (2**2 + 4**2) / 2
    assert losses["high_res"].count.item() == 64


def test_padding_does_not_reach_the_high_resolution_loss():
    student = features(torch.zeros(1, 8, 4, 4), torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 16, 16))
    stride8, stride4 = torch.full((1, 2, 8, 8), 2.0), torch.full((1, 1, 16, 16), 4.0)
    stride8[:, :, 4:] = stride4[:, :, 8:] = 1e4

    losses = encoder_losses(student, features(student.embedding, stride8, stride4), WIDE, 64)

    assert value(losses["high_res"]) == 10.0


def test_high_resolution_features_of_other_grids_are_compared_on_one():
    student = features(torch.zeros(1, 8, 4, 4), torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 16, 16))
    teacher = features(
        torch.zeros(1, 8, 8, 8), torch.full((1, 2, 16, 16), 2.0), torch.full((1, 1, 32, 32), 4.0)
    )

    losses = encoder_losses(student, teacher, SQUARE, 64, "student")

    assert value(losses["high_res"]) == 10.0
    assert losses["high_res"].count.item() == 64  # of the student's grid


@pytest.mark.parametrize("without", ["student", "teacher"])
def test_there_is_no_high_resolution_part_when_one_network_has_none(without):
    full = features(torch.zeros(1, 8, 4, 4), torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 16, 16))
    plain = features(torch.zeros(1, 8, 4, 4))
    student, teacher = (plain, full) if without == "student" else (full, plain)

    assert encoder_losses(student, teacher, SQUARE, 64).keys() == {"embedding"}


def test_the_align_layer_maps_the_students_width_to_the_teachers():
    align = nn.Conv2d(2, 3, 1)
    nn.init.ones_(align.weight)
    nn.init.constant_(align.bias, 0.5)
    student = features(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 16, 16))
    teacher = features(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 8, 8), torch.zeros(1, 2, 16, 16))

    losses = encoder_losses(student, teacher, SQUARE, 64, align=align)
    losses["embedding"].total.backward()

    assert losses.keys() == {"embedding"}  # levels of different widths are not compared
    assert value(losses["embedding"]) == 6.25  # (1 + 1 + 0.5) ** 2
    assert align.weight.grad.abs().min() > 0


def test_cells_of_all_images_count_alike():
    student = features(torch.zeros(2, 1, 4, 4))
    teacher = torch.zeros(2, 1, 4, 4)
    teacher[0], teacher[1, :, :2] = 1.0, 2.0  # 16 cells of error 1, 8 cells of error 4

    losses = encoder_losses(student, features(teacher), torch.cat([SQUARE, WIDE]), 64)

    assert value(losses["embedding"]) == 2.0  # (16 + 32) / 24
