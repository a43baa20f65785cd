"""A memory inside a ViT teacher: attention to its rows between the last block and the neck."""

import torch
from torch import Tensor, nn

from edgeseg.adapt.memory_attention import MemoryAttention, PrototypeAttention
from edgeseg.adapt.memory_rows import MemoryRows
from edgeseg.errors import ConfigError
from edgeseg.modeling.encoders.vit import SamViT
from edgeseg.modeling.promptable import PyramidFeatures


class MemoryViT(nn.Module):
    """An image encoder whose last block's output attends to other images of the domain.

    In two halves: the tokens of the frozen blocks can be computed once and kept, then training runs
    `embed` only. As a whole it takes the place of a network's `image_encoder`.

    Args:
        encoder: Its weights stay as they are.
        attention: As wide as the encoder's blocks.

    Raises:
        ConfigError: The widths differ.
    """

    def __init__(self, encoder: SamViT, attention: MemoryAttention | PrototypeAttention) -> None:
        super().__init__()
        width = encoder.neck[0].in_channels
        if attention.width != width:
            raise ConfigError(
                f"the attention must be as wide as the encoder's blocks, {width}, got "
                f"{attention.width}; make it with width={width}"
            )
        self.encoder = encoder
        self.attention = attention

    def tokens(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) to the output of the last block, (B, C, S / 16, S / 16)."""
        cells = self.encoder.patch_embed(images) + self.encoder.pos_embed
        for block in self.encoder.blocks:
            cells = block(cells)  # (B, S / 16, S / 16, C)
        return cells.permute(0, 3, 1, 2)

    def embed(self, tokens: Tensor, rows: MemoryRows | None = None) -> PyramidFeatures:
        """Map (B, C, H, W) tokens to the embedding at stride 16.

        Args:
            tokens: From `tokens`.
            rows: What a `MemoryAttention` attends to; prototypes bring their own.
        """
        seen = self.attention(tokens) if rows is None else self.attention(tokens, rows)
        embedding = self.encoder.neck(seen)
        return PyramidFeatures(embedding.contiguous(memory_format=torch.channels_last))

    def forward(self, images: Tensor, rows: MemoryRows | None = None) -> PyramidFeatures:
        """Map (B, 3, S, S) to the embedding at stride 16."""
        return self.embed(self.tokens(images), rows)
