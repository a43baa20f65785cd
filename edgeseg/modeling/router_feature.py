"""What a router is told of an image: the mean of its embedding, padding left out."""

import torch.nn.functional as F
from torch import Tensor

_STRIDE = 16
# Padding is zero, or the whole bytes nearest to the mean (`edgeseg.signature.PADDING_RGB`), whose
# largest channel, blue, is 0.0082 after normalisation. The byte below that is at 0.0092.
_PADDING_LEVEL = 0.0087
_STEEPNESS = 1e4  # 5 at the first byte above the level, 3e4 at the largest: half precision holds it


def router_feature(images: Tensor, embedding: Tensor) -> Tensor:
    """Average an embedding over the cells that show something of the image.

    A cell counts if any of its pixels differs from what pads images, so an image and the same image
    with more padding have one feature. Arithmetic that every exporter takes.

    Args:
        images: (B, 3, S, S) float, normalised, padded at the right and bottom.
        embedding: (B, D, S/16, S/16) float, of the base, without any pack.

    Returns:
        (B, D) float.
    """
    largest = F.max_pool2d(images.abs().amax(dim=1, keepdim=True), _STRIDE)
    weight = (_STEEPNESS * (largest - _PADDING_LEVEL)).clamp(0, 1)  # (B, 1, S/16, S/16)
    total = weight.sum(dim=(2, 3)).clamp(min=1)
    return (embedding * weight).sum(dim=(2, 3)) / total
