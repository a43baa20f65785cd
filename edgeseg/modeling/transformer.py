"""Two-way transformer between prompt tokens and an image embedding.

Source: Kirillov et al. 2023, Segment Anything, arXiv:2304.02643, with SAM's parameter names. The
arithmetic is the same; what does not depend on the prompt is computed once an image: in the first
layer the image's keys, values and queries, and everywhere the projected positional encoding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.modeling.prompt_batch import PromptGroups
from edgeseg.modeling.prompt_encoder import DensePrompt


@dataclass(frozen=True)
class ImageTokens:
    """The image side of the transformer.

    Attributes:
        values: (B, HW, D) while all prompts of an image share them, (T, HW, D) afterwards.
        position: (1, HW, D), positional encoding of the cells.
        groups: Which image each prompt belongs to.
        dense: What each prompt adds to `values`; only while they are shared.
        shared: Whether `values` are those of the images rather than of the prompts.
    """

    values: Tensor
    position: Tensor
    groups: PromptGroups
    dense: DensePrompt | None
    shared: bool

    def projected(self, linear: nn.Linear, with_position: bool) -> Tensor:
        """Return the values through a projection: (B or T, HW, E)."""
        projected = linear(self.values)
        if with_position:
            projected = projected + F.linear(self.position, linear.weight)
        if self.dense is not None:
            projected = self.groups.add(self.dense.projected(linear.weight), projected)
        return projected

    def for_each_prompt(self) -> Tensor:
        """Return the values of every prompt: (T, HW, D)."""
        if not self.shared:
            return self.values
        if self.dense is None:
            return self.groups.expand(self.values)
        return self.groups.add(self.dense.projected(), self.values)

    @property
    def common(self) -> bool:
        """Whether all prompts of an image see the very same values."""
        return self.shared and self.dense is None


class Attention(nn.Module):
    """Multi-head attention whose projections may be narrower than the embedding.

    Args:
        embed_dim: Width of queries, keys and values before projection.
        num_heads: Number of heads.
        downsample_rate: The projected width is `embed_dim // downsample_rate`.
    """

    def __init__(self, embed_dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        width = embed_dim // downsample_rate
        self.num_heads = num_heads
        self.q_proj = nn.Linear(embed_dim, width)
        self.k_proj = nn.Linear(embed_dim, width)
        self.v_proj = nn.Linear(embed_dim, width)
        self.out_proj = nn.Linear(width, embed_dim)

    def heads(self, projected: Tensor) -> Tensor:
        """Split (B, N, width) into (B, heads, N, width / heads)."""
        return projected.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, absent: Tensor | None = None) -> Tensor:
        """Attend with projected (B, N, width) queries to (B, K, width) keys and values.

        Args:
            q: Projected queries.
            k: Projected keys.
            v: Projected values.
            absent: (B, K) bool, keys to leave out, or None.

        Returns:
            (B, N, D).
        """
        allowed = None if absent is None else ~absent[:, None, None, :]
        mixed = F.scaled_dot_product_attention(
            self.heads(q), self.heads(k), self.heads(v), attn_mask=allowed
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, absent: Tensor | None = None) -> Tensor:
        """Project and attend: (B, N, D), (B, K, D), (B, K, D) to (B, N, D)."""
        return self.attend(self.q_proj(q), self.k_proj(k), self.v_proj(v), absent)

    def tokens_to_image(self, tokens: Tensor, image: ImageTokens) -> Tensor:
        """Attend from (T, N, D) tokens to the cells of their image: (T, N, D)."""
        k = image.projected(self.k_proj, with_position=True)
        v = image.projected(self.v_proj, with_position=False)
        q = self.q_proj(tokens)
        if not image.common:
            return self.attend(q, k, v)
        counts, even = image.groups.counts, image.groups.even
        if even is not None:  # the prompts of an image are more rows of one attention
            q = q.unflatten(0, (len(counts), even)).flatten(1, 2)  # (B, prompts * N, width)
            return self.attend(q, k, v).unflatten(1, (even, tokens.shape[1])).flatten(0, 1)
        rows = zip(q.split(list(counts)), k.split(1), v.split(1), strict=True)
        answers = [self.attend(q_i.flatten(0, 1)[None], k_i, v_i) for q_i, k_i, v_i in rows]
        return torch.cat(answers, dim=1).unflatten(1, tokens.shape[:2])[0]

    def image_to_tokens(
        self, image: ImageTokens, tokens: Tensor, values: Tensor, absent: Tensor | None
    ) -> Tensor:
        """Attend from the cells to the (T, N, D) tokens of each prompt: (T, HW, D)."""
        q = image.projected(self.q_proj, with_position=True)
        if image.common:
            q = image.groups.expand(q)
        return self.attend(q, self.k_proj(tokens), self.v_proj(values), absent)


class TokenMLP(nn.Module):
    """Two linear layers with ReLU, with SAM's names.

    Args:
        embed_dim: Width in and out.
        hidden_dim: Width between.
    """

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(embed_dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayAttentionBlock(nn.Module):
    """Tokens attend to each other and to the image, then the image attends to the tokens.

    Args:
        embed_dim: Width D of tokens and cells.
        num_heads: Number of heads.
        mlp_dim: Hidden width of the tokens' MLP.
        first: Whether this is the first block, whose self-attention has no positions.
    """

    def __init__(self, embed_dim: int, num_heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.self_attn = Attention(embed_dim, num_heads)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.cross_attn_token_to_image = Attention(embed_dim, num_heads, 2)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = TokenMLP(embed_dim, mlp_dim)
        self.norm3 = nn.LayerNorm(embed_dim)
        self.norm4 = nn.LayerNorm(embed_dim)
        self.cross_attn_image_to_token = Attention(embed_dim, num_heads, 2)
        self.first = first

    def forward(
        self, tokens: Tensor, token_position: Tensor, image: ImageTokens, absent: Tensor | None
    ) -> tuple[Tensor, ImageTokens]:
        """Update (T, N, D) tokens and the image's cells, which then belong to each prompt."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, absent)
        else:
            placed = tokens + token_position
            tokens = tokens + self.self_attn(placed, placed, tokens, absent)
        tokens = self.norm1(tokens)

        answer = self.cross_attn_token_to_image.tokens_to_image(tokens + token_position, image)
        tokens = self.norm2(tokens + answer)
        tokens = self.norm3(tokens + self.mlp(tokens))

        attention = self.cross_attn_image_to_token
        update = attention.image_to_tokens(image, tokens + token_position, tokens, absent)
        cells = self.norm4(image.for_each_prompt() + update)
        return tokens, ImageTokens(cells, image.position, image.groups, None, shared=False)


class TwoWayTransformer(nn.Module):
    """A stack of two-way blocks and a last look of the tokens at the image.

    Args:
        depth: Number of blocks.
        embed_dim: Width D.
        num_heads: Number of heads.
        mlp_dim: Hidden width of the tokens' MLPs.
    """

    def __init__(self, depth: int, embed_dim: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(embed_dim, num_heads, mlp_dim, first=index == 0)
            for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(embed_dim, num_heads, 2)
        self.norm_final_attn = nn.LayerNorm(embed_dim)

    def forward(
        self, tokens: Tensor, image: ImageTokens, absent: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return (T, N, D) tokens and (T, HW, D) cells of each prompt."""
        position = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, position, image, absent)
        answer = self.final_attn_token_to_image.tokens_to_image(tokens + position, image)
        return self.norm_final_attn(tokens + answer), image.values
