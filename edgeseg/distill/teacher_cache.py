"""Filling and reading the cache of a teacher's features, by all processes of a run."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray

from edgeseg.data.records import ImageRecord
from edgeseg.data.sources import expand_path
from edgeseg.data.training import EmbeddingLookup
from edgeseg.distill.embedding_cache import (
    CacheEstimate,
    CacheKey,
    CacheProgress,
    EmbeddingCache,
    EmbeddingCacheWriter,
    fill_cache,
)
from edgeseg.distill.teachers import NetTeacher
from edgeseg.errors import DataError, ImageError
from edgeseg.preprocess import preprocess

PREPROCESSING = "longest-side, area or bilinear, SAM mean and std, 1"
"""Goes into the key of a cache; changes when `edgeseg.preprocess` changes what it computes."""
_BATCH_SIZE = 4
_LINE_INTERVAL_S = 20.0


def cache_key(teacher: NetTeacher) -> CacheKey:
    """Return the key of a teacher's cache: all its features of an image in one row."""
    length = teacher.feature_shapes().length
    return CacheKey(teacher.fingerprint, teacher.image_size, PREPROCESSING, (length, 1, 1))


def cached_embeddings(
    folder: Path,
    teacher: NetTeacher,
    records: Sequence[ImageRecord],
    fabric: Fabric,
    message: Callable[[str], None],
) -> EmbeddingLookup:
    """Complete a cache for these records and return its look-up.

    What is there already is kept. The images that are missing are shared out over the processes;
    the cost is told before the work starts.

    Args:
        folder: Of the cache; it may hold environment variables.
        teacher: Whose features are cached.
        records: Images.
        fabric: Processes that share the work.
        message: Shows a line to the user.

    Raises:
        CacheError: The folder belongs to another teacher, size or preprocessing, or the disk is
            too small.
    """
    folder, key = expand_path(folder), cache_key(teacher)
    by_name = {record.name: record for record in records}
    # With its own rank: a writer clears away the unfinished files of the ranks it stands for.
    rank, world_size = fabric.global_rank, fabric.world_size
    writer = EmbeddingCacheWriter(folder, key, rank=rank, world_size=world_size)
    missing = writer.missing(list(by_name))
    fabric.barrier()  # nobody writes before everybody has counted
    if missing:
        embedder = _Embedder(teacher, by_name, fabric.device)
        rate = world_size * _images_per_s(embedder, missing[0])
        estimate = CacheEstimate.measure(folder, key, len(missing), rate)
        message(f"teacher features: {estimate.summary()}")
        fill_cache(
            folder,
            key,
            list(by_name),
            embedder,
            batch_size=_BATCH_SIZE,
            rank=rank,
            world_size=world_size,
            on_progress=_now_and_then(message),
        )
    fabric.barrier()
    return EmbeddingCache(folder, key).lookup


def _images_per_s(embed: Callable[[Sequence[str]], object], name: str) -> float:
    """Time one image; the first one is the slowest, so the estimate is on the safe side."""
    started = time.perf_counter()
    embed([name])
    return 1 / max(time.perf_counter() - started, 1e-9)


def _now_and_then(
    message: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[CacheProgress], None]:
    """Return a function that shows a line every `_LINE_INTERVAL_S` and at the end."""
    last_s = clock()

    def show(progress: CacheProgress) -> None:
        nonlocal last_s
        if progress.done == progress.total or clock() - last_s >= _LINE_INTERVAL_S:
            last_s = clock()
            message(_progress_line(progress))

    return show


def _progress_line(progress: CacheProgress) -> str:
    return (
        f"teacher features: {progress.done} of {progress.total}, "
        f"{progress.images_per_s:.2f} images/s, {progress.seconds_left:.0f} s left"
    )


class _Embedder:
    """Features of named records, as flat float16 rows; unreadable images get zeros.

    A record that cannot be read here cannot be read by the loader either, which reports it and
    never asks for its row.
    """

    def __init__(
        self, teacher: NetTeacher, records: dict[str, ImageRecord], device: torch.device
    ) -> None:
        self._teacher = teacher
        self._records = records
        self._device = device

    def __call__(self, names: Sequence[str]) -> NDArray[np.float16]:
        size = self._teacher.image_size
        pixels = [self._pixels(name, size) for name in names]
        images = torch.from_numpy(np.concatenate(pixels)).to(self._device)
        rows = self._teacher.feature_shapes().pack(self._teacher.embed(images))
        return rows.half().cpu().numpy()[:, :, None, None]

    def _pixels(self, name: str, size: int) -> NDArray[np.float32]:
        try:
            return preprocess(self._records[name].read_image(), size)
        except (DataError, ImageError):
            return np.zeros((1, 3, size, size), np.float32)
