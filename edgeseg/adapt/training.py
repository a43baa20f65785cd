"""Trains a pack on kept features: the encoder never runs."""

from collections.abc import Callable, Iterator

import torch
from lightning.fabric import Fabric

from edgeseg.adapt.adapted import AdaptedNet
from edgeseg.adapt.cached_views import CachedViews
from edgeseg.adapt.memory_pack import Kept, MemoryPack
from edgeseg.adapt.stage import AdaptStage
from edgeseg.data.batches import TrainingBatch
from edgeseg.data.loading import build_loader
from edgeseg.distill.config import EngineConfig
from edgeseg.distill.optimization import build_optimizer, learning_rate_at, set_learning_rate
from edgeseg.distill.processes import build_fabric
from edgeseg.distill.stages import Stage
from edgeseg.distill.step import take_step
from edgeseg.distill.step_random import StepRandom

Progress = Callable[[int, int, float], None]
"""Called with steps done, steps of all, and the loss of the last step."""


def train_pack(
    stage: AdaptStage,
    dataset: CachedViews,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    workers: int = 1,
    kept: Kept = "prototypes",
) -> None:
    """Train the pack of a network in place.

    The outcome depends on the network, the images, the settings and the seed alone.

    Args:
        stage: The network with an untrained pack, and how it learns.
        dataset: What the pack reads of the training images.
        seed: Of the prompts; the dataset has its own for the order. Not negative.
        progress: Called after every step.
        workers: Processes that read images; 0 reads in this one.
        kept: Of a memory, what images that are not trained on will attend to.

    Raises:
        DivergedError: A loss is not finite.
        DataError: Too many images cannot be read.
    """
    net = stage.student
    fabric = build_fabric(EngineConfig())
    net.to(fabric.device)
    if isinstance(net.adapter, MemoryPack):
        _fill_memory(net, net.adapter, dataset, seed)
    num_steps = stage.config.num_steps(len(dataset.views))
    take_steps(stage, fabric, dataset, num_steps, seed, progress, workers)
    if isinstance(net.adapter, MemoryPack):
        net.adapter.finish(kept)
    net.eval()


def take_steps(
    stage: Stage,
    fabric: Fabric,
    dataset: CachedViews,
    num_steps: int,
    seed: int,
    progress: Progress | None = None,
    workers: int = 1,
) -> None:
    """Take optimiser steps on whatever of the network requires gradients; see `train_pack`."""
    net, config = stage.student, stage.config
    optimizer = build_optimizer(net, config)
    net.eval()  # what is frozen stays in eval mode, so norms keep their statistics
    if isinstance(net, AdaptedNet) and net.adapter is not None:
        net.adapter.train()
    for step, batch in _batches(dataset, num_steps, config.batch_size, fabric, workers):
        positions = range(step * config.batch_size, (step + 1) * config.batch_size)
        random = StepRandom(seed, positions, batch.counts, fabric.device, step / num_steps)
        set_learning_rate(optimizer, learning_rate_at(step, num_steps, config))
        report = take_step(fabric, stage, batch, optimizer, random)
        if progress is not None:
            progress(step + 1, num_steps, report.losses["total"])


def _batches(
    dataset: CachedViews, num_steps: int, batch_size: int, fabric: Fabric, workers: int
) -> Iterator[tuple[int, TrainingBatch]]:
    loader = build_loader(dataset, 0, num_steps, batch_size, num_workers=workers)
    for step, batch in enumerate(loader):
        yield step, batch.to(fabric.device)


@torch.no_grad()
def _fill_memory(net: AdaptedNet, memory: MemoryPack, dataset: CachedViews, seed: int) -> None:
    """Write every training image once, so that the first steps have rows to look at."""
    first = {seen.record.name: seen.name for seen in reversed(dataset.views)}
    memory.remember(sorted(first), seed)
    device = next(net.parameters()).device
    shapes = net.read_shapes()
    for name in sorted(first):
        row = torch.from_numpy(dataset.lookup(first[name])).float()[None].to(device)
        memory.write([name], shapes.unpack(row).embedding)
