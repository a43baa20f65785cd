"""Attention from the tokens of an image to what other images of its domain looked like.

Source: Shen et al. 2023, MoViT, arXiv:2303.15553, whose code is not published. Rows of other
samples, detached, as keys and values, and prototypes in place of the rows at inference are its
idea; it attends in the middle of a classifier, we add to a finished embedding.

A training step, with a `memory` of the images' names and a frozen encoder:

```python
rows = memory.retrieve(names, num_rows=64, generator=generator)
loss = criterion(decoder(attention(embedding, rows)))
loss.backward()
optimizer.step()
memory.write(names, *attention.facts(embedding))
```

Then `PrototypeAttention.distilled(attention, distill_prototypes(memory, 64, generator))` is what
is kept, exported and shipped; the memory itself is not needed any more.
"""

import copy

import torch
from torch import Tensor, nn

from edgeseg.adapt.memory_prototypes import check_num_prototypes
from edgeseg.adapt.memory_reading import RowProjections, RowReader
from edgeseg.adapt.memory_rows import MemoryRows
from edgeseg.errors import ConfigError, DataError
from edgeseg.modeling.promptable import freeze


class MemoryAttention(nn.Module):
    """Residual attention to rows of a memory, for training; untrained it changes no bit.

    Keys and values are projections of tokens after the same norm as the queries. Rows are stored
    after projection and carry no gradient, so a projection that learns leaves older rows behind.
    By default norm and projections are frozen as drawn: rows of a frozen encoder then never go
    stale, and what learns is how to ask and what to do with the answer.

    Args:
        width: Width of the embedding, C.
        num_heads: Number of heads.
        head_width: Width of one head; keys and values are E = num_heads * head_width wide.
        attends_own: Let tokens attend to the tokens of their own image too, in one softmax with the
            rows, as published; the scores then grow with the square of the number of tokens.
        learns_projections: Train norm and projections. Only through an image's own tokens can
            gradients reach them, so this needs `attends_own`; keep the memory's decay at most 0.99.

    Raises:
        ConfigError: A number is out of range, or projections should learn and cannot.
    """

    def __init__(
        self,
        width: int,
        num_heads: int = 4,
        head_width: int = 16,
        attends_own: bool = False,
        learns_projections: bool = False,
    ) -> None:
        super().__init__()
        if learns_projections and not attends_own:
            raise ConfigError(
                "learns_projections needs attends_own: rows of the memory carry no gradient, so "
                "without the image's own tokens the projections would stay as drawn, got "
                "attends_own=False; set it, or leave the projections frozen"
            )
        self.attends_own = attends_own
        self.reader = RowReader(width, num_heads, head_width)
        self.projections = RowProjections(width, self.row_width)
        with torch.no_grad():  # tokens ask for their like from the first step on
            self.reader.q_proj.weight.copy_(self.projections.k_proj.weight)
        if not learns_projections:
            self.projections.requires_grad_(False)
            self.reader.norm.requires_grad_(False)

    @property
    def width(self) -> int:
        """Width of the embedding, C."""
        return self.reader.q_proj.in_features

    @property
    def row_width(self) -> int:
        """Width of keys and values, E: the `row_width` of the memory that goes with the block."""
        return self.reader.q_proj.out_features

    @torch.no_grad()
    def facts(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of a (B, C, H, W) embedding, (B, H * W, E) each, to be stored.

        They have no history. The embedding is the one that the block gets, not the one it returns.
        """
        _check_width(embedding, self.width)
        keys, values = self.projections(self.reader.tokens(embedding))
        return keys, values

    def forward(self, embedding: Tensor, rows: MemoryRows | None = None) -> Tensor:
        """Map a (B, C, H, W) embedding to one that has seen the rows.

        Args:
            embedding: Of B images.
            rows: Of a training step, all rows of a memory, or prototypes. None is no memory for
                this step: the embedding is returned as it is, unless tokens attend to their own
                image.

        Raises:
            DataError: Widths or numbers of images do not fit.
        """
        _check_width(embedding, self.width)
        if rows is None:
            if not self.attends_own:
                return embedding
            nothing = embedding.new_zeros(1, 0, self.row_width)
            rows = MemoryRows(nothing, nothing, embedding.new_zeros(0))
        _check_rows(rows, (1, embedding.shape[0]), self.row_width)
        tokens = self.reader.tokens(embedding)
        read = rows.keys, rows.values, rows.log_counts
        if self.attends_own:
            read = self.projections.beside(tokens, *read)
        return self.reader(embedding, tokens, *read)


class PrototypeAttention(nn.Module):
    """Residual attention to prototypes: all that inference needs of a memory and its block.

    Prototypes are frozen parameters, constants in an exported graph. Their number is fixed, so
    neither cost nor file size depends on the training set.

    Args:
        width: Width of the embedding, C.
        num_prototypes: At most `memory_prototypes.MAX_PROTOTYPES`.
        num_heads: Number of heads.
        head_width: Width of one head.
        attends_own: As for `MemoryAttention`.

    Raises:
        ConfigError: A number is out of range.
    """

    log_counts: Tensor

    def __init__(
        self,
        width: int,
        num_prototypes: int,
        num_heads: int = 4,
        head_width: int = 16,
        attends_own: bool = False,
    ) -> None:
        super().__init__()
        check_num_prototypes(num_prototypes)
        row_width = num_heads * head_width
        self.reader = RowReader(width, num_heads, head_width)
        self.projections = RowProjections(width, row_width) if attends_own else None
        self.keys = nn.Parameter(torch.zeros(num_prototypes, row_width))
        self.values = nn.Parameter(torch.zeros(num_prototypes, row_width))
        self.register_buffer("log_counts", torch.zeros(num_prototypes))
        freeze(self)

    @classmethod
    def distilled(cls, attention: MemoryAttention, prototypes: MemoryRows) -> "PrototypeAttention":
        """Return the block that attends to prototypes only, frozen and in eval mode.

        Args:
            attention: The trained block; it is copied and left as it was.
            prototypes: (1, P, E), as `distill_prototypes` returns them.

        Raises:
            ConfigError: There are too many prototypes.
            DataError: Widths do not fit.
        """
        _check_rows(prototypes, (1,), attention.row_width)
        heads = attention.reader.num_heads
        shape = attention.width, len(prototypes.counts), heads, attention.row_width // heads
        block = cls(*shape, attends_own=attention.attends_own).to(prototypes.keys.device)
        block.reader = copy.deepcopy(attention.reader)
        if attention.attends_own:
            block.projections = copy.deepcopy(attention.projections)
        with torch.no_grad():
            block.keys.copy_(prototypes.keys[0])
            block.values.copy_(prototypes.values[0])
            block.log_counts.copy_(prototypes.log_counts)
        freeze(block)
        return block

    @property
    def width(self) -> int:
        """Width of the embedding, C."""
        return self.reader.q_proj.in_features

    def learn_prototypes(self) -> list[nn.Parameter]:
        """Let keys and values of the prototypes learn, and nothing else; return the two."""
        freeze(self)
        self.keys.requires_grad_(True)
        self.values.requires_grad_(True)
        return [self.keys, self.values]

    def forward(self, embedding: Tensor) -> Tensor:
        """Map a (B, C, H, W) embedding to one that has seen the prototypes.

        Raises:
            DataError: The embedding has another width.
        """
        _check_width(embedding, self.width)
        tokens = self.reader.tokens(embedding)
        read = self.keys[None], self.values[None], self.log_counts
        if self.projections is not None:
            read = self.projections.beside(tokens, *read)
        return self.reader(embedding, tokens, *read)


def _check_width(embedding: Tensor, width: int) -> None:
    if embedding.ndim != 4 or embedding.shape[1] != width:
        raise DataError(
            f"the embedding must be (B, {width}, H, W), got {tuple(embedding.shape)}; make the "
            "block for the width of the model's embedding"
        )


def _check_rows(rows: MemoryRows, num_images: tuple[int, ...], row_width: int) -> None:
    if rows.keys.shape[0] not in num_images or rows.keys.shape[2] != row_width:
        expected = " or ".join(f"({number}, R, {row_width})" for number in sorted(set(num_images)))
        raise DataError(
            f"rows must be {expected}, got {tuple(rows.keys.shape)}; retrieve them for the names "
            "of this batch, from a memory with the row_width of the block"
        )
