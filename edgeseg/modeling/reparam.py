"""Blocks that train with several branches or norms and deploy as plain convolutions.

Sources: RepVGG (Ding et al. 2021, arXiv:2101.03697), in the depthwise form of RepViT (Wang et al.
2023, arXiv:2307.09283).
"""

import copy
from itertools import pairwise
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)


class ConvNorm(nn.Sequential):
    """A convolution without bias and its batch norm, padded to keep the resolution.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Odd side of the kernel.
        stride: 1 or 2.
        groups: Groups of the convolution.
    """

    c: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def fuse(self) -> nn.Conv2d:
        """Return one convolution with the output this block has in eval mode."""
        return fuse_conv_bn_eval(self.c, self.bn)


class ReparamDepthwise(nn.Module):
    """Sum of a 3x3 depthwise branch, a 1x1 depthwise branch and the identity.

    Every branch is linear in eval mode, so `fuse` can fold the three into one 3x3 kernel: the same
    output for one convolution's worth of memory traffic.

    Args:
        channels: Number of input and output channels, C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, 3, groups=channels)
        self.conv1 = ConvNorm(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return self.conv(x) + self.conv1(x) + x

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """Return one depthwise 3x3 convolution with the output this block has in eval mode."""
        fused = self.conv.fuse()
        center = self.conv1.fuse()
        assert fused.bias is not None  # folding a norm always adds a bias
        assert center.bias is not None
        fused.weight[:, :, 1, 1] += center.weight[:, :, 0, 0] + 1.0  # + 1.0 is the identity
        fused.bias += center.bias
        return fused


def fuse(module: Module) -> Module:
    """Return a copy in eval mode in which branches and batch norms are folded into convolutions.

    Covers `ConvNorm`, `ReparamDepthwise` and every convolution whose next sibling is a batch norm,
    as in timm's networks; the activation that timm keeps inside its norms stays.

    Args:
        module: Any network; it is left as it was.
    """
    fused = copy.deepcopy(module).eval()
    _fuse_children(fused)
    return fused


def _fuse_children(parent: nn.Module) -> None:
    children = list(parent.named_children())
    for name, child in children:
        if isinstance(child, ConvNorm | ReparamDepthwise):
            setattr(parent, name, child.fuse())
        else:
            _fuse_children(child)
    for (name, conv), (norm_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(parent, name, fuse_conv_bn_eval(conv, norm))
            setattr(parent, norm_name, cast(nn.Module, getattr(norm, "act", nn.Identity())))
