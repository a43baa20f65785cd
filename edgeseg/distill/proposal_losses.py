"""Stage 3, region proposals: which cell should propose which object, and the losses of one batch.

An object belongs to one level, by its longer side, and there to the cells around the centre of its
box. Every object has the cell nearest to its centre, unless a smaller object has the same one. A
click on it belongs to the cell that holds the click, which learns its box as well, and that among
the cells of all levels there its own is meant.

Sources: levels by size and centre sampling, FCOS (Tian et al. 2019, arXiv:1904.01355); focal loss,
Lin et al. 2017, arXiv:1708.02002; generalised IoU, Rezatofighi et al. 2019, arXiv:1902.09630.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from edgeseg.distill.losses import Mean
from edgeseg.modeling.proposal_head import ProposalOutput, cells_at
from edgeseg.signature import PROPOSAL_STRIDES

MAX_CELLS_A_SIDE = 6
"""Longer side of the largest object of a level, in its cells; the last level has no limit."""
CENTER_RADIUS = 1.5
"""How far from an object's centre a cell may be to propose it, in cells along x and y."""


@dataclass(frozen=True)
class Assignment:
    """Which cells of one image propose which objects.

    Attributes:
        cells: (K,) int64, indices of cells.
        objects: (K,) int64, the object each of them proposes.
    """

    cells: Tensor
    objects: Tensor


def assign_cells(centers_xy: Tensor, strides: Tensor, boxes_xyxy: Tensor) -> Assignment:
    """Choose the cells that should propose each object of an image.

    Args:
        centers_xy: (A, 2) float, centres of the cells in model pixels.
        strides: (A, 1) float, sides of the cells.
        boxes_xyxy: (M, 4) float, boxes of the objects in model pixels; M may be 0.
    """
    if not len(boxes_xyxy):
        none = torch.zeros(0, dtype=torch.int64, device=centers_xy.device)
        return Assignment(none, none)
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    middle = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    away = (centers_xy[:, None] - middle).abs().amax(dim=2)  # (A, M), model pixels
    on_level = strides == _level_strides(sides.amax(dim=1))  # (A, M)
    to_edges = torch.cat(
        [centers_xy[:, None] - boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - centers_xy[:, None]], dim=2
    )
    is_inside = to_edges.amin(dim=2) > 0
    nearest = away.masked_fill(~on_level, torch.inf).argmin(dim=0)  # (M,)
    is_nearest = torch.zeros_like(on_level)
    is_nearest[nearest, torch.arange(len(nearest), device=nearest.device)] = True
    may = (on_level & is_inside & (away < CENTER_RADIUS * strides)) | is_nearest
    area = sides.prod(dim=1)
    # The smallest object takes a cell, but first those that have no nearer one.
    cost = area.expand(len(centers_xy), -1).masked_fill(~may, torch.inf)
    cost = torch.where(is_nearest, cost - area.max() - 1, cost)
    best, objects = cost.min(dim=1)
    cells = torch.nonzero(best < torch.inf).squeeze(1)
    return Assignment(cells, objects[cells])


def _level_strides(longest: Tensor) -> Tensor:
    """Return (M,) float, the stride of the level that proposes objects of these sides."""
    strides = torch.tensor(PROPOSAL_STRIDES, dtype=longest.dtype, device=longest.device)
    return strides[object_levels(longest)]


def object_levels(longest: Tensor) -> Tensor:
    """Return (M,) int64, the level that proposes objects whose longer side has these model pixels.

    >>> object_levels(torch.tensor([48.0, 49.0, 1000.0])).tolist()
    [0, 1, 3]
    """
    limits = MAX_CELLS_A_SIDE * torch.tensor(PROPOSAL_STRIDES[:-1], device=longest.device)
    return torch.bucketize(longest, limits.to(longest.dtype))


def click_losses(
    output: ProposalOutput,
    image_size: int,
    boxes_xyxy: Sequence[Tensor],
    points_xy: Sequence[Tensor],
) -> dict[str, Mean]:
    """Compare what cells say of a click with the object that was meant.

    Args:
        output: Of B images.
        image_size: Side S of the input, in pixels.
        boxes_xyxy: B times (M, 4) float, in model pixels; M may differ.
        points_xy: B times (M, 2) float, a click on each of these objects, in model pixels.

    Returns:
        "click_level" (cross-entropy of the level) and "click_box" (generalised IoU of the box that
        the cell of the right level gives), both counted by clicks.
    """
    logits, levels, ours, theirs = [], [], [], []
    for index, (boxes, points) in enumerate(zip(boxes_xyxy, points_xy, strict=True)):
        if not len(boxes):
            continue
        cells = cells_at(points, image_size)  # (M, L)
        level = object_levels((boxes[:, 2:] - boxes[:, :2]).amax(dim=1))
        logits.append(output.click_logits[index][cells])
        levels.append(level)
        ours.append(output.boxes_xyxy[index][cells.gather(1, level[:, None]).squeeze(1)])
        theirs.append(boxes)
    if not logits:
        nothing = 0 * output.click_logits.sum()
        return dict.fromkeys(("click_level", "click_box"), Mean(nothing, nothing.detach()))
    count = torch.tensor(float(sum(map(len, levels))), device=output.click_logits.device)
    entropy = F.cross_entropy(torch.cat(logits), torch.cat(levels), reduction="sum")
    giou = generalized_box_iou_loss(torch.cat(ours), torch.cat(theirs), reduction="sum")
    return {"click_level": Mean(entropy, count), "click_box": Mean(giou, count)}


def proposal_losses(
    output: ProposalOutput, centers_xy: Tensor, strides: Tensor, boxes_xyxy: Sequence[Tensor]
) -> dict[str, Mean]:
    """Compare the proposals of a batch with its objects.

    Args:
        output: Of B images and A cells.
        centers_xy: (A, 2) float, centres of the cells in model pixels.
        strides: (A, 1) float, sides of the cells.
        boxes_xyxy: B times (M, 4) float, in model pixels; M may differ.

    Returns:
        "center" (focal loss), "box" (generalised IoU) and "iou" (cross-entropy of the predicted
        IoU), all counted by the cells that propose something.
    """
    wanted = torch.zeros_like(output.center_logits)
    proposed, targets, iou_logits = [], [], []
    for index, boxes in enumerate(boxes_xyxy):
        found = assign_cells(centers_xy, strides, boxes)
        wanted[index, found.cells] = 1
        proposed.append(output.boxes_xyxy[index, found.cells])
        iou_logits.append(output.iou_logits[index, found.cells])
        targets.append(boxes[found.objects])
    ours, theirs = torch.cat(proposed), torch.cat(targets)
    count = wanted.sum()
    focal = sigmoid_focal_loss(output.center_logits, wanted, reduction="sum")
    reached = box_iou(ours.detach(), theirs).diagonal().clamp(0, 1)
    return {
        "center": Mean(focal, count),
        "box": Mean(generalized_box_iou_loss(ours, theirs, reduction="sum"), count),
        "iou": Mean(
            F.binary_cross_entropy_with_logits(torch.cat(iou_logits), reached, reduction="sum"),
            count,
        ),
    }
