"""The published EdgeSAM image encoder, a RepViT-M1 with a two-level pyramid and SAM's neck.

Sources: Wang et al. 2023, RepViT, arXiv:2307.09283; Zhou et al. 2023, EdgeSAM, arXiv:2312.06660.
Parameter names are those of the published checkpoints, so they load strictly. The code is our own.
"""

from itertools import accumulate
from typing import Literal

import torch.nn.functional as F
from timm.layers import SqueezeExcite  # type: ignore[attr-defined]
from torch import Tensor, nn

from edgeseg.modeling.encoders.neck import build_neck
from edgeseg.modeling.promptable import NeckInput, PyramidFeatures
from edgeseg.modeling.reparam import ConvNorm, ReparamDepthwise

Interpolation = Literal["bicubic", "bilinear"]

# Width, blocks, whether the first block halves the resolution, which blocks squeeze and excite.
_STAGES = (
    (48, 3, False, {0}),
    (96, 4, True, {1}),
    (192, 16, True, {1, 3, 5, 7, 9, 11, 13}),
    (384, 3, True, {1}),
)
# Index of each stage's last block in `features`, whose block 0 is the stem.
_STAGE_ENDS = tuple(accumulate(depth for _, depth, _, _ in _STAGES))


class ChannelMixer(nn.Module):
    """Residual of two 1x1 convolutions with a doubled width between them.

    Args:
        channels: Number of input and output channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.m = nn.Sequential(
            ConvNorm(channels, 2 * channels, 1), nn.GELU(), ConvNorm(2 * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x + self.m(x)


class RepViTBlock(nn.Module):
    """Mix space with a depthwise convolution, then channels.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        stride: 1 or 2.
        squeeze: Whether the block squeezes and excites.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        excite = SqueezeExcite(in_channels, 0.25) if squeeze else nn.Identity()
        if stride == 1:
            self.token_mixer = nn.Sequential(ReparamDepthwise(in_channels), excite)
        else:
            self.token_mixer = nn.Sequential(
                ConvNorm(in_channels, in_channels, 3, stride=2, groups=in_channels),
                excite,
                ConvNorm(in_channels, out_channels, 1),
            )
        self.channel_mixer = ChannelMixer(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        return self.channel_mixer(self.token_mixer(x))


class UpsampleLevel(nn.Module):
    """Bring the stride 32 level to the width and resolution of stride 16.

    Args:
        in_channels: Channels at stride 32.
        out_channels: Width of the embedding.
        interpolation: "bicubic" as published, or "bilinear", which more devices run.
    """

    def __init__(self, in_channels: int, out_channels: int, interpolation: Interpolation) -> None:
        super().__init__()
        self.op_list = nn.ModuleList([nn.Conv2d(in_channels, out_channels, 1, bias=False)])
        self.interpolation = interpolation

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, 2H, 2W)."""
        x = self.op_list[0](x)
        return F.interpolate(x, scale_factor=2, mode=self.interpolation, align_corners=False)


class RepViTEncoder(nn.Module):
    """RepViT-M1 encoder of EdgeSAM: 5.5 M parameters, embedding at stride 16.

    Args:
        embed_dim: Width of the embedding.
        interpolation: How stride 32 is brought to stride 16; the checkpoints were trained with
            "bicubic".
    """

    stride4_channels = _STAGES[0][0]
    stride8_channels = _STAGES[1][0]

    def __init__(self, embed_dim: int = 256, interpolation: Interpolation = "bicubic") -> None:
        super().__init__()
        stem = nn.Sequential(
            ConvNorm(3, 24, 3, stride=2), nn.GELU(), ConvNorm(24, _STAGES[0][0], 3, stride=2)
        )
        blocks: list[nn.Module] = [stem]
        channels = _STAGES[0][0]
        for width, depth, halves, squeezed in _STAGES:
            for index in range(depth):
                stride = 2 if halves and index == 0 else 1
                blocks.append(RepViTBlock(channels, width, stride, index in squeezed))
                channels = width
        self.features = nn.ModuleList(blocks)
        self.fuse_stage2 = nn.Conv2d(_STAGES[2][0], embed_dim, 1, bias=False)
        self.fuse_stage3 = UpsampleLevel(_STAGES[3][0], embed_dim, interpolation)
        self.neck = build_neck(embed_dim, embed_dim)

    def forward(self, images: Tensor) -> PyramidFeatures:
        """Map (B, 3, S, S) to features; stride 8 and 4 are the raw stage outputs."""
        return self.before_neck(images).through(self.neck)

    def before_neck(self, images: Tensor) -> NeckInput:
        """Encode as far as the neck."""
        x, levels = images, []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in _STAGE_ENDS:
                levels.append(x)
        stride4, stride8, stride16, stride32 = levels
        merged = self.fuse_stage2(stride16) + self.fuse_stage3(stride32)
        return NeckInput(merged, stride8, stride4)
