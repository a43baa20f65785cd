"""The whole network: image encoder, prompt encoder, mask decoder, and perhaps proposals."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from edgeseg.errors import ImageError, PromptError, WeightsError
from edgeseg.modeling.mask_decoder import MaskDecoder
from edgeseg.modeling.mask_refinement import draw_prompts
from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.prompt_encoder import PromptEncoder
from edgeseg.modeling.proposal_head import ProposalHead, ProposalOutput
from edgeseg.modeling.reparam import fuse


@dataclass(frozen=True)
class ImageFeatures:
    """What the image encoder says about a batch of images, before any prompt.

    Attributes:
        embedding: (B, D, H, W) float, image embeddings at stride 16.
        high_res: (B, D/4, 2H, 2W) and (B, D/8, 4H, 4W) float for the decoder's high-resolution
            skips, or None for a model without them.
    """

    embedding: Tensor
    high_res: tuple[Tensor, Tensor] | None = None

    def detach(self) -> "ImageFeatures":
        """Return the same values without their history."""
        high_res = None
        if self.high_res is not None:
            high_res = self.high_res[0].detach(), self.high_res[1].detach()
        return ImageFeatures(self.embedding.detach(), high_res)


@dataclass(frozen=True)
class DecoderOutput:
    """Masks of a batch of prompts.

    Attributes:
        low_res_logits: (T, 4, 4H, 4W) float, mask logits in the frame of the model input at a
            quarter of its side; above zero is object. Token 0 is the single answer, 1 to 3 are the
            answers to an ambiguous prompt.
        iou_scores: (T, 4) float, the IoU each mask is expected to have.
    """

    low_res_logits: Tensor
    iou_scores: Tensor


@dataclass(frozen=True)
class PyramidFeatures:
    """What an image encoder returns.

    Attributes:
        embedding: (B, D, S/16, S/16) float.
        stride8: (B, C8, S/8, S/8) float, or None from encoders without a pyramid.
        stride4: (B, C4, S/4, S/4) float, or None.
    """

    embedding: Tensor
    stride8: Tensor | None = None
    stride4: Tensor | None = None


@dataclass(frozen=True)
class NeckInput:
    """What an image encoder has computed when only its neck is left to run.

    Attributes:
        merged: (B, C, S/16, S/16) float, what the neck takes.
        stride8: As in `PyramidFeatures`.
        stride4: As in `PyramidFeatures`.
    """

    merged: Tensor
    stride8: Tensor | None = None
    stride4: Tensor | None = None

    def through(self, neck: Callable[[Tensor], Tensor]) -> PyramidFeatures:
        """Run a neck, the encoder's own or an adapted one."""
        return PyramidFeatures(neck(self.merged), self.stride8, self.stride4)


class ImageEncoder(Protocol):
    """Anything that maps (B, 3, S, S) normalised images to features at stride 16."""

    def __call__(self, images: Tensor) -> PyramidFeatures:
        """Encode a batch of images."""


@runtime_checkable
class NeckedEncoder(Protocol):
    """An image encoder that is `before_neck(images).through(neck)`; SAM's and our own are."""

    neck: nn.Module

    def before_neck(self, images: Tensor) -> NeckInput:
        """Encode a batch of images as far as the neck."""

    def __call__(self, images: Tensor) -> PyramidFeatures:
        """Encode a batch of images."""


class PromptableNet(nn.Module):
    """A segmenter that is told by prompts what to segment.

    Args:
        image_encoder: Network with the signature of `ImageEncoder`.
        prompt_encoder: Encoder of points, boxes and masks.
        mask_decoder: Decoder of the same width.
        image_size: Side S of the square input in pixels, a multiple of 64. Convolutional encoders
            take any such size; this is the one the weights were trained for.
        name: Registry name of the model.
        proposal_head: Proposes boxes before anyone clicks, or None.
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        image_size: int,
        name: str,
        proposal_head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_image_size(image_size)
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.proposal_head = proposal_head
        self.image_size = image_size
        self.name = name

    def add_proposal_head(self) -> None:
        """Put a proposal head with random weights in place, instead of one there may be."""
        skip = self.mask_decoder.high_res_s8
        self.proposal_head = ProposalHead(
            self.embed_dim, None if skip is None else skip.out_channels
        ).to(next(self.parameters()).device)

    def folded(self) -> "PromptableNet":
        """Return a copy in eval mode with branches and norms folded into convolutions.

        Prompt encoder and mask decoder have none; they are shared.
        """
        folded = copy.copy(self)
        folded._modules = dict(self._modules)
        for name, part in self._modules.items():
            if part is not None and name not in ("prompt_encoder", "mask_decoder"):
                folded._modules[name] = fuse(part)
        return folded.eval()

    def encode(self, images: Tensor) -> ImageFeatures:
        """Encode (B, 3, S, S) float32 normalised, padded images, once an image.

        Raises:
            ImageError: The images are not square or their side is not a multiple of 64.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ImageError(
                f"images must be (B, 3, S, S), got {tuple(images.shape)}; "
                "make them with edgeseg.preprocess.preprocess"
            )
        check_image_size(images.shape[2])
        return self.image_features(self.image_encoder(images))

    def image_features(self, pyramid: PyramidFeatures) -> ImageFeatures:
        """Turn what the image encoder returned into what the decoder takes."""
        if self.mask_decoder.high_res_s8 is None:
            return ImageFeatures(pyramid.embedding)
        assert pyramid.stride8 is not None
        assert pyramid.stride4 is not None
        high_res = self.mask_decoder.project_high_res(pyramid.stride8, pyramid.stride4)
        return ImageFeatures(pyramid.embedding, high_res)

    def decode(
        self, features: ImageFeatures, prompts: PromptBatch, add_padding_point: bool = True
    ) -> DecoderOutput:
        """Decode all prompts of all images in one call.

        Args:
            features: Of B images.
            prompts: T prompts in model pixels; `prompts.counts` says how many each image has.
            add_padding_point: See `PromptEncoder.forward`.

        Returns:
            Four masks and scores a prompt.

        Raises:
            PromptError: The prompts are of another number of images, or a mask prompt is of another
                input size.
        """
        if len(prompts.counts) != features.embedding.shape[0]:
            raise PromptError(
                f"counts must have one number an image, got {prompts.counts} for "
                f"{features.embedding.shape[0]} images; give images without prompts a 0"
            )
        rows, cols = features.embedding.shape[-2:]
        tokens = self.prompt_encoder(prompts, 16 * rows, (rows, cols), add_padding_point)
        drawn = None
        if self.mask_decoder.refinement is not None:
            drawn = draw_prompts(prompts, 16 * rows, (4 * rows, 4 * cols))
        logits, scores = self.mask_decoder(
            features.embedding,
            self.prompt_encoder.pe_layer.grid((rows, cols)),
            self.prompt_encoder.no_mask_embed.weight,
            tokens,
            prompts.groups,
            features.high_res,
            drawn,
        )
        return DecoderOutput(logits, scores)

    def propose(self, features: ImageFeatures) -> ProposalOutput:
        """Propose boxes on all images, without any prompt.

        Raises:
            WeightsError: The model has no proposal head.
        """
        if self.proposal_head is None:
            raise WeightsError(
                f"{self.name} has no proposal head; train one with [proposal_stage] or load "
                "weights that have it"
            )
        stride8 = None if features.high_res is None else features.high_res[0]
        output: ProposalOutput = self.proposal_head(features.embedding, stride8)
        return output

    def forward(self, images: Tensor, prompts: PromptBatch) -> DecoderOutput:
        """Encode and decode."""
        return self.decode(self.encode(images), prompts)

    @property
    def embed_dim(self) -> int:
        """Width D of the image embedding."""
        return self.mask_decoder.mask_tokens.embedding_dim

    def num_parameters(self) -> int:
        """Count the stored numbers, norm statistics left out, as model cards of the family do."""
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        state = self.state_dict().items()
        return sum(tensor.numel() for name, tensor in state if not name.endswith(statistics))


def check_image_size(image_size: int) -> None:
    """Raise unless the side of the model input is a positive multiple of 64.

    Raises:
        ImageError: With the size that was got and the nearest that works.
    """
    if image_size < 64 or image_size % 64:
        nearest = max(64, round(image_size / 64) * 64)
        raise ImageError(
            f"the model input must have a side that is a multiple of 64, got {image_size}; "
            f"use {nearest}"
        )


def freeze(module: nn.Module) -> nn.Module:
    """Put a module into eval mode without gradients, for good, and return it."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.eval()
