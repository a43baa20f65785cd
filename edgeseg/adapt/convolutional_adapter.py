"""CAD: a small convolutional network beside the frozen encoder that corrects its embedding.

Source: Kim et al. 2024, CAD, arXiv:2409.15889; after the published description and figures, the
code is our own. It sees the image and its fine detail, never an activation of the encoder, so that
training keeps none and embeddings can be computed once. Two forms:

- `build_cad`, as published, for reproduction: as wide as the embedding, corrections of at most 0.1.
- `build_cad_lite`, for the device: narrow, at half the resolution, with a learned scale that is
  zero at first.

What differs from the published form: aspect ratios are kept, as our models keep them; padding is
continued (`replicate_padding`); a channel whose maximum is below one of 255 is not stretched, since
all it has is rounding: a black colour channel, or the fine detail of a flat image.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.adapt.high_frequency import HighFrequency, replicate_padding
from edgeseg.errors import ImageError
from edgeseg.modeling.promptable import check_image_size
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD

PUBLISHED_SCALE = 0.1
"""Largest correction of the published form."""
_PUBLISHED_SIDE = 512  # of the square images that the published adapter sees, in pixels
_STRIDE = 16  # of the embedding
_SLOPE = 0.1  # of LeakyReLU
_NO_LIMIT = 1e4  # above any maximum, within half precision; WebGPU clips at two ends only


class DilatedBlock(nn.Module):
    """Residual of a dilated 3x3 convolution, at half the resolution.

    Args:
        channels: Number of input and output channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H / 2, W / 2)."""
        return F.avg_pool2d(x + F.leaky_relu(self.norm(self.conv(x)), _SLOPE), 2)


class ConvolutionalAdapter(nn.Module):
    """Adds to an embedding what the image itself says about a domain.

    With a learned scale an untrained adapter changes nothing: `torch.equal` holds for whatever
    image and weights are finite. (One bit is not kept: adding zero turns a negative zero into a
    positive one.) Until the scale has moved, after the first step, nothing else has a gradient.

    `edgeseg.modeling.reparam.fuse` folds its batch norms. It holds constants of its image size, so
    state dicts have weights only.

    Args:
        image_size: Side S of the square model input, in pixels.
        embed_dim: Width D of the embedding.
        width: Channels of the blocks. If it is not D, a 1x1 convolution leads from one to the
            other.
        pixel_side: Model pixels that are averaged, along each side, into one that it sees.
        scale: Constant factor of the correction, or None to learn one a channel, from zero.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_size: int,
        embed_dim: int,
        width: int,
        pixel_side: Literal[1, 2] = 2,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        check_image_size(image_size)
        self.image_size = image_size
        self.pixel_side = pixel_side
        self.high_frequency = HighFrequency(image_size // pixel_side, image_size // pixel_side)
        self.widen = nn.Conv2d(6, width, 1)
        self.blocks = nn.ModuleList(DilatedBlock(width) for _ in range(3))
        self.project = nn.Conv2d(width, embed_dim, 1) if width != embed_dim else nn.Identity()
        if scale is None:
            self.scale = nn.Parameter(torch.zeros(1, embed_dim, 1, 1))
        else:
            self.register_buffer("scale", torch.tensor(scale), persistent=False)
        for name, values in (("mean", PIXEL_MEAN), ("std", PIXEL_STD)):
            per_channel = torch.from_numpy(values.copy())[None, :, None, None]
            self.register_buffer(name, per_channel, persistent=False)

    def forward(self, images: Tensor, embedding: Tensor) -> Tensor:
        """Correct an embedding.

        Args:
            images: (B, 3, S, S) float, normalised, padded at the right and bottom: the input of the
                image encoder.
            embedding: (B, D, S/16, S/16) float, what the encoder made of them.

        Returns:
            (B, D, S/16, S/16) float.

        Raises:
            ImageError: The images have another size.
        """
        return embedding + self.scale * self.correction(images)

    def correction(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) images to the (B, D, S/16, S/16) correction before its scale, -1...1."""
        x = self.widen(self.channels(images))
        levels = []
        for block in self.blocks:
            x = block(x)
            window = _STRIDE * x.shape[-1] // self.image_size
            levels.append(F.avg_pool2d(x, window) if window > 1 else x)
        return torch.tanh(self.project(levels[0] + levels[1] + levels[2]))

    def channels(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) images to the (B, 6, s, s) pixels and fine detail it sees, 0...1."""
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise ImageError(
                f"images must be (B, 3, {self.image_size}, {self.image_size}), the size this "
                f"adapter was built for, got {tuple(images.shape)}; build one for this size or "
                "preprocess to that one"
            )
        pixels = replicate_padding(images) * self.std + self.mean  # 0...255, but for rounding
        if self.pixel_side > 1:
            pixels = F.avg_pool2d(pixels, self.pixel_side)
        seen = torch.cat([pixels, self.high_frequency(pixels)], dim=1)
        largest = seen.amax(dim=(2, 3), keepdim=True)
        return seen / (largest.clamp(1.0, _NO_LIMIT) + 1e-5)


def build_cad(image_size: int, embed_dim: int = 256) -> ConvolutionalAdapter:
    """Build the published adapter: constant scale 0.1, images at 512 pixels or nearest below.

    At 512 pixels, 256 wide: 1,773,568 parameters and 203 GMAC an image, several times a whole
    encoder; for reproduction, not for a device.

    Args:
        image_size: Side S of the square model input, in pixels.
        embed_dim: Width D of the embedding, and of the adapter.

    Raises:
        ImageError: The size is not a multiple of 64.
    """
    pixel_side: Literal[1, 2] = 1 if image_size <= _PUBLISHED_SIDE else 2
    return ConvolutionalAdapter(image_size, embed_dim, embed_dim, pixel_side, PUBLISHED_SCALE)


def build_cad_lite(image_size: int, embed_dim: int = 256, width: int = 32) -> ConvolutionalAdapter:
    """Build the adapter for devices: half the resolution, a learned scale that starts at zero.

    For a model of 512 pixels, 256 wide: 36,864 parameters and 0.92 GMAC an image at width 32,
    128,512 and 3.31 at width 64, a ninth of it (0.10 GMAC) for fine detail.

    Args:
        image_size: Side S of the square model input, in pixels.
        embed_dim: Width D of the embedding.
        width: Channels of its blocks.

    Raises:
        ImageError: The size is not a multiple of 64.
    """
    return ConvolutionalAdapter(image_size, embed_dim, width)
