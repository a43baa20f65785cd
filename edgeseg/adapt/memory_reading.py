"""The arithmetic of attention to rows, shared by training and inference.

Source: Vaswani et al. 2017, Attention is all you need, arXiv:1706.03762, with a count of each row.
The gate that starts at zero is that of Touvron et al. 2021, LayerScale, arXiv:2103.17239, where it
starts small.
"""

import torch
from torch import Tensor, nn

from edgeseg.errors import ConfigError


class RowReader(nn.Module):
    """What training and inference share: the norm before, queries, output and gate.

    Args:
        width: Width of the tokens, C.
        num_heads: Number of heads.
        head_width: Width of keys and values of one head.
    """

    def __init__(self, width: int, num_heads: int, head_width: int) -> None:
        super().__init__()
        if min(width, num_heads, head_width) < 1:
            raise ConfigError(
                "width, num_heads and head_width must be positive, got "
                f"{width}, {num_heads} and {head_width}; try 256, 4 and 16"
            )
        self.num_heads = num_heads
        self.scale = head_width**-0.5
        self.norm = nn.LayerNorm(width)
        # Without biases, the answer comes from the rows alone: noise as rows is a fair control.
        self.q_proj = nn.Linear(width, num_heads * head_width, bias=False)
        self.out_proj = nn.Linear(num_heads * head_width, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(width))

    def tokens(self, embedding: Tensor) -> Tensor:
        """Map (B, C, H, W) to the (B, H * W, C) normalised tokens of queries, keys and values."""
        return self.norm(embedding.flatten(2).transpose(1, 2))

    def heads(self, projected: Tensor) -> Tensor:
        """Split (B, n, E) into (B, heads, n, E / heads)."""
        return projected.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def forward(
        self, embedding: Tensor, tokens: Tensor, keys: Tensor, values: Tensor, log_counts: Tensor
    ) -> Tensor:
        """Add the gated answers of the rows to a (B, C, H, W) embedding.

        Args:
            embedding: What is added to.
            tokens: (B, H * W, C), from `tokens`.
            keys: (B, R, E) or (1, R, E).
            values: As `keys`.
            log_counts: (R,), added to the scaled scores.
        """
        queries = self.heads(self.q_proj(tokens) * self.scale)  # (B, heads, H * W, E / heads)
        scores = queries @ self.heads(keys).transpose(2, 3) + log_counts
        mixed = scores.softmax(dim=3) @ self.heads(values)
        answers = self.out_proj(mixed.transpose(1, 2).flatten(2)) * self.gate  # (B, H * W, C)
        return embedding + answers.transpose(1, 2).unflatten(2, embedding.shape[2:])


class RowProjections(nn.Module):
    """Normalised tokens to keys and values.

    Args:
        width: Width of the tokens, C.
        row_width: Width of keys and values, E.
    """

    def __init__(self, width: int, row_width: int) -> None:
        super().__init__()
        self.k_proj = nn.Linear(width, row_width, bias=False)
        self.v_proj = nn.Linear(width, row_width, bias=False)
        # Frozen or not, a random rotation keeps distances, so that alike tokens have alike keys.
        nn.init.orthogonal_(self.k_proj.weight)
        nn.init.orthogonal_(self.v_proj.weight)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, n, C) to keys and values, (B, n, E) each."""
        return self.k_proj(tokens), self.v_proj(tokens)

    def beside(
        self, tokens: Tensor, keys: Tensor, values: Tensor, log_counts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put an image's own tokens, each counting once, before the rows it attends to.

        Args:
            tokens: (B, n, C), normalised.
            keys: (B, R, E) or (1, R, E).
            values: As `keys`.
            log_counts: (R,).

        Returns:
            Keys and values, (B, n + R, E) each, and (n + R,) log counts.
        """
        own_keys, own_values = self(tokens)
        num_images, num_tokens, _ = own_keys.shape
        return (
            torch.cat([own_keys, keys.expand(num_images, -1, -1)], dim=1),
            torch.cat([own_values, values.expand(num_images, -1, -1)], dim=1),
            torch.cat([log_counts.new_zeros(num_tokens), log_counts]),
        )
