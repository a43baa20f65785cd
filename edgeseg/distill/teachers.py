"""Who the student learns from: one interface for SAM's ViTs and for our own models.

A teacher is a frozen `PromptableNet`. SAM's image encoders come from the package
`segment-anything`; prompt encoder and mask decoder are ours, which answer all prompts of a batch at
once and are proven equal to the package's with the same weights.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from edgeseg.modeling.checkpoints import fingerprint, load_model
from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.promptable import DecoderOutput, ImageFeatures, PromptableNet, freeze


class Teacher(Protocol):
    """Answers that a student is trained to give."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def image_size(self) -> int:
        """Side T of its square input, in pixels."""

    @property
    def fingerprint(self) -> str:
        """Hash of its weights."""

    def embed(self, images: Tensor) -> ImageFeatures:
        """Encode (B, 3, T, T) float32 normalised, padded images."""

    def answer(self, features: ImageFeatures, prompts: PromptBatch) -> DecoderOutput:
        """Decode prompts in the teacher's frame: masks and the scores it gives them."""

    def feature_shapes(self) -> "FeatureShapes":
        """Return the shapes of one image's features."""


@dataclass(frozen=True)
class FeatureShapes:
    """How the features of one image lie in one flat row of a cache.

    Attributes:
        shapes: (C, h, w) of the embedding, then of the high-resolution features, if any.
    """

    shapes: tuple[tuple[int, int, int], ...]

    @property
    def length(self) -> int:
        """Numbers of one image."""
        return sum(c * h * w for c, h, w in self.shapes)

    def pack(self, features: ImageFeatures) -> Tensor:
        """Flatten the features of B images to (B, length)."""
        parts = (features.embedding, *(features.high_res or ()))
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def unpack(self, rows: Tensor) -> ImageFeatures:
        """Undo `pack`: (B, length, ...) to features."""
        sizes = [c * h * w for c, h, w in self.shapes]
        split = rows.flatten(1).split(sizes, dim=1)
        parts = [part.unflatten(1, shape) for part, shape in zip(split, self.shapes, strict=True)]
        return ImageFeatures(parts[0], (parts[1], parts[2]) if len(parts) == 3 else None)


class NetTeacher:
    """A frozen network as a teacher.

    Args:
        net: It is put into eval mode and its parameters take no gradients from here on.
    """

    def __init__(self, net: PromptableNet) -> None:
        freeze(net)
        self.net = net
        self.name = net.name
        self.image_size = net.image_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return fingerprint(self.net)

    @torch.no_grad()
    def embed(self, images: Tensor) -> ImageFeatures:
        """Encode (B, 3, T, T) float32 normalised, padded images."""
        return self.net.encode(images.contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def answer(self, features: ImageFeatures, prompts: PromptBatch) -> DecoderOutput:
        """Decode prompts in the teacher's frame."""
        return self.net.decode(features, prompts)

    def feature_shapes(self) -> FeatureShapes:
        """Return the shapes of one image's features."""
        grid, width = self.image_size // 16, self.net.embed_dim
        shapes = [(width, grid, grid)]
        if self.net.mask_decoder.high_res_s8 is not None:
            shapes += [(width // 4, 2 * grid, 2 * grid), (width // 8, 4 * grid, 4 * grid)]
        return FeatureShapes(tuple(shapes))


def load_teacher(
    name_or_path: str | Path, model: str | None = None, image_size: int | None = None
) -> NetTeacher:
    """Load a teacher.

    Args:
        name_or_path: A released model's name, a model folder, an official SAM `.pth` (ViT-H, L or
            B are told apart by their width), an EdgeSAM `.pth`, or our `.safetensors`.
        model: Registry name, for files that do not say it themselves.
        image_size: Side of its input in pixels; default: as trained.

    Raises:
        WeightsError: There is no such model, or the file does not fit.
    """
    return NetTeacher(load_model(name_or_path, image_size, model))
