"""A memory of attention as a pack: rows while it is trained, prototypes from then on.

The rows of the training images never become part of the network: they are referred to, not
contained, so neither a state dict nor an exported graph can carry them.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from edgeseg.adapt.memory_attention import MemoryAttention, PrototypeAttention
from edgeseg.adapt.memory_prototypes import distill_prototypes, random_prototypes
from edgeseg.adapt.memory_rows import AttentionMemory, MemoryRows
from edgeseg.adapt.settings import MemorySettings

Kept = Literal["prototypes", "random", "rows"]
"""What images that are not trained on attend to: prototypes, noise of the same size, or all rows;
the last two are for comparison and leave nothing that can be shipped."""


class MemoryPack(nn.Module):
    """Attention of an embedding to what other images of its domain looked like.

    Args:
        width: Width of the embedding.
        settings: Heads, rows, prototypes.
    """

    def __init__(self, width: int, settings: MemorySettings) -> None:
        super().__init__()
        heads = settings.num_heads, settings.head_width
        self.settings = settings
        self.attention = MemoryAttention(width, *heads)
        self.prototypes = PrototypeAttention(width, settings.num_prototypes, *heads)
        self._memory: tuple[AttentionMemory, ...] = ()  # a tuple, so that it is no part
        self._rows: tuple[MemoryRows, ...] = ()
        self._generator = torch.Generator().manual_seed(0)

    def remember(self, sample_names: Sequence[str], seed: int = 0) -> None:
        """Begin training: make an empty memory for these images.

        Raises:
            DataError: There are fewer than two, or a name comes twice.
        """
        settings = self.settings
        width = self.attention.row_width
        memory = AttentionMemory(sample_names, width, settings.rows_a_sample, settings.average)
        self._memory = (memory,)
        self._rows = ()
        self._generator.manual_seed(seed)

    @torch.no_grad()
    def write(self, sample_names: Sequence[str], embedding: Tensor) -> None:
        """Store what a batch of training images looks like."""
        self._memory[0].write(sample_names, *self.attention.facts(embedding))

    def finish(self, kept: Kept = "prototypes") -> None:
        """End training: distil the rows, and forget them unless they are to be kept."""
        memory = self._memory[0]
        if kept == "rows":
            self._rows = (memory.rows(),)
            return
        rows = distill_prototypes(memory, self.settings.num_prototypes, self._generator)
        rows = random_prototypes(rows, self._generator) if kept == "random" else rows
        rows = rows if self.settings.log_counts else rows.uncounted()
        self.prototypes = PrototypeAttention.distilled(self.attention, rows)
        self._memory = self._rows = ()

    def forward(self, embedding: Tensor, sample_names: Sequence[str] | None = None) -> Tensor:
        """Map a (B, D, H, W) embedding to one that has seen its domain.

        Args:
            embedding: Of B images.
            sample_names: Of training images, which attend to rows of the others; None for images
                that are not trained on.
        """
        if sample_names is not None and self._memory:
            memory = self._memory[0]
            num_rows = int(memory.written.sum()) * self.settings.rows_a_sample
            count = max(1, round(num_rows * self.settings.retrieved_share))
            rows = memory.retrieve(sample_names, count, self._generator)
            answer: Tensor = self.attention(embedding, rows)
            self.write(sample_names, embedding)
            return answer
        if self._rows:
            rows = self._rows[0]
            return self.attention(embedding, rows)
        return self.prototypes(embedding)
