"""Batches of the training stream, made ahead of time by worker processes."""

import signal
from collections.abc import Iterator

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from edgeseg.data.batches import TrainingBatch, collate
from edgeseg.data.broken import BrokenItems
from edgeseg.data.samples import TrainingSample
from edgeseg.errors import ConfigError, EdgesegError


class TrainingLoader:
    """Iterates over the batches of consecutive steps; see `build_loader`."""

    def __init__(
        self, batches: "DataLoader[TrainingBatch | EdgesegError]", broken_items: BrokenItems
    ) -> None:
        self._batches = batches
        self.broken_items = broken_items

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._batches)

    def __iter__(self) -> Iterator[TrainingBatch]:
        """Yield one batch a step.

        Raises:
            DataError: Too many records are broken.
        """
        for batch in self._batches:
            if isinstance(batch, EdgesegError):
                raise batch
            self.broken_items.count(batch.names, batch.broken)
            yield batch


def build_loader(
    dataset: Dataset[TrainingSample],
    first_step: int,
    num_steps: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    *,
    broken_items: BrokenItems | None = None,
    pin_memory: bool = False,
) -> TrainingLoader:
    """Build the loader of one process of a run.

    Step k holds the positions k * batch_size to (k + 1) * batch_size of the stream, shared out over
    the ranks in order, so the global batch of a step is the same for any number of processes and
    wherever the run was resumed.

    Args:
        dataset: The training stream.
        first_step: Step to begin with, from 0 on.
        num_steps: Number of steps.
        batch_size: Images of the global batch, over all ranks.
        rank: Number of this process, from 0 on.
        world_size: Number of processes.
        num_workers: Worker processes of this process; 0 loads in the process itself.
        broken_items: Counts broken records over several loaders; by default a new count with the
            default limits.
        pin_memory: Whether to put batches into page-locked memory for a faster copy to a GPU.

    Raises:
        ConfigError: The batch cannot be shared out evenly, or a number is out of range.
    """
    if batch_size < 1 or world_size < 1 or batch_size % world_size:
        raise ConfigError(
            f"the batch size must be a positive multiple of the number of processes, got "
            f"{batch_size} images for {world_size} processes"
        )
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank must be from 0 to {world_size - 1}, got {rank}")
    if first_step < 0 or num_steps < 0 or num_workers < 0:
        raise ConfigError(
            "first_step, num_steps and num_workers must not be negative, got "
            f"{first_step}, {num_steps} and {num_workers}"
        )
    batches: DataLoader[TrainingBatch | EdgesegError] = DataLoader(
        _Steps(dataset, batch_size, rank, world_size),
        batch_size=None,  # an item is a batch already
        sampler=range(first_step, first_step + num_steps),
        num_workers=num_workers,
        collate_fn=_unchanged,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else every loader would draw from torch's global generator
    )
    return TrainingLoader(batches, broken_items or BrokenItems())


class _Steps(Dataset[TrainingBatch | EdgesegError]):
    """Batches by step, as one rank sees them."""

    def __init__(
        self, dataset: Dataset[TrainingSample], batch_size: int, rank: int, world_size: int
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.rank = rank
        self.local_size = batch_size // world_size

    def __getitem__(self, step: int) -> TrainingBatch | EdgesegError:
        """Return a batch, or the error to raise in the main process.

        Raised here, it would reach the user with a worker's traceback pasted into its message.
        """
        first = step * self.batch_size + self.rank * self.local_size
        try:
            return collate([self.dataset[first + k] for k in range(self.local_size)])
        except EdgesegError as error:
            return error


def _unchanged(batch: object) -> object:
    return batch


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # workers share the cores among themselves already
    # Ctrl-C reaches every process of a terminal, and the SIGTERM of a job scheduler every process
    # of a job; the main one decides when its workers end, so it can finish its step and save.
    # A worker whose main process is gone ends by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
