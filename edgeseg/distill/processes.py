"""One process or many: what the ranks of a run exchange.

Gradients are summed by hand after the backward pass instead of by a wrapper around the network:
losses are sums divided by the global count, so the sum over ranks is exactly the gradient of the
whole batch, a rank without prompts simply adds nothing, and no rank ever waits for another one's
parameters.
"""

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from edgeseg.distill.config import EngineConfig
from edgeseg.errors import ConfigError

_PATIENCE = timedelta(hours=12)
"""How long processes wait for the first one, which evaluates alone, before they give up."""


def build_fabric(config: EngineConfig) -> Fabric:
    """Build the fabric of this process.

    Started by `torchrun`, the process joins its group; started alone, it is the only one.
    """
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=local_world_size,
        num_nodes=max(1, world_size // local_world_size),
        strategy=DDPStrategy(timeout=_PATIENCE) if world_size > 1 else "auto",
        precision=config.precision,
    )
    fabric.launch()
    return fabric


def sum_over_ranks(fabric: Fabric, values: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; it has no history."""
    if fabric.world_size == 1:
        return values.detach()
    return fabric.all_reduce(values.detach().clone(), reduce_op="sum")  # type: ignore[return-value]


def sum_gradients(fabric: Fabric, parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes; a missing one counts as zero.

    A gradient that is missing everywhere stays missing, so the optimiser leaves its parameter alone
    as it does on one process.
    """
    if fabric.world_size == 1:
        return
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    present = torch.tensor([float(parameter.grad is not None) for parameter in learning])
    gradients = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for parameter in learning
    ]
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), present.to(fabric.device)])
    flat = fabric.all_reduce(flat, reduce_op="sum")  # type: ignore[assignment]
    *pieces, present = flat.split([*(parameter.numel() for parameter in learning), len(learning)])
    for parameter, gradient, piece, is_present in zip(
        learning, gradients, pieces, present.tolist(), strict=True
    ):
        # Copied, so that the layout in memory stays that of the parameter.
        parameter.grad = gradient.copy_(piece.view_as(parameter)) if is_present else None


def share_norms(fabric: Fabric, net: nn.Module) -> nn.Module:
    """Make batch norms take their statistics from the images of all processes.

    Raises:
        ConfigError: There are several processes, but not on GPUs, which it takes.
    """
    if fabric.world_size == 1:
        return net
    if fabric.device.type != "cuda":
        raise ConfigError(
            f"norms that learn over {fabric.world_size} processes need GPUs, got "
            f'{fabric.device.type}; set engine.norms = "frozen", train [proposal_stage] alone, or '
            "use one process"
        )
    return convert_sync_batchnorm(net)


def is_first_process() -> bool:
    """Return whether this process is the one that writes, before any fabric is built."""
    return int(os.environ.get("RANK", "0")) == 0
