"""Adapters inside the encoder, the usual way, to measure the ones beside it against.

Sources: Liu et al. 2023, explicit visual prompting, arXiv:2303.10883, and Chen et al. 2023,
SAM-Adapter, arXiv:2304.09148, for transformers; Houlsby et al. 2019, arXiv:1902.00751, for residual
bottlenecks, here one after each stage of a convolutional backbone. The code is our own. Training
one keeps the activations of everything after the first adapter and goes back through it.
"""

import copy
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.adapt.high_frequency import HighFrequency, replicate_padding
from edgeseg.errors import ConfigError
from edgeseg.modeling.encoders.pyramid import PyramidEncoder
from edgeseg.modeling.encoders.repvit import RepViTEncoder
from edgeseg.modeling.encoders.vit import SamViT
from edgeseg.modeling.promptable import PromptableNet, PyramidFeatures, freeze

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

_PATCH = 16  # pixels along the side of a token of SAM's ViT


class BottleneckAdapter(nn.Module):
    """Residual of two 1x1 convolutions with few channels between them, zero at first.

    Args:
        channels: Number of input and output channels.
        width: Channels between them.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1)
        self.expand = _zeroed(nn.Conv2d(width, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x + self.expand(F.gelu(self.reduce(x)))


class SamAdapterViT(nn.Module):
    """SAM's ViT with an adapter before the first and after every block.

    Each adds to the tokens what a layer of its own and one that all share make of the same task
    features: those of the patches and of the image's fine detail. The shared layer is zero at
    first, which differs from the published adapter.

    Args:
        encoder: The encoder; it becomes a part of this one.
        width: Channels between the two layers.
        task_width: Channels of the task features.
    """

    def __init__(self, encoder: SamViT, width: int = 32, task_width: int = 192) -> None:
        super().__init__()
        self.encoder = encoder
        tokens_width = encoder.patch_embed.proj.out_channels
        self.high_frequency = HighFrequency(encoder.img_size, encoder.img_size)
        self.from_tokens = nn.Linear(tokens_width, task_width)
        self.from_detail = nn.Conv2d(3, task_width, _PATCH, stride=_PATCH)
        self.reduce = nn.ModuleList(
            nn.Linear(task_width, width) for _ in range(len(encoder.blocks) + 1)
        )
        self.expand = _zeroed(nn.Linear(width, tokens_width))

    def forward(self, images: Tensor) -> PyramidFeatures:
        """Map (B, 3, S, S) to the embedding at stride 16."""
        tokens = self.encoder.patch_embed(images) + self.encoder.pos_embed  # (B, h, w, C)
        detail = self.from_detail(self.high_frequency(replicate_padding(images)))
        task = self.from_tokens(tokens) + detail.permute(0, 2, 3, 1)
        first, *others = (self.expand(F.gelu(reduce(task))) for reduce in self.reduce)
        tokens = tokens + first
        for block, added in zip(self.encoder.blocks, others, strict=True):
            tokens = block(tokens) + added
        embedding: Tensor = self.encoder.neck(tokens.permute(0, 3, 1, 2))
        return PyramidFeatures(embedding.contiguous(memory_format=torch.channels_last))


def with_in_encoder_adapters(net: PromptableNet, width: int = 32) -> PromptableNet:
    """Return a frozen copy of a network with untrained adapters inside its image encoder.

    The adapters are the only parameters that learn; see `adapter_parameters`. Batch norms are in
    eval mode and should stay so, else their statistics drift.

    Args:
        net: An EdgeSeg, EdgeSAM or SAM model; it is left as it was.
        width: Channels of each adapter.

    Raises:
        ConfigError: The width is below one, or the encoder is of another kind.
    """
    if width < 1:
        raise ConfigError(f"width must be at least 1, got {width}; 8 to 64 are usual")
    adapted = copy.deepcopy(net)
    freeze(adapted)
    encoder = adapted.image_encoder
    if isinstance(encoder, SamViT):
        adapted.image_encoder = SamAdapterViT(encoder, width)
    elif isinstance(encoder, PyramidEncoder):
        stages = cast(nn.Sequential, encoder.backbone.blocks)
        _insert(stages, range(len(stages)), width)
    elif isinstance(encoder, RepViTEncoder):
        _insert(encoder.features, _stage_ends(encoder), width)
    else:
        raise ConfigError(
            f"{net.name} has the encoder {type(encoder).__name__}, which takes no adapters; adapt "
            "an EdgeSeg, EdgeSAM or SAM model"
        )
    return adapted.eval()


def adapter_parameters(adapted: PromptableNet) -> dict[str, nn.Parameter]:
    """Return what a copy with adapters has beside the network's own weights, by name."""
    return {name: each for name, each in adapted.named_parameters() if each.requires_grad}


def _insert(stages: nn.Sequential | nn.ModuleList, ends: Iterable[int], width: int) -> None:
    """Put an adapter after each of the stages, or blocks, with these numbers."""
    for end in ends:
        adapter = BottleneckAdapter(_out_channels(stages[end]), width)
        stages[end] = nn.Sequential(stages[end], adapter)


def _stage_ends(encoder: RepViTEncoder) -> Iterator[int]:
    """Yield the numbers of the blocks after which the width changes, and of the last."""
    widths = [_out_channels(block) for block in encoder.features]
    for index, (width, following) in enumerate(pairwise([*widths, None])):
        if width != following:
            yield index


def _out_channels(block: nn.Module) -> int:
    convolutions = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
    return convolutions[-1].out_channels


def _zeroed(layer: Layer) -> Layer:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
