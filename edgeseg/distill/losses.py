"""What a student is asked to minimise.

Sources: the masked embedding error and 5 x BCE + 5 x Dice over all mask tokens, Zhou et al. 2023,
EdgeSAM, arXiv:2312.06660; the smallest loss among the answers to an ambiguous prompt and the IoU
head's squared error, Kirillov et al. 2023, arXiv:2304.02643; uncertain points, Kirillov et al.
2020, PointRend, arXiv:1912.08193.

Losses come as sums with their counts, so that ranks of different size can be joined exactly.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Mean(NamedTuple):
    """A mean that is not divided yet.

    Attributes:
        total: Scalar, sum over the elements.
        count: Scalar, number of elements.
    """

    total: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which no sum needs


def content_mask(content_hw: Tensor, image_size: int, grid_hw: tuple[int, int]) -> Tensor:
    """Mark the cells that lie on image content rather than on padding.

    Args:
        content_hw: (B, 2) int64, unpadded height and width in model pixels.
        image_size: Side S of the padded square model input, in pixels.
        grid_hw: Rows and columns of the grid.

    Returns:
        (B, 1, *grid_hw) bool, true where the centre of the cell is inside the content.
    """
    rows, cols = grid_hw
    center_y = (torch.arange(rows, device=content_hw.device) + 0.5) * image_size / rows  # px
    center_x = (torch.arange(cols, device=content_hw.device) + 0.5) * image_size / cols  # px
    inside_y = center_y < content_hw[:, 0, None]  # (B, rows)
    inside_x = center_x < content_hw[:, 1, None]  # (B, cols)
    return (inside_y[:, :, None] & inside_x[:, None, :]).unsqueeze(1)


def masked_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Mean:
    """Mean squared error over the cells where `mask` is true.

    Args:
        student: (B, C, H, W) float.
        teacher: (B, C, H, W) float.
        mask: (B, 1, H, W) bool.
    """
    squared_error = (student - teacher).square().mean(dim=1, keepdim=True)  # (B, 1, H, W)
    return Mean((squared_error * mask).sum(), mask.sum().to(student.dtype))


@dataclass(frozen=True)
class MaskLossWeights:
    """Weights of the parts of a mask loss.

    Attributes:
        bce: Weight of the binary cross-entropy.
        dice: Weight of the Dice loss.
        balance: Give the mask's own pixels half of the cross-entropy's weight, however few.
    """

    bce: float = 5.0
    dice: float = 5.0
    balance: bool = False


def mask_losses(logits: Tensor, targets: Tensor, valid: Tensor, weights: MaskLossWeights) -> Tensor:
    """Compare masks pixel by pixel.

    Args:
        logits: (T, M, N) float, N pixels or points of M masks for each of T prompts.
        targets: (T, M or 1, N) bool.
        valid: (T, 1, N) bool, false on padding.
        weights: Of cross-entropy and Dice.

    Returns:
        (T, M) float, the weighted loss of each mask.
    """
    wanted = targets.to(logits.dtype)
    weight = valid.to(logits.dtype)
    if weights.balance:
        weight = weight * _balanced(wanted, weight)
    entropy = F.softplus(logits) - logits * wanted  # = BCE with logits
    bce = (entropy * weight).sum(-1) / weight.sum(-1).clamp(min=1e-6)
    probability = logits.sigmoid() * valid
    wanted = wanted * valid
    overlap = 2 * (probability * wanted).sum(-1) + 1
    dice = 1 - overlap / (probability.sum(-1) + wanted.sum(-1) + 1)
    return weights.bce * bce + weights.dice * dice


def _balanced(wanted: Tensor, valid: Tensor) -> Tensor:
    """Return weights that give pixels on and off the mask the same sum; (T, M, N)."""
    on = (wanted * valid).sum(-1, keepdim=True)
    off = ((1 - wanted) * valid).sum(-1, keepdim=True)
    half = (on + off) / 2
    return torch.where(wanted > 0, half / on.clamp(min=1), half / off.clamp(min=1))


def uncertain_points(
    logits: Tensor, valid: Tensor, uniform: Tensor, num_points: int, share: float
) -> Tensor:
    """Choose pixels where the student hesitates, and some at random.

    Args:
        logits: (T, N) float, the student's logits of one mask a prompt.
        valid: (T, N) bool, false on padding.
        uniform: (T, N) float32 random numbers in [0, 1).
        num_points: Pixels to choose a prompt; at most all N.
        share: Share of them chosen by uncertainty, among three times as many candidates.

    Returns:
        (T, num_points) int64 pixel indices; padding only where too little else is left.
    """
    num_points = min(num_points, logits.shape[1])
    num_uncertain = round(num_points * share)
    allowed = torch.where(valid, uniform, -1.0)
    candidates = allowed.topk(min(3 * num_points, logits.shape[1]), dim=1).indices
    doubt = -logits.detach().abs().gather(1, candidates)
    doubt = torch.where(valid.gather(1, candidates), doubt, -torch.inf)
    uncertain = candidates.gather(1, doubt.topk(num_uncertain, dim=1).indices)
    return torch.cat([uncertain, candidates[:, : num_points - num_uncertain]], dim=1)


def distilled_masks(losses: Tensor) -> Mean:
    """Join the (T, 4) losses against a teacher's four masks: every token answers like its own."""
    return Mean(losses.sum() / losses.shape[1], torch.full_like(losses.sum(), len(losses)))


def ground_truth_masks(losses: Tensor) -> Mean:
    """Join the (T, 4) losses against one true mask.

    Token 0 has to be right; of the three answers to an ambiguous prompt the best one counts.
    """
    per_prompt = (losses[:, 0] + losses[:, 1:].min(dim=1).values) / 2
    return Mean(per_prompt.sum(), torch.full_like(losses.sum(), len(losses)))


def score_error(scores: Tensor, wanted: Tensor) -> Mean:
    """Squared error of (T, 4) predicted IoUs."""
    error = (scores - wanted.detach()).square()
    return Mean(error.sum(), torch.full_like(error.sum(), error.numel()))


@torch.no_grad()
def true_iou(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """IoU of (T, M, N) masks, logits above zero, with (T, M or 1, N) targets: (T, M).

    Two empty masks agree: their IoU is one.
    """
    predicted = (logits > 0) & valid
    wanted = targets & valid
    overlap = (predicted & wanted).sum(-1)
    union = (predicted | wanted).sum(-1)
    return torch.where(union > 0, overlap / union.clamp(min=1), 1.0)
