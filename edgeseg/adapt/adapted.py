"""A network and what a pack adds to it, as one network.

The base is frozen and shared, never copied but for a decoder that learns. Of an image the base is
computed once ("what a pack reads"), so a training that keeps these features never runs the encoder
again; see `cached_views`.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.adapt.convolutional_adapter import ConvolutionalAdapter, build_cad, build_cad_lite
from edgeseg.adapt.memory_pack import MemoryPack
from edgeseg.adapt.neck_delta import NeckDelta, neck_of
from edgeseg.adapt.settings import (
    ConvolutionalSettings,
    MemorySettings,
    NeckDeltaSettings,
    PackSettings,
)
from edgeseg.distill.lora import add_lora
from edgeseg.distill.stage_config import LoraConfig
from edgeseg.distill.teachers import FeatureShapes
from edgeseg.errors import WeightsError
from edgeseg.modeling.promptable import ImageFeatures, NeckedEncoder, PromptableNet

Reads = Literal["embedding", "merged"]
"""What a pack starts from: the embedding, or what the encoder has just before its neck."""
_ADAPTER = "adapter."


class AdaptedNet(PromptableNet):
    """A frozen network with a pack.

    Args:
        base: The network; its parameters take no gradients from here on.
        settings: Of the pack; it starts untrained, as the base itself.
    """

    def __init__(self, base: PromptableNet, settings: PackSettings) -> None:
        base.requires_grad_(False)
        decoder = base.mask_decoder
        if settings.decoder != "frozen":
            decoder = copy.deepcopy(decoder)
        super().__init__(
            base.image_encoder,
            base.prompt_encoder,
            decoder,
            base.image_size,
            base.name,
            base.proposal_head,
        )
        self.settings = settings
        self.adapter = _build_adapter(base, settings)
        if settings.decoder == "low_rank":
            rank = settings.decoder_rank
            add_lora(self, LoraConfig(parts=("mask_decoder",), rank=rank, alpha=rank))
        elif settings.decoder == "full":
            decoder.requires_grad_(True)

    @property
    def reads(self) -> Reads:
        """What the pack starts from."""
        return "merged" if isinstance(self.adapter, NeckDelta) else "embedding"

    def read_shapes(self) -> FeatureShapes:
        """Return the shapes of what the pack reads of one image; see `read`."""
        grid, width = self.image_size // 16, self.embed_dim
        channels = width
        if self.reads == "merged":
            first = next(part for part in self.neck.modules() if isinstance(part, nn.Conv2d))
            channels = first.in_channels
        shapes = [(channels, grid, grid)]
        if self.mask_decoder.high_res_s8 is not None:
            shapes += [(width // 4, 2 * grid, 2 * grid), (width // 8, 4 * grid, 4 * grid)]
        return FeatureShapes(tuple(shapes))

    @property
    def neck(self) -> nn.Module:
        """The neck of the base's encoder."""
        return neck_of(self)

    @torch.no_grad()
    def read(self, images: Tensor) -> ImageFeatures:
        """Compute what the pack reads of (B, 3, S, S) images.

        Returns:
            Features whose `embedding` is the base's, or the input of its neck.
        """
        if self.reads == "embedding":
            return super().encode(images)
        encoder = self.image_encoder
        assert isinstance(encoder, NeckedEncoder)  # `neck_of` has seen it
        return self.image_features(encoder.before_neck(images).through(lambda merged: merged))

    def adapt(
        self, images: Tensor, read: ImageFeatures, sample_names: Sequence[str] | None = None
    ) -> ImageFeatures:
        """Turn what was read into features for the decoder.

        Args:
            images: (B, 3, S, S), of which only a convolutional pack takes notice.
            read: See `read`; gradients do not go back into it.
            sample_names: Names of training images, in training only: a memory neither shows an
                image its own rows nor forgets whose they are.
        """
        embedding = read.embedding
        if isinstance(self.adapter, ConvolutionalAdapter):
            embedding = self.adapter(images, embedding)
        elif isinstance(self.adapter, MemoryPack):
            embedding = self.adapter(embedding, sample_names)
        elif self.adapter is not None:
            embedding = self.adapter(embedding)
        return ImageFeatures(embedding, read.high_res)

    def encode(self, images: Tensor) -> ImageFeatures:
        """Encode (B, 3, S, S) images, adapted; see `PromptableNet.encode`."""
        return self.adapt(images, self.read(images))

    def learning_parameters(self) -> dict[str, nn.Parameter]:
        """Return what learns, by name: "adapter." and "mask_decoder."."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def pack_state(self) -> dict[str, NDArray[Any]]:
        """Return what a pack keeps: the adapter's state and what of the decoder learned."""
        found: dict[str, Tensor] = {
            name: p for name, p in self.learning_parameters().items() if "mask_decoder." in name
        }
        kept = self._kept_part()
        if kept is not None:
            found |= {f"{_ADAPTER}{name}": tensor for name, tensor in kept.state_dict().items()}
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in found.items()}

    def load_pack_state(self, state: Mapping[str, NDArray[Any]], source: str) -> None:
        """Take over what `pack_state` gave, strictly.

        Raises:
            WeightsError: Names, shapes or numbers do not fit; nothing is changed.
        """
        wanted = self.pack_state()
        wrong = sorted(
            name
            for name in wanted.keys() | state.keys()
            if name not in state or name not in wanted or state[name].shape != wanted[name].shape
        )
        if wrong:
            raise WeightsError(
                f"{source} does not fit {self.name} with these settings: {', '.join(wrong[:6])} "
                "differ; make the pack again with this base"
            )
        unfit = sorted(name for name, value in state.items() if not np.isfinite(value).all())
        if unfit:
            raise WeightsError(f"{source} has numbers that are not finite in {unfit[0]}")
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
        kept = self._kept_part()
        if kept is not None:
            own = {
                n.removeprefix(_ADAPTER): t for n, t in tensors.items() if n.startswith(_ADAPTER)
            }
            kept.load_state_dict(own)
        with torch.no_grad():
            for name, parameter in self.mask_decoder.named_parameters(prefix="mask_decoder"):
                if name in tensors:
                    parameter.copy_(tensors[name])

    def _kept_part(self) -> nn.Module | None:
        """Return what of the adapter goes into the pack: of a memory only its prototypes."""
        return self.adapter.prototypes if isinstance(self.adapter, MemoryPack) else self.adapter


def _build_adapter(base: PromptableNet, settings: PackSettings) -> nn.Module | None:
    if isinstance(settings, ConvolutionalSettings):
        if settings.form == "published":
            return build_cad(base.image_size, base.embed_dim)
        return build_cad_lite(base.image_size, base.embed_dim, settings.width)
    if isinstance(settings, NeckDeltaSettings):
        return NeckDelta(neck_of(base), settings.rank, settings.rank)
    if isinstance(settings, MemorySettings):
        return MemoryPack(base.embed_dim, settings)
    return None
