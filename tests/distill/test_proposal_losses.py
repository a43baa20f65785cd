import pytest
import torch

from edgeseg.distill.proposal_losses import assign_cells, proposal_losses
from edgeseg.modeling.proposal_head import ProposalOutput, level_cells, level_sizes

CENTERS_XY, STRIDES = level_cells(level_sizes(128))  # 16, 8, 4 and 2 cells a side


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
    centers_xy, strides = level_cells(level_sizes(512))
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
