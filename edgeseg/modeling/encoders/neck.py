"""SAM's neck: the layers that give every image embedding its scale.

Source: Kirillov et al. 2023, Segment Anything, arXiv:2304.02643.
"""

from torch import nn

from edgeseg.modeling.layers import LayerNorm2d


def build_neck(in_channels: int, embed_dim: int) -> nn.Sequential:
    """Build 1x1 convolution, norm, 3x3 convolution, norm, ending `embed_dim` wide.

    Its last norm gives the embedding the statistics that a SAM mask decoder expects.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, embed_dim, 1, bias=False),
        LayerNorm2d(embed_dim),
        nn.Conv2d(embed_dim, embed_dim, 3, padding=1, bias=False),
        LayerNorm2d(embed_dim),
    )
