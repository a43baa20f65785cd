"""Small networks, necks and images for the tests of adapters; random numbers everywhere."""

import functools

import numpy as np
import torch

from edgeseg.modeling.encoders.neck import build_neck
from edgeseg.modeling.encoders.vit import SamViT
from edgeseg.modeling.registry import build_model
from edgeseg.preprocess import preprocess

SIDE = 64
NECKS = {
    "one 3x3 convolution": lambda: build_neck(10, 8),
    "separable": lambda: build_neck(10, 8, separable=True),
    "SAM's": lambda: SamViT(64, 10, 1, 2, (0,), embed_dim=8).neck,
}
"""Every form of neck, from 10 channels to 8."""


def randomised(module, seed=0):
    """Draw every weight, bias and statistic anew, zero-initialised ones too; return the module."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict(keep_vars=True).items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(1 + 0.2 * noise.abs())
            elif tensor.ndim == 1:
                tensor.copy_(0.2 * noise)
            else:
                tensor.copy_(noise / max(1, tensor[0].numel()) ** 0.5)
    return module


@functools.cache
def tiny_net(name="edgeseg_tiny"):
    """A network of 64 pixels, 32 wide, in eval mode; the same object at every call."""
    return randomised(build_model(name, SIDE)).eval()


def random_bytes(height, width, seed=0):
    """An image, (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def padded_images(*sizes_hw):
    """A batch of images of 64 pixels, normalised and padded, whose contents have these sizes."""
    images = [
        preprocess(random_bytes(*size_hw, seed), SIDE) for seed, size_hw in enumerate(sizes_hw)
    ]
    return torch.from_numpy(np.concatenate(images))
