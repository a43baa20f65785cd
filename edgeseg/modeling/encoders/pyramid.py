"""A timm backbone with a top-down pyramid that ends in SAM's neck.

Source: feature pyramids, Lin et al. 2017, arXiv:1612.03144. Levels are joined by addition of 1x1
projections; the operators are convolution, bilinear upsampling, addition and layer norm.
"""

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.modeling.encoders.neck import build_neck
from edgeseg.modeling.promptable import NeckInput, PyramidFeatures


class PyramidEncoder(nn.Module):
    """Backbone, pyramid from the deepest level up to stride 16, neck.

    Args:
        backbone: A timm model name whose features come at strides 4, 8, 16 and 32.
        embed_dim: Width of the embedding.
        deepest_stride: 32, or 16 to leave out the backbone's last stages.
        separable_neck: Take the neck's 3x3 convolution apart, a ninth of its work.
    """

    def __init__(
        self,
        backbone: str,
        embed_dim: int,
        deepest_stride: int = 32,
        separable_neck: bool = False,
    ) -> None:
        super().__init__()
        levels = (1, 2, 3, 4) if deepest_stride == 32 else (1, 2, 3)
        self.backbone = timm.create_model(backbone, features_only=True, out_indices=levels)
        _drop_unused_stages(self.backbone)
        channels = self.backbone.feature_info.channels()  # type: ignore[union-attr,operator]
        self.stride4_channels, self.stride8_channels = channels[:2]
        self.laterals = nn.ModuleList(
            nn.Conv2d(width, embed_dim, 1, bias=False) for width in channels[2:]
        )
        self.neck = build_neck(embed_dim, embed_dim, separable_neck)

    def forward(self, images: Tensor) -> PyramidFeatures:
        """Map (B, 3, S, S) to an embedding at stride 16 and features at strides 8 and 4."""
        return self.before_neck(images).through(self.neck)

    def before_neck(self, images: Tensor) -> NeckInput:
        """Encode as far as the neck."""
        stride4, stride8, *deep = self.backbone(images)
        merged = self.laterals[-1](deep[-1])
        for level, lateral in zip(deep[-2::-1], self.laterals[-2::-1], strict=True):
            merged = F.interpolate(merged, scale_factor=2.0, mode="bilinear", align_corners=False)
            merged = merged + lateral(level)
        return NeckInput(merged, stride8, stride4)


def _drop_unused_stages(backbone: nn.Module) -> None:
    """Remove the stages below the deepest level asked for; timm would compute and ignore them."""
    last_used = backbone.feature_info.info[backbone.feature_info.out_indices[-1]]["stage"]  # type: ignore[union-attr,index]
    backbone.blocks = backbone.blocks[:last_used]  # type: ignore[index]
