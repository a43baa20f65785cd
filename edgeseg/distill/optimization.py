"""Optimiser, learning rates, moving averages of weights, and what is frozen."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from edgeseg.distill.stage_config import ScheduleConfig
from edgeseg.modeling.promptable import PromptableNet

_BACKBONE_PREFIXES = ("image_encoder.backbone.", "image_encoder.features.")


def build_optimizer(
    net: PromptableNet, config: ScheduleConfig, extra: Iterable[nn.Parameter] = ()
) -> torch.optim.AdamW:
    """Build AdamW over the parameters that learn.

    Matrices and kernels decay; norms, biases and embeddings (one-row tables) do not. The learning
    rate of each group is `learning_rate` times its factor; `set_learning_rate` sets it each step.

    Args:
        net: Its parameters that require gradients are optimised.
        config: Rates and decay.
        extra: Further parameters, such as the layer that aligns two embedding widths.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            on_backbone = name.startswith(_BACKBONE_PREFIXES)
            factor = config.backbone_learning_rate_factor if on_backbone else 1.0
            decays = parameter.ndim >= 2 and parameter.shape[0] > 1
            key = (factor, config.weight_decay if decays else 0.0)
            groups.setdefault(key, []).append(parameter)
    extra = list(extra)
    if extra:
        groups.setdefault((1.0, config.weight_decay), []).extend(extra)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "factor": factor}
            for (factor, decay), parameters in groups.items()
        ],
        lr=config.learning_rate,
    )


def learning_rate_at(step: int, num_steps: int, config: ScheduleConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine to the final rate.

    Args:
        step: From 0 on.
        num_steps: Steps of the whole stage.
        config: Rates and warm-up.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    span = max(1, num_steps - 1 - config.warmup_steps)
    share = min(1.0, (step - config.warmup_steps) / span)
    distance = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + distance * (1 + math.cos(math.pi * share)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group to `rate` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def freeze_norms(net: nn.Module) -> None:
    """Keep the statistics of all batch norms as they are; their scales and shifts still learn."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


class WeightAverage:
    """Exponential moving average of a network's weights.

    Early on the decay is smaller, min(decay, (1 + n) / (10 + n)) after n updates, so that the
    random start is forgotten quickly.

    Args:
        net: The network to follow.
        decay: Share of the average that is kept each step.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move the average towards the network's present weights."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                averages.append(self.state[name])
                values.append(tensor)
            else:
                self.state[name].copy_(tensor)
        torch._foreach_lerp_(averages, values, 1 - decay)

    def load(self, state: dict[str, Tensor], num_updates: int) -> None:
        """Continue from a saved average."""
        for name, tensor in state.items():
            self.state[name].copy_(tensor)
        self.num_updates = num_updates


class averaged:  # noqa: N801 - reads as a phrase: with averaged(net, average)
    """Give a network its averaged weights inside a `with` block, then its own again.

    Args:
        net: The network.
        average: Its average, or None to leave the network as it is.
    """

    def __init__(self, net: nn.Module, average: WeightAverage | None) -> None:
        self._net = net
        self._average = average

    def __enter__(self) -> None:
        if self._average is not None:
            self._own = {name: t.detach().clone() for name, t in self._net.state_dict().items()}
            self._net.load_state_dict(self._average.state)

    def __exit__(self, *_: object) -> None:
        if self._average is not None:
            self._net.load_state_dict(self._own)
