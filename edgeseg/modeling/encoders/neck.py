"""SAM's neck: the layers that give every image embedding its scale.

Source: Kirillov et al. 2023, Segment Anything, arXiv:2304.02643.
"""

from torch import nn

from edgeseg.modeling.layers import LayerNorm2d


def build_neck(in_channels: int, embed_dim: int, separable: bool = False) -> nn.Sequential:
    """Build 1x1 convolution, norm, 3x3 convolution, norm, ending `embed_dim` wide.

    Its last norm gives the embedding the statistics that a SAM mask decoder expects.

    Args:
        in_channels: Channels it takes.
        embed_dim: Width of the embedding.
        separable: Split the 3x3 convolution into a depthwise and a 1x1 one, a ninth of the work
            (Howard et al. 2017, MobileNets, arXiv:1704.04861); SAM's weights do not fit then.
    """
    spatial: nn.Module = nn.Conv2d(embed_dim, embed_dim, 3, padding=1, bias=False)
    if separable:
        spatial = _separable(embed_dim)
    return nn.Sequential(
        nn.Conv2d(in_channels, embed_dim, 1, bias=False),
        LayerNorm2d(embed_dim),
        spatial,
        LayerNorm2d(embed_dim),
    )


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
    )
