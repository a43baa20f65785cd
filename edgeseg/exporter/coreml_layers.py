"""Layers as the Neural Engine likes them: four dimensions, and channels second throughout.

Source: Apple's Deploying Transformers on the Apple Neural Engine (2022), for the layout
(B, C, 1, S), 1x1 convolutions in place of linear layers, and the form of the layer norm, which
coremltools turns into `layer_norm` over the channels and `batch_norm`. The code is our own.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.modeling.encoders.repvit import UpsampleLevel
from edgeseg.modeling.layers import MLP, LayerNorm2d
from edgeseg.modeling.transformer import Attention

ABSENT_SCORE = -1e4
"""Added to the attention scores of absent tokens; half precision holds it, and no -inf can meet a
row that is absent altogether."""

SHRINK = 1 / 16
"""Half precision cannot square numbers above 255. A norm gives the same for smaller numbers, and a
power of two costs them no digit."""


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, C, H, W), safe in half precision up to 4000.

    Args:
        norm: The layer norm of a training network, over the last dimension or over channels.
    """

    gamma: Tensor
    beta: Tensor

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.register_buffer("gamma", norm.weight.detach().clone()[None, :, None, None])
        self.register_buffer("beta", norm.bias.detach().clone()[None, :, None, None])
        self.eps = norm.eps * SHRINK**2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        x = x * SHRINK
        centred = x - x.mean(dim=1, keepdim=True)
        variance = (centred * centred).mean(dim=1, keepdim=True)
        return centred * torch.rsqrt(variance + self.eps) * self.gamma + self.beta


def pointwise(linear: nn.Linear, scale: float = 1.0) -> nn.Conv2d:
    """Return the 1x1 convolution that does to channels what a linear layer does, times `scale`."""
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(scale * linear.weight[:, :, None, None])
        conv.bias.copy_(scale * linear.bias)
    return conv


def pointwise_mlp(mlp: MLP) -> nn.Sequential:
    """Return a perceptron as 1x1 convolutions with ReLU between them."""
    layers: list[nn.Module] = []
    for linear in mlp.layers:
        layers += [pointwise(cast(nn.Linear, linear)), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class ChannelAttention(nn.Module):
    """Attention among (B, C, 1, S) tensors, head by head; softmax over the last dimension.

    Args:
        attention: The attention of a training network.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.q_proj = pointwise(attention.q_proj, attention.scale)
        self.k_proj = pointwise(attention.k_proj)
        self.v_proj = pointwise(attention.v_proj)
        self.out_proj = pointwise(attention.out_proj)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, absent: Tensor | None = None) -> Tensor:
        """Attend from (B, C, 1, Q) to (B, C, 1, K): (B, C, 1, Q).

        Args:
            q: What asks.
            k: What is compared.
            v: What is taken over.
            absent: (B, 1, 1, K), added to the scores of each key, or None.
        """
        q, k, v = (
            self._heads(project(x))
            for project, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        scores = q.transpose(2, 3) @ k  # (B, heads, Q, K)
        if absent is not None:
            scores = scores + absent
        mixed = v @ scores.softmax(dim=3).transpose(2, 3)  # (B, heads, C / heads, Q)
        return self.out_proj(mixed.reshape(mixed.shape[0], -1, 1, mixed.shape[3]))

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], self.num_heads, -1, x.shape[3])


class DoubleBicubic(nn.Module):
    """Bicubic enlargement by two without a bicubic operation, which Core ML does not have.

    Output pixels 2i and 2i + 1 lie a quarter pixel before and after the centre of pixel i, so each
    is a fixed mixture of four neighbours along each axis. A convolution gives the four mixtures of
    each pixel as channels, and a pixel shuffle puts them in place.

    Args:
        channels: Number of channels.
    """

    kernels: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        before = torch.tensor([_cubic(d) for d in (1.75, 0.75, 0.25, 1.25)] + [0.0])
        phases = torch.stack([before, before.flip(0)])  # (2, 5), around pixels i - 2...i + 2
        kernels = phases[:, None, :, None] * phases[None, :, None, :]  # (2, 2, 5, 5), y then x
        self.register_buffer("kernels", kernels.reshape(4, 1, 5, 5).repeat(channels, 1, 1, 1))
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        for dim in (2, 3):  # the border is repeated; the Neural Engine may not pad like that
            first, last = x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)
            x = torch.cat([first, first, x, last, last], dim=dim)
        return F.pixel_shuffle(F.conv2d(x, self.kernels, groups=self.channels), 2)


def _cubic(distance: float) -> float:
    """Return the weight of a neighbour in torch's bicubic interpolation (a = -0.75).

    >>> [_cubic(distance) for distance in (0, 1, 2)]
    [1.0, 0.0, 0.0]
    """
    a, d = -0.75, float(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a


def channels_first(module: nn.Module) -> nn.Module:
    """Change an image encoder so that Core ML runs its norms and enlargements as they are.

    Args:
        module: Changed in place, unless it is itself to be replaced.
    """
    if isinstance(module, LayerNorm2d):
        return ChannelNorm(module)
    if isinstance(module, UpsampleLevel) and module.interpolation == "bicubic":
        projection = cast(nn.Conv2d, module.op_list[0])
        return nn.Sequential(projection, DoubleBicubic(projection.out_channels))
    for name, child in module.named_children():
        setattr(module, name, channels_first(child))
    return module
