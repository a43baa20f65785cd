"""One process or many: what the ranks of a run exchange.

Gradients are summed by hand after the backward pass instead of by a wrapper around the network:
losses are sums divided by the global count, so the sum over ranks is exactly the gradient of the
whole batch, a rank without prompts simply adds nothing, and no rank ever waits for another one's
parameters.
"""

import os
from collections.abc import Iterable

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from edgeseg.distill.config import EngineConfig


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
        strategy="ddp" if world_size > 1 else "auto",
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
    """Replace every gradient by its sum over all processes; a missing one counts as zero."""
    if fabric.world_size == 1:
        return
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for parameter in learning
    ]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    flat = fabric.all_reduce(flat, reduce_op="sum")  # type: ignore[assignment]
    pieces = flat.split([parameter.numel() for parameter in learning])
    for parameter, piece in zip(learning, pieces, strict=True):
        parameter.grad = piece.view_as(parameter).clone(memory_format=torch.preserve_format)
