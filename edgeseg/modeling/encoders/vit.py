"""SAM's ViT image encoders, through the package `segment-anything`; teachers only.

Source: Kirillov et al. 2023, Segment Anything, arXiv:2304.02643. The network code is the package's;
here it only gets the interface of the other encoders.
"""

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from edgeseg.modeling.promptable import NeckInput, PyramidFeatures


class SamViT(ImageEncoderViT):  # type: ignore[misc]
    """SAM's image encoder with global attention in every fourth part of its depth.

    Args:
        image_size: Side of the input in pixels; its positional encoding fits this size only.
        width: Width of the transformer.
        depth: Number of blocks.
        num_heads: Heads of each block.
        global_blocks: Indices of the blocks with global attention.
        embed_dim: Width of the embedding.
        window_size: Side of the windows of the other blocks, in patches.
    """

    def __init__(
        self,
        image_size: int,
        width: int,
        depth: int,
        num_heads: int,
        global_blocks: tuple[int, ...],
        embed_dim: int = 256,
        window_size: int = 14,
    ) -> None:
        super().__init__(
            img_size=image_size,
            patch_size=16,
            embed_dim=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=4,
            out_chans=embed_dim,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            global_attn_indexes=global_blocks,
            window_size=window_size,
        )

    def forward(self, images: Tensor) -> PyramidFeatures:
        """Map (B, 3, S, S) to the embedding at stride 16; a ViT has no finer level."""
        embedding: Tensor = self.neck(self.before_neck(images).merged)
        return PyramidFeatures(embedding.contiguous(memory_format=torch.channels_last))

    def before_neck(self, images: Tensor) -> NeckInput:
        """Encode as far as the neck; it takes channels second, the transformer last."""
        tokens = self.patch_embed(images) + self.pos_embed  # (B, S/16, S/16, width)
        for block in self.blocks:
            tokens = block(tokens)
        return NeckInput(tokens.permute(0, 3, 1, 2))
