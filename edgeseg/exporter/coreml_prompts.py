"""Prompts for Core ML graphs: tokens, additions to the image embedding, and drawings of them."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.exporter.coreml_geometry import KINDS, PromptDrawing, PromptProfiles, SlotKinds
from edgeseg.exporter.coreml_layers import ChannelNorm
from edgeseg.modeling.layers import LayerNorm2d
from edgeseg.modeling.mask_refinement import LOGIT_SCALE
from edgeseg.modeling.prompt_encoder import PromptEncoder
from edgeseg.prompts import PADDING

_SUREST_LOGIT = 512.0
"""Mask prompts are cut off here, beyond any doubt, so that half precision cannot overflow."""


class PromptTokensGraph(nn.Module):
    """Slots and their encodings to tokens.

    Args:
        prompt_encoder: Of the network.
    """

    kinds: Tensor

    def __init__(self, prompt_encoder: PromptEncoder) -> None:
        super().__init__()
        embeddings = {PADDING: prompt_encoder.not_a_point_embed}
        embeddings |= {
            k: cast(nn.Embedding, e) for k, e in enumerate(prompt_encoder.point_embeddings)
        }
        kinds = torch.cat([embeddings[kind].weight.detach() for kind in KINDS])  # (5, D)
        self.register_buffer("kinds", kinds.T.clone()[:, :, None, None])

    def forward(self, encoding: Tensor, slots: SlotKinds) -> Tensor:
        """Return (N, D, 1, P + 1) tokens of (N, D, 1, P + 1) encoded positions."""
        return encoding + F.conv2d(slots.kinds, self.kinds)


class DensePromptGraph(nn.Module):
    """What prompts add to the image embedding.

    Args:
        prompt_encoder: Of the network.
    """

    def __init__(self, prompt_encoder: PromptEncoder) -> None:
        super().__init__()
        steps = list(prompt_encoder.mask_downscaling)
        last = cast(nn.Conv2d, steps.pop())
        assert last.bias is not None
        self.downscaling = nn.Sequential(
            *(ChannelNorm(step) if isinstance(step, LayerNorm2d) else step for step in steps)
        )
        self.last = nn.Conv2d(last.in_channels, last.out_channels, 1, bias=False)
        self.last.weight = last.weight
        no_mask = prompt_encoder.no_mask_embed.weight[0].detach()
        self.constant = nn.Conv2d(1, len(no_mask), 1)
        replaces = last.bias.detach() - no_mask  # a mask takes the place of "no mask"
        self.constant.weight = nn.Parameter(replaces[:, None, None, None])
        self.constant.bias = nn.Parameter(no_mask.clone())
        self.prompt_map = prompt_encoder.prompt_map

    def forward(self, drawn: Tensor | None, masks: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return an addition that broadcasts to (N, D, H, W).

        Args:
            drawn: (N, 6, H, W), for an encoder with a prompt map.
            masks: (N, 1, 4H, 4W) logits and (N, 1, 1, 1) whether they count, or None.
        """
        assert self.constant.bias is not None
        dense: Tensor = self.constant.bias[None, :, None, None]
        if masks is not None:
            mask_logits, has_mask = masks
            mask_logits = mask_logits.clamp(-_SUREST_LOGIT, _SUREST_LOGIT)
            dense = self.constant(has_mask) + self.last(self.downscaling(mask_logits) * has_mask)
        if self.prompt_map is not None:
            assert drawn is not None
            dense = dense + self.prompt_map(drawn)
        return dense


class PromptMap(nn.Module):
    """Multiply the profiles of prompts out to maps.

    Args:
        image_size: Side S of the model input, in pixels.
        side: Rows and columns of the map, in cells.
    """

    ones: Tensor

    def __init__(self, image_size: int, side: int) -> None:
        super().__init__()
        self.drawing = PromptDrawing(image_size, side)
        self.register_buffer("ones", torch.ones(1, 1, side, side))

    def forward(
        self, points_xy: Tensor, slots: SlotKinds, masks: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Return (N, 6, side, side) as `draw_prompt_map`, and a seventh channel for a mask."""
        profiles: PromptProfiles = self.drawing(points_xy, slots)
        cover_x, cover_y = profiles.cover_xy.split(1, dim=1)  # (N, 1, 1, side) each
        offset_x, offset_y = profiles.offset_xy.split(1, dim=1)
        cover = cover_y.transpose(2, 3) * cover_x
        channels = [
            cover,
            cover * offset_x,
            cover * offset_y.transpose(2, 3),
            self.ones * profiles.has_box,
            profiles.near_y.transpose(2, 3) @ profiles.near_x,  # clicks on, then off the object
        ]
        if masks is not None:
            mask_logits, has_mask = masks
            channels.append((mask_logits * (1 / LOGIT_SCALE)).clamp(-1, 1) * has_mask)
        return torch.cat(channels, dim=1)
