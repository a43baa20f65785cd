"""Where are objects, before anyone has clicked? A detector without classes on the image features.

Every cell of four levels says how likely an object has its centre there, where the object's edges
are, and how well that box will fit. It also says how likely a click on it means an object of its
level rather than of another: a single click leaves that open, the image often does not. All of it
is convolution, depthwise separable, with norms that fold; what the whole image is like comes in as
the mean of its embedding.

Sources: anchor-free detection by distances to the four edges, FCOS (Tian et al. 2019,
arXiv:1904.01355), with a predicted IoU in the place of centerness (IoU-aware RetinaNet, Wu et al.
2019, arXiv:1912.05992); region proposals for a promptable segmenter, EdgeSAM (Zhou et al. 2023,
arXiv:2312.06660).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.modeling.reparam import ConvNorm
from edgeseg.signature import PROPOSAL_STRIDES

_PRIOR = 0.01
"""Share of cells that are taken for a centre before anything is learned (Lin et al. 2017)."""
_MAX_EXPONENT = 5.0
"""Edges are at most 148 strides away; far more than any image, and finite in float16."""


@dataclass(frozen=True)
class ProposalOutput:
    """What every cell of every level says; A cells in all, finest level first, row by row.

    Attributes:
        boxes_xyxy: (B, A, 4) float, x0 y0 x1 y1 in model pixels; may reach beyond the image.
        center_logits: (B, A) float, above zero where a centre is more likely than not.
        iou_logits: (B, A) float, logit of the IoU that the box is expected to have.
        click_logits: (B, A) float; their softmax over the cells of all levels that hold a click is
            the chance of each level to be meant.
    """

    boxes_xyxy: Tensor
    center_logits: Tensor
    iou_logits: Tensor
    click_logits: Tensor

    @property
    def scores(self) -> Tensor:
        """(B, A) float in 0..1, chance of an object times the IoU its box should have."""
        return self.center_logits.sigmoid() * self.iou_logits.sigmoid()


class ProposalHead(nn.Module):
    """Image features to boxes and confidences.

    Args:
        embed_dim: Width D of the embedding at stride 16.
        stride8_channels: Channels of the features at stride 8, or None for a model that gives
            none; the embedding, enlarged, is then all that the finest level sees.
        width: Channels of every level.
        depth: Separable convolutions of a level before its prediction.
    """

    def __init__(
        self, embed_dim: int, stride8_channels: int | None, width: int = 96, depth: int = 2
    ) -> None:
        super().__init__()
        self.embedding_lateral = ConvNorm(embed_dim, width, 1)
        self.context = nn.Conv2d(embed_dim, width, 1)
        self.stride8_lateral = ConvNorm(stride8_channels, width, 1) if stride8_channels else None
        self.downs = nn.ModuleList(_separable(width, stride=2) for _ in PROPOSAL_STRIDES[2:])
        self.towers = nn.ModuleList(
            nn.Sequential(*(_separable(width) for _ in range(depth))) for _ in PROPOSAL_STRIDES
        )
        self.predictions = nn.ModuleList(_prediction(width) for _ in PROPOSAL_STRIDES)

    def forward(self, embedding: Tensor, stride8: Tensor | None) -> ProposalOutput:
        """Propose boxes on a batch of images.

        Args:
            embedding: (B, D, H, H) float; H is a multiple of 4.
            stride8: (B, C, 2H, 2H) float, what the decoder's skip adds at stride 8, or None.
        """
        maps = self.maps(embedding, stride8)
        centers_xy, strides = level_cells(16 * embedding.shape[-1])
        rows = torch.cat([level.flatten(2) for level in maps], dim=2).transpose(1, 2)  # (B, A, 7)
        return read_rows(rows, centers_xy.to(rows), strides.to(rows))

    def maps(self, embedding: Tensor, stride8: Tensor | None) -> list[Tensor]:
        """Return (B, 7, rows, columns) of each level, before cells are read as boxes."""
        context = self.context(embedding.mean(dim=(2, 3), keepdim=True))
        stride16 = F.relu(self.embedding_lateral(embedding) + context)
        finest = F.interpolate(stride16, scale_factor=2.0, mode="bilinear", align_corners=False)
        if self.stride8_lateral is not None:
            finest = finest + self.stride8_lateral(stride8)
        levels = [finest, stride16]
        for down in self.downs:
            levels.append(down(levels[-1]))
        return [
            predict(tower(level))
            for level, tower, predict in zip(levels, self.towers, self.predictions, strict=True)
        ]


def read_rows(rows: Tensor, centers_xy: Tensor, strides: Tensor) -> ProposalOutput:
    """Read what the cells of all levels say.

    Args:
        rows: (B, A, 7) float; logarithms of the distances to the left, top, right and bottom edge
            in strides, centre logit, IoU logit, click logit.
        centers_xy: (A, 2) float, see `level_cells`.
        strides: (A, 1) float.
    """
    distances = rows[..., :4].clamp(-_MAX_EXPONENT, _MAX_EXPONENT).exp() * strides
    top_left = centers_xy - distances[..., :2]
    bottom_right = centers_xy + distances[..., 2:]
    return ProposalOutput(
        torch.cat([top_left, bottom_right], dim=-1), rows[..., 4], rows[..., 5], rows[..., 6]
    )


def level_cells(image_size: int) -> tuple[Tensor, Tensor]:
    """Return the cells of all levels, finest level first, row by row.

    Args:
        image_size: Side S of the square input, in pixels, a multiple of 64.

    Returns:
        (A, 2) float32 centres, x then y, and (A, 1) float32 strides, both in model pixels.

    >>> level_cells(64)[0][[0, 1, 8, 64, 84]].tolist()
    [[4.0, 4.0], [12.0, 4.0], [4.0, 12.0], [8.0, 8.0], [32.0, 32.0]]
    """
    centers, strides = [], []
    for stride in PROPOSAL_STRIDES:
        places = (torch.arange(image_size // stride) + 0.5) * stride
        y, x = torch.meshgrid(places, places, indexing="ij")
        centers.append(torch.stack([x, y], dim=-1).flatten(0, 1))
        strides.append(torch.full((x.numel(), 1), float(stride)))
    return torch.cat(centers), torch.cat(strides)


def cells_at(points_xy: Tensor, image_size: int) -> Tensor:
    """Return (M, L) int64, the cell of each level that holds each of (M, 2) points in model pixels.

    A point beyond the input belongs to the cell at its edge.

    >>> cells_at(torch.tensor([[9.0, 0.0]]), 64).tolist()
    [[1, 64, 80, 84]]
    """
    found, first = [], 0
    for stride in PROPOSAL_STRIDES:
        side = image_size // stride
        column, row = (points_xy / stride).floor().long().clamp(0, side - 1).unbind(1)
        found.append(first + row * side + column)
        first += side * side
    return torch.stack(found, dim=1)


def _separable(width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(width, width, 3, stride, groups=width),
        nn.ReLU(inplace=True),
        ConvNorm(width, width, 1),
        nn.ReLU(inplace=True),
    )


def _prediction(width: int) -> nn.Conv2d:
    conv = nn.Conv2d(width, 7, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        conv.bias[:4] = math.log(2.0)  # type: ignore[index]  # a box four strides wide
        conv.bias[4] = math.log(_PRIOR / (1 - _PRIOR))  # type: ignore[index]
    return conv
