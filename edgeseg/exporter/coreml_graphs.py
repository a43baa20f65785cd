"""Networks as Core ML export sees them: `edgeseg.signature`'s tensors, the Neural Engine's layout.

Equal to `edgeseg.exporter.graphs` in single precision but for rounding.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn

from edgeseg.exporter.coreml_decoder import MaskDecoderGraph
from edgeseg.exporter.coreml_geometry import ImageToModelFrame, PointEncoding, SlotReading
from edgeseg.exporter.coreml_layers import channels_first
from edgeseg.exporter.coreml_prompts import DensePromptGraph, PromptMap, PromptTokensGraph
from edgeseg.modeling.promptable import PromptableNet, freeze
from edgeseg.modeling.reparam import fuse
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
from edgeseg.signature import PADDING_RGB


class CoreMLEncoderGraph(nn.Module):
    """Image to features, with the tensors of `edgeseg.signature.encoder_spec`.

    A graph that normalises takes what Core ML makes of an RGB image: (1, 3, S, S) float, 0...255.

    Args:
        net: The network; it is copied and left as it was.
        normalises: Take pixels as they are instead of normalised ones.
    """

    def __init__(self, net: PromptableNet, normalises: bool = True) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).to("cpu", torch.float32)
        self.net.image_encoder = channels_first(fuse(self.net.image_encoder))
        freeze(self.to(memory_format=torch.contiguous_format))
        self.normalisation = PixelNormalisation() if normalises else nn.Identity()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Encode one image: the embedding, then features at strides 8 and 4 if there are any."""
        features = self.net.encode(self.normalisation(image))
        return (features.embedding, *(features.high_res or ()))


class PixelNormalisation(nn.Module):
    """Map (1, 3, S, S) pixels, 0...255, to what image encoders take.

    The rounded mean is taken off first: half precision holds whole numbers of this size exactly, so
    nothing is lost before the division.
    """

    padding: Tensor
    scale: Tensor
    rest: Tensor

    def __init__(self) -> None:
        super().__init__()
        padding = torch.tensor(PADDING_RGB, dtype=torch.float64)
        mean, std = torch.from_numpy(PIXEL_MEAN).double(), torch.from_numpy(PIXEL_STD).double()
        self.register_buffer("padding", _per_channel(padding))
        self.register_buffer("scale", _per_channel(1 / std))
        self.register_buffer("rest", _per_channel((padding - mean) / std))

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise one image."""
        return (pixels - self.padding) * self.scale + self.rest


class CoreMLDecoderGraph(nn.Module):
    """Features of one image and N prompts to answers: `edgeseg.signature.decoder_spec`.

    Args:
        net: The network; it is copied and left as it was.
        takes_masks: Whether there are inputs for mask prompts.
    """

    def __init__(self, net: PromptableNet, takes_masks: bool = True) -> None:
        super().__init__()
        net = copy.deepcopy(net).to("cpu", torch.float32)
        prompt_encoder, decoder = net.prompt_encoder, net.mask_decoder
        grid = net.image_size // 16
        position = prompt_encoder.pe_layer.grid((grid, grid))
        self.slots = SlotReading()
        self.encoding = PointEncoding(prompt_encoder.pe_layer, net.image_size)
        self.tokens = PromptTokensGraph(prompt_encoder)
        self.dense = DensePromptGraph(prompt_encoder)
        self.decoder = MaskDecoderGraph(decoder, position, takes_masks)
        self.grid_map = self.mask_map = None
        if prompt_encoder.prompt_map is not None:
            self.grid_map = PromptMap(net.image_size, grid)
        if decoder.refinement is not None:
            self.mask_map = PromptMap(net.image_size, 4 * grid)
        self.has_high_res = decoder.high_res_s8 is not None
        self.takes_masks = takes_masks
        freeze(self)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Decode; the arguments are the features, points, labels, mask logits and `has_mask`."""
        num_features = 3 if self.has_high_res else 1
        embedding, *high_res = tensors[:num_features]
        points_xy, labels, *mask_inputs = tensors[num_features:]
        masks = None
        if self.takes_masks:
            mask_logits, has_mask = mask_inputs
            masks = mask_logits, has_mask[:, None, None, None]
        slots = self.slots(labels)
        prompt_tokens = self.tokens(self.encoding(points_xy, slots.kinds), slots)
        drawn = None if self.grid_map is None else self.grid_map(points_xy, slots)
        cells = embedding + self.dense(drawn, masks)
        drawn = None
        if self.mask_map is not None:
            drawn = self.mask_map(points_xy, slots, masks)
        return cast(
            tuple[Tensor, Tensor],
            self.decoder(cells, prompt_tokens, slots.absent, tuple(high_res), drawn),
        )


class CoreMLFusedGraph(nn.Module):
    """One image and N prompts in its own pixels to answers: `edgeseg.signature.fused_spec`.

    Args:
        net: The network; it is copied and left as it was.
        normalises: As for `CoreMLEncoderGraph`.
    """

    def __init__(self, net: PromptableNet, normalises: bool = True) -> None:
        super().__init__()
        self.encoder = CoreMLEncoderGraph(net, normalises)
        self.frame = ImageToModelFrame(net.image_size)
        self.decoder = CoreMLDecoderGraph(net, takes_masks=False)

    def forward(
        self, image: Tensor, image_hw: Tensor, points_xy: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Bring (N, P, 2) points from the frame of the image into the model's, encode, decode."""
        points_xy_model = self.frame(points_xy, image_hw)
        return self.decoder(*self.encoder(image), points_xy_model, labels)


def _per_channel(values: Tensor) -> Tensor:
    return values.float()[None, :, None, None]
