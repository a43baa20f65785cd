"""Filling a cache of teacher embeddings: what it costs, whose share it is, how far it is.

Reading and writing are in `edgeseg.distill.embedding_shards`; their names are repeated here, so
that a caller needs this module only.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.distill.cache_key import CacheKey
from edgeseg.distill.embedding_shards import EmbeddingCache, EmbeddingCacheWriter
from edgeseg.errors import CacheError

__all__ = [
    "CacheEstimate",
    "CacheKey",
    "CacheProgress",
    "EmbeddingCache",
    "EmbeddingCacheWriter",
    "fill_cache",
    "share_of_rank",
]


@dataclass(frozen=True)
class CacheEstimate:
    """What it takes to embed a number of images and to keep the embeddings.

    Attributes:
        num_images: Images still to be embedded.
        size_bytes: Disk space their embeddings take.
        free_bytes: Disk space that is free where the cache is.
        images_per_s: Measured or assumed rate of all ranks together; None if unknown.
    """

    num_images: int
    size_bytes: int
    free_bytes: int
    images_per_s: float | None = None

    @classmethod
    def measure(
        cls, folder: Path, key: CacheKey, num_images: int, images_per_s: float | None = None
    ) -> "CacheEstimate":
        """Return the estimate for a folder, which need not exist yet."""
        folder = Path(folder).absolute()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free_bytes = shutil.disk_usage(existing).free
        return cls(num_images, num_images * key.image_bytes, free_bytes, images_per_s)

    @property
    def seconds(self) -> float | None:
        """Time to embed all images; None if the rate is unknown."""
        return self.num_images / self.images_per_s if self.images_per_s else None

    def summary(self) -> str:
        """Return the estimate in one line.

        >>> CacheEstimate(111_853, 111_853 * 2**21, 500 * 2**30, 4.3).summary()
        '111,853 images, 218.5 GiB of 500.0 GiB free, 7 h 14 min at 4.3 images/s'
        """
        line = (
            f"{self.num_images:,} images, {_gib(self.size_bytes)} of {_gib(self.free_bytes)} free"
        )
        if self.seconds is None:
            return line
        hours, minutes = divmod(round(self.seconds / 60), 60)
        return f"{line}, {hours} h {minutes:02d} min at {self.images_per_s:.1f} images/s"

    def check_fits(self) -> None:
        """Raise if the disk is too small.

        Raises:
            CacheError: With the space that is needed and the space that is free.
        """
        if self.size_bytes > self.free_bytes:
            raise CacheError(
                f"the embeddings of {self.num_images:,} images need {_gib(self.size_bytes)}, but "
                f"only {_gib(self.free_bytes)} are free; use a larger disk, fewer images or "
                "compute the embeddings on the fly"
            )


@dataclass(frozen=True)
class CacheProgress:
    """How far one rank is.

    Attributes:
        done: Images embedded in this run.
        total: Images this rank had to embed at the start of the run.
        images_per_s: Mean rate of this rank so far.
        seconds_left: Time to the end at that rate.
    """

    done: int
    total: int
    images_per_s: float
    seconds_left: float


def share_of_rank(names: Sequence[str], rank: int, world_size: int) -> list[str]:
    """Return the part of the names that one rank embeds.

    Parts are contiguous, so that a rank reads whole tar files, and differ by at most one image.

    Args:
        names: All names, in the same order on every rank.
        rank: Number of this process.
        world_size: Number of processes.

    Raises:
        CacheError: The rank is not in [0, world_size).

    >>> [share_of_rank(["a", "b", "c", "d", "e"], rank, 2) for rank in range(2)]
    [['a', 'b'], ['c', 'd', 'e']]
    """
    if not 0 <= rank < world_size:
        raise CacheError(f"rank must be in [0, world_size), got {rank} of {world_size}")
    bounds = [len(names) * step // world_size for step in (rank, rank + 1)]
    return list(names[slice(*bounds)])


def fill_cache(
    folder: Path,
    key: CacheKey,
    names: Sequence[str],
    embed: Callable[[Sequence[str]], NDArray[np.float16]],
    *,
    batch_size: int = 8,
    shard_size: int = 64,
    rank: int = 0,
    world_size: int = 1,
    ranks_on_disk: int | None = None,
    on_progress: Callable[[CacheProgress], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Embed what this rank's share of a cache lacks; run again after an interruption.

    Args:
        folder: The cache, on a disk that all ranks see or on one of each machine.
        key: What the embeddings depend on.
        names: All images, in the same order on every rank, each once.
        embed: Gets up to `batch_size` names, returns their embeddings (n, C, h, w) float16.
        batch_size: Images per call of `embed`.
        shard_size: Images per shard; the most that an interruption can lose.
        rank: Number of this process.
        world_size: Number of processes.
        ranks_on_disk: Ranks that share the disk of `folder`: the ranks per machine if every machine
            has its own; all ranks by default. It decides whether the disk is large enough.
        on_progress: Called after every batch.
        clock: Seconds that only grow.

    Returns:
        Number of images embedded.

    Raises:
        CacheError: Names repeat, the disk is too small or the folder has another key.
    """
    if len(set(names)) < len(names):
        raise CacheError(
            f"every image needs a name of its own, got {len(names)} names, {len(set(names))} of "
            "them different; use paths relative to the data folder"
        )
    if batch_size < 1:
        raise CacheError(f"batch_size must be positive, got {batch_size}")
    share = share_of_rank(names, rank, world_size)
    writer = EmbeddingCacheWriter(folder, key, shard_size, rank=rank, world_size=world_size)
    # Shares are cut before the missing images are looked up: what other ranks have written by
    # now must not move the cuts.
    missing = writer.missing(share)
    neighbours = _ranks_of_machine(rank, world_size, ranks_on_disk or world_size)
    on_disk = [name for other in neighbours for name in share_of_rank(names, other, world_size)]
    CacheEstimate.measure(folder, key, len(writer.missing(on_disk))).check_fits()
    start = clock()
    done = 0
    for shard in _chunks(missing, shard_size):
        embeddings = []
        for batch in _chunks(shard, batch_size):
            embeddings.append(embed(batch))
            done += len(batch)
            if on_progress is not None:
                on_progress(_progress(done, len(missing), clock() - start))
        writer.write_shard(shard, np.concatenate(embeddings))
    return done


def _ranks_of_machine(rank: int, world_size: int, ranks_on_disk: int) -> range:
    first = rank - rank % ranks_on_disk
    return range(first, min(first + ranks_on_disk, world_size))


def _progress(done: int, total: int, elapsed_s: float) -> CacheProgress:
    images_per_s = done / max(elapsed_s, 1e-9)
    return CacheProgress(done, total, images_per_s, (total - done) / images_per_s)


def _chunks(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:,.1f} GiB"
