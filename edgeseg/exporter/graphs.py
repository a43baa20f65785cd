"""Networks as export sees them: the flat tensors of `edgeseg.signature` in and out.

Each graph holds a copy of the weights in eval mode with branches and norms folded, runs the code
that training runs, and depends on the shapes of its inputs only, never on their values.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn

from edgeseg.exporter.matrix_upsampling import replace_bicubic
from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.promptable import DecoderOutput, ImageFeatures, PromptableNet, freeze
from edgeseg.modeling.proposal_head import ProposalHead, level_cells, read_rows
from edgeseg.modeling.reparam import fuse
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
from edgeseg.signature import ModelShape


def shape_of(net: PromptableNet) -> ModelShape:
    """Return what the shapes of a network's graphs depend on."""
    has_high_res = net.mask_decoder.high_res_s8 is not None
    return ModelShape(net.image_size, net.embed_dim, has_high_res)


class EncoderGraph(nn.Module):
    """Image to features, with the tensors of `edgeseg.signature.encoder_spec`.

    Args:
        net: The network; it is copied and left as it was.
        normalises: Take (S, S, 3) uint8 RGB instead of (1, 3, S, S) float32 normalised pixels.
    """

    def __init__(self, net: PromptableNet, normalises: bool = False) -> None:
        super().__init__()
        self.net = _frozen_copy(net, _deployed(net))
        self.normalisation = Normalisation() if normalises else nn.Identity()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Encode one image: its embedding, then features at strides 8 and 4 if there are any."""
        features = self.net.encode(self.normalisation(image))
        return (features.embedding, *(features.high_res or ()))


class DecoderGraph(nn.Module):
    """Features of one image and N prompts to answers: `edgeseg.signature.decoder_spec`.

    What does not depend on a prompt is computed once a call, however many prompts there are.

    Args:
        net: The network; it is copied and left as it was.
    """

    def __init__(self, net: PromptableNet) -> None:
        super().__init__()
        self.net = _frozen_copy(net, nn.Identity())
        self.num_features = len(shape_of(net).features)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Decode; the arguments are the features, points, labels, mask logits and `has_mask`."""
        features = tensors[: self.num_features]
        points_xy, labels, mask_logits, has_mask = tensors[self.num_features :]
        # As floats, since neither WebGPU nor older TensorRT compute with 64-bit integers.
        labels = labels.float()
        prompts = PromptBatch(points_xy, labels, (points_xy.shape[0],), mask_logits, has_mask)
        return _answers(self.net.decode(_as_features(features), prompts))


class FusedGraph(nn.Module):
    """One image and N prompts in its own pixels to answers: `edgeseg.signature.fused_spec`.

    Args:
        net: The network; it is copied and left as it was.
        normalises: As for `EncoderGraph`.
    """

    def __init__(self, net: PromptableNet, normalises: bool = False) -> None:
        super().__init__()
        self.net = _frozen_copy(net, _deployed(net))
        self.normalisation = Normalisation() if normalises else nn.Identity()

    def forward(
        self, image: Tensor, image_hw: Tensor, points_xy: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Bring (N, P, 2) points from the frame of the image into the model's, encode, decode."""
        points_xy_model = points_xy * model_scale_xy(image_hw, self.net.image_size)
        prompts = PromptBatch(points_xy_model, labels.float(), (points_xy.shape[0],))
        return _answers(self.net(self.normalisation(image), prompts))


class ProposalGraph(nn.Module):
    """Features of one image to boxes and scores: `edgeseg.signature.proposals_spec`.

    Convolutions keep channels first and maps four-dimensional, so that Core ML takes it as it is.

    Args:
        net: A network with a proposal head; it is copied and left as it was.
    """

    centers_xy: Tensor
    strides: Tensor

    def __init__(self, net: PromptableNet) -> None:
        super().__init__()
        assert net.proposal_head is not None
        head = freeze(fuse(net.proposal_head).to("cpu", torch.float32))
        self.head = cast(ProposalHead, head.to(memory_format=torch.contiguous_format))
        centers_xy, strides = level_cells(net.image_size)
        self.register_buffer("centers_xy", centers_xy)
        self.register_buffer("strides", strides)

    def forward(self, embedding: Tensor, stride8: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return boxes, (1, A, 4), scores, (1, A), and click logits, (1, A)."""
        maps = self.head.maps(embedding, stride8)
        rows = torch.cat([level.flatten(2) for level in maps], dim=2).transpose(1, 2)
        output = read_rows(rows, self.centers_xy, self.strides)
        return output.boxes_xyxy, output.scores, output.click_logits


class Normalisation(nn.Module):
    """Map (S, S, 3) uint8 RGB to the (1, 3, S, S) float32 that image encoders take."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(PIXEL_MEAN.copy())[:, None, None])
        self.register_buffer("std", torch.from_numpy(PIXEL_STD.copy())[:, None, None])

    def forward(self, image_rgb: Tensor) -> Tensor:
        """Normalise one image."""
        planes = image_rgb.float().permute(2, 0, 1).unsqueeze(0)  # TensorRT casts bytes first
        return (planes - self.mean) / self.std


def _deployed(net: PromptableNet) -> nn.Module:
    """Return a copy of the image encoder, folded and without bicubic upsampling."""
    encoder = fuse(net.image_encoder)
    replace_bicubic(encoder, net.image_size)
    return encoder


def _frozen_copy(net: PromptableNet, image_encoder: nn.Module) -> PromptableNet:
    """Return the network with another encoder and with copies of its prompt and mask parts."""
    parts = copy.deepcopy(net.prompt_encoder), copy.deepcopy(net.mask_decoder)
    copied = PromptableNet(image_encoder, *parts, net.image_size, net.name)
    freeze(copied.to("cpu", torch.float32))
    return copied.to(memory_format=torch.contiguous_format)


def _as_features(tensors: tuple[Tensor, ...]) -> ImageFeatures:
    embedding, *high_res = tensors
    return ImageFeatures(embedding, (high_res[0], high_res[1]) if high_res else None)


def _answers(output: DecoderOutput) -> tuple[Tensor, Tensor]:
    return output.low_res_logits, output.iou_scores


def model_scale_xy(image_hw: Tensor, image_size: int) -> Tensor:
    """Return (2,) model pixels per image pixel along x and y, as `edgeseg.geometry` scales.

    Rounding is a division of whole numbers, which float32 holds exactly up to 8192 pixels a side.
    """
    longest = image_hw.max()
    content_hw = torch.floor((2 * image_size * image_hw + longest) / (2 * longest)).clamp(min=1)
    height, width = (content_hw / image_hw).unbind(0)
    return torch.stack([width, height])
