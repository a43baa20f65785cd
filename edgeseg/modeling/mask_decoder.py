"""Tokens and image embedding to four masks with their scores.

Source: Kirillov et al. 2023, Segment Anything, arXiv:2304.02643, with SAM's parameter names. The
transposed convolutions (kernel 2, stride 2) are matrix products, one per 2 x 2 output block, so the
upscaling runs channels-last; pixels are put into reading order right after each, while whole runs
of channels move, which costs far less than moving single pixels of the masks. High-resolution
skips add encoder features at stride 8 and 4 inside the upscaling, as HQ-SAM (Ke et al. 2023,
arXiv:2306.01567) and SAM 2 do; they start at zero, so SAM's weights answer as before.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.modeling.layers import MLP, LayerNorm2d
from edgeseg.modeling.mask_refinement import MaskRefinement
from edgeseg.modeling.prompt_batch import PromptGroups
from edgeseg.modeling.prompt_encoder import PromptTokens
from edgeseg.modeling.transformer import ImageTokens, TwoWayTransformer

NUM_MASK_TOKENS = 4
"""One token for the single answer and three for an ambiguous prompt."""


class MaskDecoder(nn.Module):
    """Decode prompts to mask logits and IoU scores.

    Args:
        embed_dim: Width D of the image embedding and of the tokens.
        mlp_dim: Hidden width of the transformer's MLPs.
        depth: Number of two-way blocks.
        num_heads: Heads of every attention.
        high_res_channels: Channels of the encoder's features at stride 8 and stride 4 for the
            high-resolution skips, or None to leave the skips out.
        refine: Look at the prompt once more at the resolution of the masks.
    """

    def __init__(
        self,
        embed_dim: int,
        mlp_dim: int = 2048,
        depth: int = 2,
        num_heads: int = 8,
        high_res_channels: tuple[int, int] | None = None,
        refine: bool = False,
    ) -> None:
        super().__init__()
        width8, width4 = embed_dim // 4, embed_dim // 8
        self.transformer = TwoWayTransformer(depth, embed_dim, num_heads, mlp_dim)
        self.iou_token = nn.Embedding(1, embed_dim)
        self.mask_tokens = nn.Embedding(NUM_MASK_TOKENS, embed_dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(embed_dim, width8, 2, stride=2),
            LayerNorm2d(width8),
            nn.GELU(),
            nn.ConvTranspose2d(width8, width4, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(embed_dim, embed_dim, width4, 3) for _ in range(NUM_MASK_TOKENS)
        )
        self.iou_prediction_head = MLP(embed_dim, 256, NUM_MASK_TOKENS, 3)
        self.high_res_s8: nn.Conv2d | None = None
        self.high_res_s4: nn.Conv2d | None = None
        if high_res_channels is not None:
            self.high_res_s8 = _zero_conv(high_res_channels[0], width8)
            self.high_res_s4 = _zero_conv(high_res_channels[1], width4)
        self.refinement = MaskRefinement(width4) if refine else None

    def project_high_res(self, stride8: Tensor, stride4: Tensor) -> tuple[Tensor, Tensor]:
        """Map encoder features to what the skips add, once an image.

        Args:
            stride8: (B, C8, 2H, 2W) float, for an H x W embedding grid.
            stride4: (B, C4, 4H, 4W) float.

        Returns:
            (B, D/4, 2H, 2W) and (B, D/8, 4H, 4W).
        """
        assert self.high_res_s8 is not None
        assert self.high_res_s4 is not None
        return self.high_res_s8(stride8), self.high_res_s4(stride4)

    def forward(
        self,
        embedding: Tensor,
        position: Tensor,
        no_mask: Tensor,
        prompts: PromptTokens,
        groups: PromptGroups,
        high_res: tuple[Tensor, Tensor] | None = None,
        drawn: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode every prompt of every image.

        Args:
            embedding: (B, D, H, W) image embeddings.
            position: (1, HW, D) positional encoding of the grid.
            no_mask: (1, D) embedding that stands for "no mask prompt".
            prompts: Encoded prompts, T in all.
            groups: Which image each prompt belongs to.
            high_res: What `project_high_res` gave for the images, or None.
            drawn: What `draw_prompts` gave at (4H, 4W), for a decoder that refines.

        Returns:
            (T, 4, 4H, 4W) mask logits and (T, 4) IoU scores, token 0 first.
        """
        grid_hw = embedding.shape[-2], embedding.shape[-1]
        cells = embedding.flatten(2).transpose(1, 2) + no_mask  # (B, HW, D)
        image = ImageTokens(cells, position, groups, prompts.dense, shared=True)

        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        own = own.expand(groups.total, -1, -1)  # (T, 5, D)
        tokens = torch.cat([own, prompts.sparse], dim=1)
        absent = None
        if prompts.absent is not None:
            absent = F.pad(prompts.absent, (own.shape[1], 0))
        tokens, cells = self.transformer(tokens, image, absent)

        answers = tokens[:, 1 : 1 + NUM_MASK_TOKENS].unbind(1)
        kernels = [
            mlp(answer) for mlp, answer in zip(self.output_hypernetworks_mlps, answers, strict=True)
        ]
        upscaled = self._upscaled(cells, grid_hw, groups, high_res)
        logits = self._masks(upscaled, torch.stack(kernels, dim=1), grid_hw, drawn)
        return logits, self.iou_prediction_head(tokens[:, 0])

    def _upscaled(
        self,
        cells: Tensor,
        grid_hw: tuple[int, int],
        groups: PromptGroups,
        high_res: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Upscale (T, HW, D) cells four times: (T, HW * 16, D/8), pixels in reading order."""
        first, second = (cast(nn.ConvTranspose2d, self.output_upscaling[i]) for i in (0, 3))
        norm = cast(LayerNorm2d, self.output_upscaling[1])
        doubled_hw = 2 * grid_hw[0], 2 * grid_hw[1]
        x = _doubled(cells, first, grid_hw)  # (T, HW * 4, D/4)
        x = nn.LayerNorm.forward(norm, x)  # channels are last here already
        if high_res is not None:
            x = groups.add(x, _rows(high_res[0]))
        x = F.gelu(x)
        if high_res is None:
            return F.gelu(_doubled(x, second, doubled_hw))
        assert second.bias is not None
        skip = _rows(high_res[1]) + second.bias  # one addition a prompt, not two
        return F.gelu(groups.add(_doubled(x, second, doubled_hw, with_bias=False), skip))

    def _masks(
        self, x: Tensor, kernels: Tensor, grid_hw: tuple[int, int], drawn: Tensor | None
    ) -> Tensor:
        """Apply (T, 4, D/8) kernels to (T, HW * 16, D/8) features: (T, 4, 4H, 4W)."""
        masks = (kernels @ x.transpose(1, 2)).unflatten(2, (4 * grid_hw[0], 4 * grid_hw[1]))
        if self.refinement is None:
            return masks
        assert drawn is not None
        return masks + self.refinement(kernels, x, drawn)


def _zero_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _rows(feature: Tensor) -> Tensor:
    """Rearrange (B, C, H, W) to (B, H * W, C), pixels in reading order."""
    return feature.flatten(2).transpose(1, 2)


def _doubled(
    x: Tensor, conv: nn.ConvTranspose2d, hw: tuple[int, int], with_bias: bool = True
) -> Tensor:
    """Apply a 2 x 2 stride 2 transposed convolution to pixels in reading order.

    Args:
        x: (T, H * W, C).
        conv: The convolution.
        hw: H and W.
        with_bias: Add its bias, too.

    Returns:
        (T, 2H * 2W, C'), in reading order again.
    """
    weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 * 2 * C', C)
    assert conv.bias is not None
    bias = conv.bias.repeat(4) if with_bias else None
    blocks = F.linear(x, weight, bias).unflatten(2, (2, -1)).unflatten(1, hw)  # (T, H, W, 2, 2C')
    return blocks.transpose(2, 3).flatten(1, 3).unflatten(2, (2, -1)).flatten(1, 2)
