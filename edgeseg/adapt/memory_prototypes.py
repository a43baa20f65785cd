"""A memory of training images, distilled into a few rows that may leave the training machine.

Source: Shen et al. 2023, MoViT, arXiv:2303.15553 (prototypes instead of raw rows at inference; how
they are made is ours). A prototype is the mean key and the mean value of n rows and counts as n of
them: log n is added to its scaled scores. Without that, a group of n rows would lose all but one
n-th of its attention.
"""

import torch
from torch import Tensor

from edgeseg.adapt.memory_clusters import cluster, group_sums, nearest
from edgeseg.adapt.memory_rows import AttentionMemory, MemoryRows
from edgeseg.errors import ConfigError, DataError

MAX_PROTOTYPES = 64
"""The most prototypes a block may have; at inference they are all there is of a memory."""


@torch.no_grad()
def distill_prototypes(
    memory: AttentionMemory,
    num_prototypes: int,
    generator: torch.Generator,
    min_samples: int = 2,
) -> MemoryRows:
    """Return prototypes of all written rows, by k-means of their keys.

    There are always as many as were asked for, so that size and cost never tell how large the
    training set was: where rows are few, the last ones stand for none, are zero and get no
    attention.

    Args:
        memory: The rows; it is left as it was.
        num_prototypes: Between 1 and MAX_PROTOTYPES.
        generator: Draws the first centres, on the CPU.
        min_samples: Different training samples a prototype must be a mean of. A group with fewer
            is dissolved into its neighbours. With 1, a prototype may be a raw row of one image:
            for experiments, not for files that leave the machine.

    Returns:
        (1, P, E) keys and values, and their counts, which sum to the number of rows.

    Raises:
        ConfigError: A number is out of range.
        DataError: Fewer than `min_samples` samples were written.
    """
    check_num_prototypes(num_prototypes)
    num_samples = int(memory.written.sum())
    if not 1 <= min_samples <= num_samples:
        raise DataError(
            f"a prototype must be a mean of {min_samples} samples, but the memory holds "
            f"{num_samples}; write more samples, or ask for between 1 and as many as there are"
        )
    rows = memory.rows()
    keys, values = rows.keys[0], rows.values[0]
    labels = cluster(keys, num_prototypes, generator, starts=4)
    labels = _dissolve_small(labels, keys, memory.row_samples(), min_samples)
    counts = labels.bincount(minlength=num_prototypes)
    sizes = counts.clamp(min=1)[:, None]
    return MemoryRows(
        (group_sums(keys, labels, num_prototypes) / sizes)[None],
        (group_sums(values, labels, num_prototypes) / sizes)[None],
        counts.to(keys.dtype),
    )


def random_prototypes(prototypes: MemoryRows, generator: torch.Generator) -> MemoryRows:
    """Return normal noise of the same size and counts, the control for what prototypes hold.

    Noise has the root mean square of the keys and of the values, and nothing else of them.

    Args:
        prototypes: As `distill_prototypes` returns them.
        generator: Draws the noise, on the CPU.
    """
    used = (prototypes.counts > 0)[:, None]  # (P, 1)
    noise = [
        torch.randn(rows.shape, generator=generator).to(rows) * _root_mean_square(rows, used) * used
        for rows in (prototypes.keys, prototypes.values)
    ]
    return MemoryRows(noise[0], noise[1], prototypes.counts)


def check_num_prototypes(num_prototypes: int) -> None:
    """Raise unless a block may have so many prototypes.

    Raises:
        ConfigError: With the range.
    """
    if not 1 <= num_prototypes <= MAX_PROTOTYPES:
        raise ConfigError(
            f"num_prototypes must be between 1 and {MAX_PROTOTYPES}, got {num_prototypes}; "
            f"use {min(max(num_prototypes, 1), MAX_PROTOTYPES)}"
        )


def _root_mean_square(rows: Tensor, used: Tensor) -> Tensor:
    return ((rows * used).square().sum() / (used.sum() * rows.shape[-1])).sqrt()


def _dissolve_small(labels: Tensor, keys: Tensor, samples: Tensor, min_samples: int) -> Tensor:
    """Return labels without gaps of groups that all span enough samples.

    The group with the fewest samples goes first, each of its rows to the nearest mean of the rest.

    Args:
        labels: (R,) int64 from 0 on, without gaps.
        keys: (R, E) float.
        samples: (R,) int64, the sample of each row.
        min_samples: At most the number of samples, so that one group of all rows spans enough.
    """
    while True:
        num_groups = int(labels.max()) + 1
        spans = [samples[labels == group].unique().numel() for group in range(num_groups)]
        if min(spans) >= min_samples:
            return labels
        leaving = labels == spans.index(min(spans))
        staying = labels[~leaving].unique(return_inverse=True)[1]
        sizes = staying.bincount()[:, None]
        means = group_sums(keys[~leaving], staying, num_groups - 1) / sizes
        labels = labels.masked_scatter(~leaving, staying)
        labels = labels.masked_scatter(leaving, nearest(keys[leaving], means))
