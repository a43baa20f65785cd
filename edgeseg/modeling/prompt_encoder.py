"""Prompts to tokens and to a dense addition to the image embedding.

Source: Kirillov et al. 2023, Segment Anything, arXiv:2304.02643, with SAM's parameter names. Three
things differ. The batch is ragged and slots may be absent. The dense embedding stays in factored
form, so that what it adds to a projected image embedding costs a few channels instead of all. An
optional prompt map draws the prompt on the embedding grid, as interactive segmentation did before
SAM (Sofiiuk et al. 2021, arXiv:2102.06583); it starts at zero weight and helps little data.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import PromptError
from edgeseg.modeling.layers import LayerNorm2d
from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.prompts import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PADDING

PROMPT_MAP_CHANNELS = 6
"""Channels that `draw_prompt_map` draws."""


@dataclass(frozen=True)
class DensePrompt:
    """What prompts add to the image embedding, as `hidden @ weight.T`.

    Attributes:
        hidden: (T, HW, R) float, a few channels a cell.
        weight: (D, R) float, from those channels to the embedding width.
    """

    hidden: Tensor
    weight: Tensor


@dataclass(frozen=True)
class PromptTokens:
    """Encoded prompts.

    Attributes:
        sparse: (T, P + 1, D) float, one token a slot and one for SAM's padding point.
        absent: (T, P + 1) bool, slots that take no part in attention, or None if there are none.
        dense: What the prompts add to the image embedding, or None if nothing.
    """

    sparse: Tensor
    absent: Tensor | None
    dense: DensePrompt | None


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of a position (Tancik et al. 2020, arXiv:2006.10739).

    Args:
        num_features: Half the width of the embedding.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, num_features))

    def forward(self, unit_xy: Tensor) -> Tensor:
        """Map (..., 2) positions in [0, 1], x then y, to (..., 2 * num_features)."""
        along_x, along_y = self.positional_encoding_gaussian_matrix.unbind(0)
        signed_xy = 2 * unit_xy - 1
        # Written out, since autocast would round a matrix product to half precision, and sine and
        # cosine turn an error of the phase into another position.
        phase = signed_xy[..., :1] * along_x + signed_xy[..., 1:] * along_y
        phase = 2 * math.pi * phase
        return torch.cat([phase.sin(), phase.cos()], dim=-1)

    def grid(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return (1, H * W, D), the encoding of each cell's centre, row by row."""
        rows, cols = grid_hw
        matrix = self.positional_encoding_gaussian_matrix
        y = (torch.arange(rows, device=matrix.device, dtype=matrix.dtype) + 0.5) / rows
        x = (torch.arange(cols, device=matrix.device, dtype=matrix.dtype) + 0.5) / cols
        unit_xy = torch.stack([x.expand(rows, cols), y[:, None].expand(rows, cols)], dim=-1)
        return self(unit_xy).flatten(0, 1).unsqueeze(0)


class PromptEncoder(nn.Module):
    """Encode points, boxes and masks.

    Args:
        embed_dim: Width D of the tokens and of the image embedding.
        prompt_map_width: Hidden channels of the optional prompt map; None leaves it out.
        mask_width: Hidden channels of the mask prompt.
    """

    def __init__(
        self, embed_dim: int, prompt_map_width: int | None = None, mask_width: int = 16
    ) -> None:
        super().__init__()
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.no_mask_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_width // 4, 2, stride=2),
            LayerNorm2d(mask_width // 4),
            nn.GELU(),
            nn.Conv2d(mask_width // 4, mask_width, 2, stride=2),
            LayerNorm2d(mask_width),
            nn.GELU(),
            nn.Conv2d(mask_width, embed_dim, 1),
        )
        self.prompt_map: nn.Sequential | None = None
        if prompt_map_width is not None:
            last = nn.Conv2d(prompt_map_width, embed_dim, 1, bias=False)
            nn.init.zeros_(last.weight)
            first = nn.Conv2d(PROMPT_MAP_CHANNELS, prompt_map_width, 1)
            self.prompt_map = nn.Sequential(first, nn.GELU(), last)

    def forward(
        self,
        prompts: PromptBatch,
        image_size: int,
        grid_hw: tuple[int, int],
        add_padding_point: bool = True,
    ) -> PromptTokens:
        """Encode a batch of prompts.

        Args:
            prompts: Points, boxes and masks in the frame of the model input.
            image_size: Side S of the square model input, in pixels.
            grid_hw: Rows and columns of the image embedding.
            add_padding_point: Append the point (0, 0) with label -1 that SAM's predictor appends
                to prompts without a box. Turn it off when the caller has appended it.

        Returns:
            The tokens; their last slot is the padding point, absent where there is a box or where
            there are no points. Without `add_padding_point` there are P slots.

        Raises:
            PromptError: The mask prompts have another size than four times the grid.
        """
        points_xy, labels = prompts.points_xy, prompts.point_labels
        if add_padding_point:
            labels = F.pad(labels, (0, 1), value=ABSENT)
            largest = labels.amax(dim=1, keepdim=True)  # the labels of a box are above a point's
            needs_pad = (2 * largest - 1).abs() == 1  # it is 0 or 1
            pad = needs_pad.to(labels.dtype) * (PADDING - ABSENT) + ABSENT
            labels = torch.cat([labels[:, :-1], pad], dim=1)
            points_xy = F.pad(points_xy, (0, 0, 0, 1))
        absent = labels == ABSENT
        return PromptTokens(
            sparse=self._embed_points(points_xy / image_size, labels),
            absent=absent if _is_traced() or bool(absent.any()) else None,
            dense=self._dense(prompts, image_size, grid_hw),
        )

    def _embed_points(self, unit_xy: Tensor, labels: Tensor) -> Tensor:
        """Map (T, P, 2) positions and (T, P) labels to (T, P, D)."""
        kinds = [self.not_a_point_embed.weight, *(e.weight for e in self.point_embeddings)]
        names = torch.arange(PADDING, BOX_BOTTOM_RIGHT + 1, device=labels.device)
        one_hot = (labels[..., None] == names).to(unit_xy.dtype)  # (T, P, 5)
        position = self.pe_layer(unit_xy) * (labels >= 0)[..., None]
        return position + one_hot @ torch.cat(kinds)  # type: ignore[arg-type]

    def _dense(
        self, prompts: PromptBatch, image_size: int, grid_hw: tuple[int, int]
    ) -> DensePrompt | None:
        parts: list[tuple[Tensor, Tensor]] = []  # (T, HW, R) and (D, R) each
        if prompts.mask_logits is not None:
            parts.append(self._mask_part(prompts.mask_logits, prompts.has_mask, grid_hw))
        if self.prompt_map is not None:
            drawn = draw_prompt_map(prompts, image_size, grid_hw)
            hidden = self.prompt_map[:2](drawn).flatten(2).transpose(1, 2)  # (T, HW, R)
            last = cast(nn.Conv2d, self.prompt_map[2])
            parts.append((hidden, last.weight.flatten(1)))
        if not parts:
            return None
        hidden, weights = zip(*parts, strict=True)
        return DensePrompt(torch.cat(hidden, dim=2), torch.cat(weights, dim=1))

    def _mask_part(
        self, mask_logits: Tensor, has_mask: Tensor | None, grid_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        expected = (1, 4 * grid_hw[0], 4 * grid_hw[1])
        if tuple(mask_logits.shape[1:]) != expected:
            raise PromptError(
                f"mask_logits must be (T, {', '.join(map(str, expected))}) for this input size, "
                f"got {tuple(mask_logits.shape)}; pass low-res logits of the same input size"
            )
        hidden = self.mask_downscaling[:6](mask_logits).flatten(2).transpose(1, 2)  # (T, HW, R)
        hidden = F.pad(hidden, (0, 1), value=1.0)  # the last channel carries the bias
        if has_mask is not None:
            hidden = hidden * has_mask[:, None, None]
        last = cast(nn.Conv2d, self.mask_downscaling[6])
        assert last.bias is not None
        replaces = last.bias - self.no_mask_embed.weight[0]  # a mask takes the place of "no mask"
        return hidden, torch.cat([last.weight.flatten(1), replaces[:, None]], dim=1)


def _is_traced() -> bool:
    """Whether a graph is being recorded, which must not depend on the labels of one example."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]


def draw_prompt_map(prompts: PromptBatch, image_size: int, grid_hw: tuple[int, int]) -> Tensor:
    """Draw prompts on the embedding grid.

    Returns:
        (T, 6, H, W) float32: share of the cell inside the box; x and y offset to the box centre in
        box sizes, inside the box; whether there is a box; clicks on and off the object as Gaussians
        with a deviation of one cell.
    """
    (rows, cols), xy, labels = grid_hw, prompts.points_xy, prompts.point_labels
    cell_h, cell_w = image_size / rows, image_size / cols
    center_y = (torch.arange(rows, device=xy.device, dtype=xy.dtype) + 0.5) * cell_h
    center_x = (torch.arange(cols, device=xy.device, dtype=xy.dtype) + 0.5) * cell_w
    first = (labels == BOX_TOP_LEFT).to(xy.dtype)  # (T, P)
    last = (labels == BOX_BOTTOM_RIGHT).to(xy.dtype)
    has_box = first.sum(1)[:, None]  # (T, 1)
    x0, y0 = (xy * first[..., None]).sum(1).unsqueeze(2).unbind(1)  # (T, 1) each
    x1, y1 = (xy * last[..., None]).sum(1).unsqueeze(2).unbind(1)
    cover_x = _overlap(x0, x1, center_x, cell_w) * has_box
    cover_y = _overlap(y0, y1, center_y, cell_h) * has_box
    cover = cover_y[:, :, None] * cover_x[:, None, :]  # (T, H, W)
    offset_x = ((center_x - (x0 + x1) / 2) / (x1 - x0).clamp(1.0, float(image_size))).clamp(-1, 1)
    offset_y = ((center_y - (y0 + y1) / 2) / (y1 - y0).clamp(1.0, float(image_size))).clamp(-1, 1)
    near_y = torch.exp(-0.5 * ((center_y - xy[..., 1:]) / cell_h).square())  # (T, P, H)
    near_x = torch.exp(-0.5 * ((center_x - xy[..., :1]) / cell_w).square())  # (T, P, W)
    on = (labels == 1).to(xy.dtype)[..., None]
    off = (labels == 0).to(xy.dtype)[..., None]
    return torch.stack(
        [
            cover,
            cover * offset_x[:, None, :],
            cover * offset_y[:, :, None],
            has_box[:, :, None].expand_as(cover),
            (near_y * on).transpose(1, 2) @ near_x,
            (near_y * off).transpose(1, 2) @ near_x,
        ],
        dim=1,
    )


def _overlap(start: Tensor, end: Tensor, center: Tensor, cell: float) -> Tensor:
    """Return (T, n), the share of each cell that (T, 1) intervals cover along one axis."""
    first = center - cell / 2
    inside = (end - first).clamp(0.0, cell) - (start - first).clamp(0.0, cell)
    return F.relu(inside) / cell
