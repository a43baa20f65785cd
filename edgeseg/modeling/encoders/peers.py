"""The forms of other projects' image encoders, for measuring time and size beside ours.

Built from timm's backbones after the published descriptions; their weights are random, and they do
not load the projects' checkpoints. Sources: Zhang et al. 2023, Faster Segment Anything (MobileSAM),
arXiv:2306.14289; Wu et al. 2022, TinyViT, arXiv:2207.10666; NVIDIA 2023, NanoSAM, whose encoder is
a ResNet-18 (He et al. 2015, arXiv:1512.03385) distilled from MobileSAM.
"""

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.modeling.encoders.neck import build_neck
from edgeseg.modeling.promptable import PyramidFeatures


class TinyViTEncoder(nn.Module):
    """TinyViT-5M whose last stage stays at stride 16, and SAM's neck, as in MobileSAM.

    Args:
        embed_dim: Width of the embedding.
    """

    def __init__(self, embed_dim: int = 256) -> None:
        super().__init__()
        self.backbone = timm.create_model("tiny_vit_5m_224", num_classes=0)
        last_downsampling = self.backbone.stages[-1].downsample  # type: ignore[index,union-attr]
        last_downsampling.conv2.conv.stride = (1, 1)
        self.backbone.head = nn.Identity()  # of the classifier
        self.neck = build_neck(self.backbone.num_features, embed_dim)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> PyramidFeatures:
        """Map (B, 3, S, S) to the embedding at stride 16."""
        stride16: Tensor = self.backbone.forward_features(images)  # type: ignore[operator]
        return PyramidFeatures(self.neck(stride16))


class ResNet18Encoder(nn.Module):
    """ResNet-18 down to stride 32, brought back to stride 16, and SAM's neck, as in NanoSAM.

    Args:
        embed_dim: Width of the embedding.
    """

    def __init__(self, embed_dim: int = 256) -> None:
        super().__init__()
        self.backbone = timm.create_model("resnet18", num_classes=0, global_pool="")
        self.up = nn.ConvTranspose2d(512, embed_dim, 2, stride=2)
        self.neck = build_neck(embed_dim, embed_dim)

    def forward(self, images: Tensor) -> PyramidFeatures:
        """Map (B, 3, S, S) to the embedding at stride 16."""
        stride32: Tensor = self.backbone.forward_features(images)  # type: ignore[operator]
        return PyramidFeatures(self.neck(F.gelu(self.up(stride32))))
