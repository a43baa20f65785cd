"""Two-way transformer between prompt tokens and an image embedding.

Source: Kirillov et al. 2023, Segment Anything, arXiv:2304.02643, with SAM's parameter names and
results. What does not depend on the prompt is computed once an image: in the first layer the
image's keys, values and queries. Later the cells belong to each prompt, and are never projected:
see `ImageTokens`.
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

    No projection of a prompt's own cells is ever computed: a few rows are taken through the
    projection's weight to the cells instead, `(cells @ W.T) @ rows.T = cells @ (rows @ W).T`.

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

    def match_keys(self, rows: Tensor, linear: nn.Linear) -> Tensor:
        """Return (T, m, HW), products of (T, m, E) rows with the projection of placed cells.

        They are meant for a softmax over the cells, for which the projection's bias, the same for
        all cells, may be left out.
        """
        placed = self.values + self.position
        if not self.shared:
            return (rows @ linear.weight) @ placed.transpose(1, 2)
        keys = linear(placed)  # (B, HW, E)
        scores = self.groups.product(rows, keys.transpose(1, 2))
        if self.dense is not None:
            through = rows @ (linear.weight @ self.dense.weight)  # (T, m, R)
            scores = scores + through @ self.dense.hidden.transpose(1, 2)
        return scores

    def match_queries(self, rows: Tensor, linear: nn.Linear) -> Tensor:
        """Return (T, HW, m), products of the projection of placed cells with (T, m, E) rows."""
        placed = self.values + self.position
        if not self.shared:
            through = (rows @ linear.weight).transpose(1, 2)  # (T, D, m)
            return placed @ through + (rows @ linear.bias[:, None]).transpose(1, 2)
        scores = self.groups.spread(linear(placed)) @ rows.transpose(1, 2)
        if self.dense is not None:
            through = rows @ (linear.weight @ self.dense.weight)  # (T, m, R)
            scores = scores + self.dense.hidden @ through.transpose(1, 2)
        return scores

    def mixed(self, weights: Tensor, linear: nn.Linear) -> Tensor:
        """Return (T, m, E), the projections of the cells averaged by (T, m, HW) weights."""
        if not self.shared:
            return linear(weights @ self.values)
        mixed = self.groups.product(weights, linear(self.values))
        if self.dense is not None:
            extra = weights @ self.dense.hidden  # (T, m, R)
            mixed = mixed + F.linear(extra, linear.weight @ self.dense.weight)
        return mixed

    def plus(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Return (T, HW, D), the cells of every prompt plus (T, HW, m) weights @ (T, m, D) rows."""
        if self.dense is not None:  # one product for both additions
            weights = torch.cat([weights, self.dense.hidden], dim=2)
            added = self.dense.weight.T.expand(rows.shape[0], -1, -1)
            rows = torch.cat([rows, added.to(rows.dtype)], dim=1)
        if self.shared:
            return self.groups.add(weights @ rows, self.values)
        return weights @ rows + self.values


class Attention(nn.Module):
    """Multi-head attention whose projections may be narrower than the embedding.

    Args:
        embed_dim: Width of queries, keys and values before projection.
        num_heads: Number of heads.
        downsample_rate: The projected width is `embed_dim // downsample_rate`.
    """

    head_mask: Tensor

    def __init__(self, embed_dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        width = embed_dim // downsample_rate
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        self.q_proj = nn.Linear(embed_dim, width)
        self.k_proj = nn.Linear(embed_dim, width)
        self.v_proj = nn.Linear(embed_dim, width)
        self.out_proj = nn.Linear(width, embed_dim)
        head_of_channel = torch.arange(num_heads).repeat_interleave(width // num_heads)
        mask = head_of_channel == torch.arange(num_heads)[:, None]
        self.register_buffer("head_mask", mask[:, None].float(), persistent=False)

    def heads(self, projected: Tensor) -> Tensor:
        """Split (T, n, width) into (T, heads, n, width / heads)."""
        return projected.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def head_rows(self, projected: Tensor) -> Tensor:
        """Repeat (T, n, width) for each head, zero in the channels of the other heads.

        Returns:
            (T, heads * n, width), so that one product serves all heads at once and nothing as large
            as the image is split into heads.
        """
        return (projected[:, None] * self.head_mask).flatten(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, absent: Tensor | None = None) -> Tensor:
        """Attend among tokens: (T, n, D) to (T, k, D), without keys that are (T, k) bool absent."""
        rows = self.heads(self.q_proj(q) * self.scale)  # (T, heads, n, width / heads)
        scores = rows @ self.heads(self.k_proj(k)).transpose(2, 3)
        if absent is not None:
            scores = scores + _absent_scores(absent, scores)[:, None, None]
        mixed = scores.softmax(dim=3) @ self.heads(self.v_proj(v))
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def tokens_to_image(self, tokens: Tensor, image: ImageTokens) -> Tensor:
        """Attend from (T, n, D) tokens to the cells of their image: (T, n, D)."""
        rows = self.head_rows(self.q_proj(tokens) * self.scale)
        weights = image.match_keys(rows, self.k_proj).softmax(dim=2)  # (T, heads * n, HW)
        mixed = image.mixed(weights, self.v_proj)  # (T, heads * n, width)
        by_head = mixed.unflatten(1, (self.num_heads, -1))
        return self.out_proj((by_head * self.head_mask).sum(dim=1))

    def image_to_tokens(
        self, image: ImageTokens, tokens: Tensor, values: Tensor, absent: Tensor | None
    ) -> Tensor:
        """Return the cells plus their answers from the (T, n, D) tokens: (T, HW, D)."""
        rows = self.head_rows(self.k_proj(tokens) * self.scale)
        scores = image.match_queries(rows, self.q_proj)  # (T, HW, heads * n)
        if absent is not None:
            scores = scores + _absent_scores(absent, scores).repeat(1, self.num_heads)[:, None]
        weights = scores.unflatten(2, (self.num_heads, -1)).softmax(dim=3).flatten(2)
        # The weights of a cell sum to one in each head, so this adds the bias once, to few rows.
        bias = self.out_proj.bias / self.num_heads
        answers = F.linear(self.head_rows(self.v_proj(values)), self.out_proj.weight, bias)
        return image.plus(weights, answers)


def _absent_scores(absent: Tensor, like: Tensor) -> Tensor:
    """Return what to add to scores so that absent keys get no weight: (T, n)."""
    return absent.to(like.dtype) * -1e4  # nothing is left of exp(-1e4), and float16 can hold it


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
        cells = attention.image_to_tokens(image, tokens + token_position, tokens, absent)
        cells = self.norm4(cells)
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
