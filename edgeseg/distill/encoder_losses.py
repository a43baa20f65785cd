"""Stage 1, the encoder alone: the losses of one batch.

Source: Zhou et al. 2023, EdgeSAM, arXiv:2312.06660: masked mean squared error between the image
embeddings. What is added here: student and teacher may have different grids and widths, and a
teacher's high-resolution features are followed too, when the student has them.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.distill.losses import Mean, content_mask, masked_mse
from edgeseg.modeling.promptable import ImageFeatures

Grid = Literal["student", "teacher"]


def on_one_grid(student: Tensor, teacher: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Bring (B, C, h, w) and (B, C, H, W) embeddings to the grid of one of them.

    The finer one is averaged over areas, the coarser one is upsampled bilinearly.
    """
    if student.shape[-2:] == teacher.shape[-2:]:
        return student, teacher
    if grid == "student":
        return student, resized(teacher, (student.shape[-2], student.shape[-1]))
    return resized(student, (teacher.shape[-2], teacher.shape[-1])), teacher


def resized(features: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize (B, C, H, W) features: average areas to shrink, bilinear to grow."""
    if size_hw[0] <= features.shape[-2]:
        return F.interpolate(features, size=size_hw, mode="area")
    return F.interpolate(features, size=size_hw, mode="bilinear", align_corners=False)


def encoder_losses(
    student: ImageFeatures,
    teacher: ImageFeatures,
    content_hw: Tensor,
    image_size: int,
    grid: Grid = "student",
    align: nn.Module | None = None,
) -> dict[str, Mean]:
    """Return the parts of the stage 1 loss.

    Args:
        student: Features of B images.
        teacher: The teacher's features of the same images.
        content_hw: (B, 2) int64, unpadded height and width in the student's pixels.
        image_size: Side S of the student's input, in pixels.
        grid: Whose grid the embeddings are compared on.
        align: Maps the student's width to the teacher's where they differ; training only.

    Returns:
        "embedding" and, when both networks have them in the same widths, "high_res".
    """
    embedding = student.embedding if align is None else align(student.embedding)
    mine, wanted = on_one_grid(embedding.float(), teacher.embedding.float(), grid)
    mask = content_mask(content_hw, image_size, (mine.shape[-2], mine.shape[-1]))
    losses = {"embedding": masked_mse(mine, wanted, mask)}
    if student.high_res is None or teacher.high_res is None or align is not None:
        return losses
    parts = []
    for level, followed in zip(student.high_res, teacher.high_res, strict=True):
        mine, wanted = on_one_grid(level.float(), followed.float(), grid)
        mask = content_mask(content_hw, image_size, (mine.shape[-2], mine.shape[-1]))
        parts.append(masked_mse(mine, wanted, mask))
    # Per-level means, so that stride 4 with its 4 times as many cells does not outweigh stride 8.
    scale = parts[0].count / parts[1].count.clamp(min=1)
    losses["high_res"] = Mean((parts[0].total + parts[1].total * scale) / 2, parts[0].count)
    return losses
