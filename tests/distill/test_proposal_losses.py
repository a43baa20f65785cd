import math

import pytest
import torch

from edgeseg.distill.proposal_losses import assign_cells, click_losses, proposal_losses
from edgeseg.modeling.proposal_head import ProposalOutput, level_cells

CENTERS_XY, STRIDES = level_cells(128)  # 16, 8, 4 and 2 cells a side


def cells_of(*boxes):
    """Return, for each box, the centres of the cells that propose it and their stride."""
    found = assign_cells(CENTERS_XY, STRIDES, torch.tensor(boxes).float().reshape(-1, 4))
    answer = [[] for _ in boxes]
    for cell, index in zip(found.cells, found.objects, strict=True):
        answer[index].append((STRIDES[cell].item(), *CENTERS_XY[cell].tolist()))
    return answer


def test_a_small_object_belongs_to_the_cells_around_its_centre_on_the_finest_level():
    (cells,) = cells_of([44, 64, 76, 88])  # 32 x 24, centre (60, 76), which is a cell's centre

    around = {(8, x, y) for x in (52, 60, 68) for y in (68, 76, 84)}
    assert set(cells) == around


def test_cells_outside_the_object_do_not_propose_it():
    (cells,) = cells_of([56, 50, 64, 92])  # 8 px wide: one column of cells, centre (60, 71)

    assert {x for _, x, _ in cells} == {60}
    assert {y for *_, y in cells} == {60, 68, 76}


@pytest.mark.parametrize(("side", "stride"), [(48, 8), (49, 16), (96, 16), (97, 32), (128, 32)])
def test_the_longer_side_decides_on_the_level(side, stride):
    for box in ([0, 0, side, 20], [0, 0, 20, side]):
        (cells,) = cells_of(box)

        assert {level for level, *_ in cells} == {stride}


def test_an_object_larger_than_every_level_belongs_to_the_coarsest():
    centers_xy, strides = level_cells(512)
    found = assign_cells(centers_xy, strides, torch.tensor([[0.0, 0.0, 500.0, 200.0]]))

    assert set(strides[found.cells].flatten().tolist()) == {64}


def test_an_object_between_all_centres_still_has_the_nearest_cell():
    (cells,) = cells_of([62, 30, 65, 33])  # 3 px wide, centre (63.5, 31.5); cells at 60 and 68

    assert cells == [(8, 60, 28)]


def test_the_smaller_of_two_objects_takes_the_cell_but_not_the_other_ones_nearest():
    small, large = cells_of([52, 60, 68, 76], [44, 52, 88, 84])  # centres (60, 68) and (66, 68)

    assert (8, 60, 68) in small
    assert (8, 68, 68) in large  # its nearest, though it is inside the small one's radius


def test_no_object_no_cell():
    found = assign_cells(CENTERS_XY, STRIDES, torch.zeros(0, 4))

    assert len(found.cells) == len(found.objects) == 0


def answers(batch, boxes=None, center=-20.0, iou=0.0):
    total = len(CENTERS_XY)
    everywhere = torch.zeros(batch, total, 4) if boxes is None else boxes
    return ProposalOutput(
        everywhere.requires_grad_(),
        torch.full((batch, total), center).requires_grad_(),
        torch.full((batch, total), iou).requires_grad_(),
        torch.zeros(batch, total).requires_grad_(),
    )


def test_a_perfect_answer_costs_nothing():
    box = torch.tensor([44.0, 64.0, 76.0, 88.0])
    output = answers(1, box.expand(1, len(CENTERS_XY), 4).clone(), iou=20.0)
    cells = assign_cells(CENTERS_XY, STRIDES, box[None]).cells
    with torch.no_grad():
        output.center_logits[0, cells] = 20.0

    losses = proposal_losses(output, CENTERS_XY, STRIDES, (box[None],))

    assert {name: mean.count.item() for name, mean in losses.items()} == dict.fromkeys(losses, 9)
    for mean in losses.values():
        assert mean.total.item() == pytest.approx(0, abs=1e-5)


def test_the_predicted_iou_follows_the_box_that_was_proposed():
    target = torch.tensor([44.0, 64.0, 76.0, 88.0])
    half = torch.tensor([44.0, 64.0, 60.0, 88.0])  # IoU 1/2, GIoU loss 1/2
    output = answers(1, half.expand(1, len(CENTERS_XY), 4).clone())

    losses = proposal_losses(output, CENTERS_XY, STRIDES, (target[None],))

    assert losses["box"].total.item() == pytest.approx(9 * 0.5)
    losses["iou"].total.backward()
    assert not output.iou_logits.grad.any()  # the logit 0 says 1/2 already
    assert output.boxes_xyxy.grad is None  # and boxes do not learn from it


def test_images_without_objects_teach_what_background_is():
    output = answers(2, center=0.0)
    boxes = torch.tensor([[44.0, 64.0, 76.0, 88.0]])

    losses = proposal_losses(output, CENTERS_XY, STRIDES, (torch.zeros(0, 4), boxes))

    assert losses["center"].count.item() == 9
    losses["center"].total.backward()
    assert (output.center_logits.grad[0] > 0).all()
    assert (output.center_logits.grad[1] < 0).sum() == 9


def test_a_batch_without_any_object_counts_nothing():
    losses = proposal_losses(answers(1), CENTERS_XY, STRIDES, (torch.zeros(0, 4),))

    assert all(mean.count.item() == 0 for mean in losses.values())
    assert all(torch.isfinite(mean.total) for mean in losses.values())


def test_a_click_learns_its_level_among_the_cells_that_hold_it():
    output = answers(1)
    box, point = torch.tensor([[0.0, 0.0, 60.0, 30.0]]), torch.tensor([[20.0, 9.0]])  # level 1

    losses = click_losses(output, 128, [box], [point])

    assert losses["click_level"].count.item() == 1
    assert losses["click_level"].total.item() == pytest.approx(math.log(4))  # all levels equal
    losses["click_level"].total.backward()
    gradient = output.click_logits.grad[0]
    under = [1 * 16 + 2, 256 + 0 * 8 + 1, 256 + 64, 256 + 64 + 16]
    assert torch.nonzero(gradient).flatten().tolist() == under
    assert gradient[under].tolist() == pytest.approx([0.25, -0.75, 0.25, 0.25])


def test_the_cell_under_a_click_learns_the_box_of_its_level():
    box, point = torch.tensor([[0.0, 0.0, 60.0, 30.0]]), torch.tensor([[20.0, 9.0]])
    everywhere = torch.zeros(1, len(CENTERS_XY), 4)
    everywhere[0, 256 + 1] = torch.tensor([0.0, 0.0, 30.0, 30.0])  # half of the object

    losses = click_losses(answers(1, everywhere), 128, [box], [point])

    assert losses["click_box"].total.item() == pytest.approx(0.5)


def test_clicks_of_all_images_count_the_same_and_images_without_any_do_not():
    box, point = torch.tensor([[0.0, 0.0, 60.0, 30.0]]), torch.tensor([[20.0, 9.0]])
    none = torch.zeros(0, 4), torch.zeros(0, 2)

    three = click_losses(
        answers(3), 128, [box, none[0], box.repeat(2, 1)], [point, none[1], point.repeat(2, 1)]
    )
    nothing = click_losses(answers(1), 128, [none[0]], [none[1]])

    assert three["click_level"].count.item() == 3
    assert three["click_level"].total.item() == pytest.approx(3 * math.log(4))
    assert nothing["click_box"].count.item() == 0
