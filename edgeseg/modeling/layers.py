"""Small layers with SAM's parameter names.

Source: Kirillov et al. 2023, Segment Anything, arXiv:2304.02643.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a (B, C, H, W) tensor.

    The same numbers as SAM's, through torch's fused kernel. A channels-last tensor stays so.

    Args:
        channels: Number of channels, C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        in_width: Width of the input.
        hidden_width: Width of every layer but the last.
        out_width: Width of the output.
        num_layers: Number of linear layers.
    """

    def __init__(self, in_width: int, hidden_width: int, out_width: int, num_layers: int) -> None:
        super().__init__()
        widths = [in_width] + [hidden_width] * (num_layers - 1) + [out_width]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_width) to (..., out_width)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)
