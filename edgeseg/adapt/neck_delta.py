"""Low-rank updates of an encoder's neck: a pack that costs nothing once it is merged.

The neck is the last and smallest part of every encoder here, so it can be trained on features that
were computed once, and its updated weights take the place of the old ones: the exported graph is
that of the model without pack.

Source: Hu et al. 2021, LoRA, arXiv:2106.09685, for the updates; a depthwise kernel counts as one
matrix too, channels by nine.
"""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgeseg.distill.lora import LowRankUpdate
from edgeseg.errors import ConfigError, WeightsError
from edgeseg.modeling.promptable import NeckedEncoder, PromptableNet


class NeckDelta(nn.Module):
    """A neck with updates of its convolutions and of the last norm's gain and bias.

    Zero at first: an untrained delta gives the very numbers of the neck. The neck is referred to,
    not contained: parameters and state dict are those of the updates, `to` moves them alone, and
    the neck itself is neither trained nor changed.

    Args:
        neck: Of `edgeseg.modeling.encoders.neck` or of SAM's ViT; ends in a norm.
        rank: Rank of each update; at most what the matrix of a kernel has.
        alpha: Updates are scaled by alpha / rank.

    Raises:
        ConfigError: The rank is below one, or the neck has no convolution or ends in no norm.
    """

    def __init__(self, neck: nn.Module, rank: int = 8, alpha: float = 8.0) -> None:
        super().__init__()
        if rank < 1:
            raise ConfigError(f"rank must be at least 1, got {rank}; 4 to 16 are usual")
        convolutions = {
            name: part for name, part in neck.named_modules() if isinstance(part, nn.Conv2d)
        }
        self._norm_name, norm = list(neck.named_children())[-1]
        gain, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
        if not convolutions or gain is None or bias is None or gain.ndim != 1:
            raise ConfigError(
                f"a neck must be convolutions and a norm at the end, got {len(convolutions)} "
                f"convolutions and {type(norm).__name__}; give net.image_encoder.neck as built"
            )
        self._neck = (neck,)  # in a tuple, so that it does not become a part
        self.updates = nn.ModuleDict(
            {
                _key(name): _update_of(convolution.weight, rank, alpha)
                for name, convolution in convolutions.items()
            }
        )
        self._weights = {f"{name}.weight": _key(name) for name in convolutions}
        self.gain = nn.Parameter(torch.zeros_like(gain))
        self.bias = nn.Parameter(torch.zeros_like(bias))

    @property
    def neck(self) -> nn.Module:
        """The neck this delta was built for."""
        return self._neck[0]

    def forward(self, merged: Tensor) -> Tensor:
        """Map (B, C, S/16, S/16) input of the neck to the (B, D, S/16, S/16) embedding."""
        weights = {name: each.detach() for name, each in self.neck.named_parameters()}
        for name, difference in self.differences().items():
            # Into the memory layout of the old weight: it decides how a convolution is rounded.
            updated = torch.empty_like(weights[name])
            weights[name] = updated.copy_(weights[name] + difference)
        return functional_call(self.neck, weights, (merged,))

    def differences(self) -> dict[str, Tensor]:
        """Return what is added to the parameters of the neck, by their names in it.

        Sums of several deltas' differences are differences again, so packs can be mixed.
        """
        differences = {
            name: self.updates[key](torch.zeros_like(self.neck.get_parameter(name)))
            for name, key in self._weights.items()
        }
        differences[f"{self._norm_name}.weight"] = self.gain
        differences[f"{self._norm_name}.bias"] = self.bias
        return differences

    def merge_into(self, net: PromptableNet) -> PromptableNet:
        """Return a copy of a network whose neck has the updated weights.

        Raises:
            ConfigError: The network's encoder has no neck of its own.
            WeightsError: Its neck is of another form.
        """
        merged = copy.deepcopy(net)
        neck = self._matching_neck(merged)
        with torch.no_grad():
            for name, difference in self.differences().items():
                neck.get_parameter(name).add_(difference)
        return merged

    def without(self, net: PromptableNet) -> PromptableNet:
        """Return a copy of a network with the weights of the neck this delta was built for.

        The way back from `merge_into`, to the bit, which no subtraction would be.

        Raises:
            ConfigError: The network's encoder has no neck of its own.
            WeightsError: Its neck is of another form.
        """
        restored = copy.deepcopy(net)
        self._matching_neck(restored).load_state_dict(self.neck.state_dict())
        return restored

    def _matching_neck(self, net: PromptableNet) -> nn.Module:
        neck, ours = neck_of(net), _shapes(self.neck)
        if _shapes(neck) != ours:
            raise WeightsError(
                f"the delta is for a neck with {ours}, {net.name} has {_shapes(neck)}; use the "
                "model it was trained for"
            )
        return neck


def neck_of(net: PromptableNet) -> nn.Module:
    """Return the last part of a network's image encoder.

    Raises:
        ConfigError: The encoder is not split into a neck and what comes before.
    """
    encoder = net.image_encoder
    if not isinstance(encoder, NeckedEncoder):
        raise ConfigError(
            f"{net.name} has the encoder {type(encoder).__name__}, which is not split before its "
            "neck; adapt an EdgeSeg, EdgeSAM or SAM model"
        )
    return encoder.neck


def _update_of(kernel: Tensor, rank: int, alpha: float) -> LowRankUpdate:
    rows, columns = kernel.shape[0], kernel[0].numel()
    possible = min(rank, rows, columns)
    update = LowRankUpdate(rows, columns, possible, alpha * possible / rank)
    return update.to(kernel.device)


def _key(name: str) -> str:
    return name.replace(".", "_")  # no dot may stand in the name of a part


def _shapes(neck: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in neck.state_dict().items()}
