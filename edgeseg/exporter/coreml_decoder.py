"""The mask decoder for Core ML: the same numbers as training's, in another layout.

Tokens are (N, D, 1, T) and cells (N, D, 1, HW). What training keeps channels-last for speed on a
CPU, and what it shares among the prompts of an image, is undone here: a device decodes few prompts
a call, and wants convolutions.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.exporter.coreml_layers import (
    ABSENT_SCORE,
    ChannelAttention,
    ChannelNorm,
    pointwise,
    pointwise_mlp,
)
from edgeseg.modeling.layers import MLP, LayerNorm2d
from edgeseg.modeling.mask_decoder import NUM_MASK_TOKENS, MaskDecoder
from edgeseg.modeling.mask_refinement import MaskRefinement
from edgeseg.modeling.transformer import TwoWayAttentionBlock, TwoWayTransformer

_LONGEST_SIDE = 16384
"""The Neural Engine takes no tensor with a longer dimension."""
_NUM_OWN = 1 + NUM_MASK_TOKENS


class TwoWayBlockGraph(nn.Module):
    """One block of the two-way transformer.

    Args:
        block: Of the network.
    """

    def __init__(self, block: TwoWayAttentionBlock) -> None:
        super().__init__()
        self.self_attn = ChannelAttention(block.self_attn)
        self.tokens_to_image = ChannelAttention(block.cross_attn_token_to_image)
        self.image_to_tokens = ChannelAttention(block.cross_attn_image_to_token)
        norms = (block.norm1, block.norm2, block.norm3, block.norm4)
        self.norm1, self.norm2, self.norm3, self.norm4 = map(ChannelNorm, norms)
        self.mlp = nn.Sequential(pointwise(block.mlp.lin1), nn.ReLU(), pointwise(block.mlp.lin2))
        self.first = block.first

    def forward(
        self, tokens: Tensor, own: Tensor, cells: Tensor, position: Tensor, absent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update (N, D, 1, T) tokens and (N, D, 1, HW) cells, given what places them."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, absent)
        else:
            placed = tokens + own
            tokens = tokens + self.self_attn(placed, placed, tokens, absent)
        tokens = self.norm1(tokens)
        answer = self.tokens_to_image(tokens + own, cells + position, cells)
        tokens = self.norm2(tokens + answer)
        tokens = self.norm3(tokens + self.mlp(tokens))
        update = self.image_to_tokens(cells + position, tokens + own, tokens, absent)
        return tokens, self.norm4(cells + update)


class TransformerGraph(nn.Module):
    """The two-way transformer.

    Args:
        transformer: Of the network.
        position: (1, HW, D), positional encoding of the cells.
    """

    position: Tensor

    def __init__(self, transformer: TwoWayTransformer, position: Tensor) -> None:
        super().__init__()
        layers = (cast(TwoWayAttentionBlock, layer) for layer in transformer.layers)
        self.layers = nn.ModuleList(map(TwoWayBlockGraph, layers))
        self.final = ChannelAttention(transformer.final_attn_token_to_image)
        self.norm_final = ChannelNorm(transformer.norm_final_attn)
        self.register_buffer("position", position.detach().transpose(1, 2)[:, :, None].contiguous())

    def forward(self, tokens: Tensor, cells: Tensor, absent: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, D, 1, T) tokens and (N, D, 1, HW) cells."""
        own = tokens
        for layer in self.layers:
            tokens, cells = layer(tokens, own, cells, self.position, absent)
        answer = self.final(tokens + own, cells + self.position, cells)
        return self.norm_final(tokens + answer), cells


class RefinementGraph(nn.Module):
    """The last look at the prompt, as an addition to the upscaled features.

    Training applies its last convolution to the kernels of the masks; here it stays where it is.

    Args:
        refinement: Of the network.
        takes_masks: Whether drawings have a channel for a mask prompt.
    """

    def __init__(self, refinement: MaskRefinement, takes_masks: bool) -> None:
        super().__init__()
        self.reduce, self.mix, self.out = refinement.reduce, refinement.mix, refinement.out
        prompt = refinement.prompt
        num_channels = prompt.in_channels - (not takes_masks)
        self.prompt = nn.Conv2d(num_channels, prompt.out_channels, 1, bias=False)
        self.prompt.weight = nn.Parameter(prompt.weight.detach()[:, :num_channels].contiguous())

    def forward(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Return (N, C, 4H, 4W) features, with (N, 6 or 7, 4H, 4W) drawings looked at."""
        return x + self.out(F.gelu(self.mix(self.reduce(x) + self.prompt(drawn))))


class MaskDecoderGraph(nn.Module):
    """Tokens and cells to masks and scores.

    Args:
        decoder: Of the network.
        position: (1, HW, D), positional encoding of the cells.
        takes_masks: Whether drawings have a channel for a mask prompt.
    """

    own: Tensor

    def __init__(self, decoder: MaskDecoder, position: Tensor, takes_masks: bool) -> None:
        super().__init__()
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach()
        self.register_buffer("own", own.T.clone()[None, :, None])  # (1, D, 1, 5)
        self.transformer = TransformerGraph(decoder.transformer, position)
        first, norm, _, second, _ = decoder.output_upscaling
        self.first, self.second = first, second
        self.norm = ChannelNorm(cast(LayerNorm2d, norm))
        self.kernels = nn.ModuleList(
            pointwise_mlp(cast(MLP, mlp)) for mlp in decoder.output_hypernetworks_mlps
        )
        self.scores = pointwise_mlp(decoder.iou_prediction_head)
        self.refinement = None
        if decoder.refinement is not None:
            self.refinement = RefinementGraph(decoder.refinement, takes_masks)

    def forward(
        self,
        cells: Tensor,
        prompt_tokens: Tensor,
        absent: Tensor,
        high_res: tuple[Tensor, ...],
        drawn: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Decode (N, D, H, W) cells and (N, D, 1, P + 1) tokens of prompts.

        Args:
            cells: Image embedding with what the prompts add to it.
            prompt_tokens: One token a slot.
            absent: (N, 1, 1, P + 1), 1 where a slot is to take no part.
            high_res: Features at strides 8 and 4, or none.
            drawn: Prompts at the resolution of the masks, for a decoder that refines.

        Returns:
            (N, 4, 4H, 4W) mask logits and (N, 4) scores.
        """
        num, side = prompt_tokens.shape[0], cells.shape[3]
        tokens = torch.cat([self.own.expand(num, -1, -1, -1), prompt_tokens], dim=3)
        bias = F.pad(ABSENT_SCORE * absent, (_NUM_OWN, 0))
        flat = cells.reshape(cells.shape[0], cells.shape[1], 1, -1)
        tokens, flat = self.transformer(tokens, flat, bias)

        features = self._upscaled(flat.reshape(num, -1, side, side), high_res)
        if self.refinement is not None:
            features = self.refinement(features, drawn)
        answers = tokens[..., :_NUM_OWN].split(1, dim=3)  # (N, D, 1, 1) each
        kernels = [mlp(answer) for mlp, answer in zip(self.kernels, answers[1:], strict=True)]
        masks = apply_kernels(torch.cat(kernels, dim=3), features)
        return masks, self.scores(answers[0]).reshape(num, -1)

    def _upscaled(self, x: Tensor, high_res: tuple[Tensor, ...]) -> Tensor:
        x = self.norm(self.first(x))
        if high_res:
            x = x + high_res[0]
        x = self.second(F.gelu(x))
        if high_res:
            x = x + high_res[1]
        return F.gelu(x)


def apply_kernels(kernels: Tensor, features: Tensor) -> Tensor:
    """Apply (N, C, 1, 4) kernels to (N, C, 4H, 4W) features: (N, 4, 4H, 4W).

    As many rows go into one product as the length of a dimension allows.
    """
    num, channels, rows, cols = features.shape
    divisors = (count for count in range(1, rows + 1) if rows % count == 0)
    groups = next(count for count in divisors if rows // count * cols <= _LONGEST_SIDE)
    cells = features.reshape(num, channels, groups, -1).transpose(1, 2)  # (N, G, C, cells / G)
    masks = kernels.permute(0, 2, 3, 1) @ cells  # (N, G, 4, cells / G)
    return masks.transpose(1, 2).reshape(num, -1, rows, cols)
