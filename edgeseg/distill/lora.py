"""Low-rank updates of linear layers and convolutions that are otherwise frozen.

Source: Hu et al. 2021, LoRA, arXiv:2106.09685. Through torch's parametrisations: every use of the
weight sees W + (alpha / r) B A, and `merge_lora` makes the sum the weight, so nothing of it remains
in a finished checkpoint. A convolution's kernel counts as one matrix, output channels by the rest.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeseg.distill.stage_config import LoraConfig
from edgeseg.errors import ConfigError
from edgeseg.modeling.promptable import PromptableNet


class LowRankUpdate(nn.Module):
    """Adds a scaled product of two thin matrices, zero at first.

    Args:
        out_features: Rows of the weight.
        in_features: Columns of the weight, all numbers of a row where it has more dimensions.
        rank: Rank of the update.
        alpha: The product is scaled by alpha / rank.
    """

    def __init__(self, out_features: int, in_features: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, in_features) / in_features**0.5)
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """Map a (rows, ...) weight to the updated one."""
        return weight + (self.scale * self.up @ self.down).view_as(weight)


def add_lora(net: PromptableNet, config: LoraConfig) -> int:
    """Freeze the named parts and give their layers low-rank updates.

    Returns:
        Number of layers that were given one.

    Raises:
        ConfigError: A part has no layer that can be updated.
    """
    count = 0
    for part in config.parts:
        module: nn.Module = getattr(net, part)
        module.requires_grad_(False)
        layers = list(_layers(module))
        if not layers:
            raise ConfigError(f"{part} has no layer to update; leave it out of lora.parts")
        for layer in layers:
            rows, columns = layer.weight.shape[0], layer.weight[0].numel()
            update = LowRankUpdate(rows, columns, config.rank, config.alpha)
            update = update.to(layer.weight.device)
            parametrize.register_parametrization(layer, "weight", update)
        count += len(layers)
    return count


def merge_lora(net: nn.Module) -> None:
    """Make updated weights plain again, with the values they have now."""
    for module in list(net.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def _layers(module: nn.Module) -> Iterator[nn.Linear | nn.Conv2d]:
    return (layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d))
