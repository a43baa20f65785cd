from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from edgeseg.distill import embedding_cache
from edgeseg.distill.embedding_cache import (
    CacheEstimate,
    CacheKey,
    CacheProgress,
    EmbeddingCache,
    fill_cache,
    share_of_rank,
)
from edgeseg.errors import CacheError

KEY = CacheKey(teacher="a1b2", image_size=64, preprocessing="1", embedding_shape=(1, 2, 3))
NAMES = ["a", "b", "c", "d", "e"]


class CountingTeacher:
    """Embeds a name as its character code, and remembers what it was asked."""

    def __init__(self, fail_at: str | None = None) -> None:
        self.asked: list[list[str]] = []
        self.fail_at = fail_at

    def __call__(self, names):
        self.asked.append(list(names))
        if self.fail_at in names:
            raise KeyboardInterrupt
        return np.array([[[[ord(name)] * 3] * 2] for name in names], np.float16)


class SteppingClock:
    """Ten seconds pass between two looks at it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 10.0
        return self.now_s


def set_free_bytes(monkeypatch, free_bytes: int) -> list[Path]:
    """Pretend the disk has this much room; return the paths that are asked for it."""
    asked: list[Path] = []

    def disk_usage(path):
        asked.append(Path(path))
        return namedtuple("Usage", "free")(free_bytes)

    monkeypatch.setattr(embedding_cache.shutil, "disk_usage", disk_usage)
    return asked


def test_filled_cache_serves_every_name_with_its_own_embedding(tmp_path):
    assert fill_cache(tmp_path, KEY, NAMES, CountingTeacher(), batch_size=2, shard_size=3) == 5

    cache = EmbeddingCache(tmp_path, KEY)
    assert [cache.lookup(name)[0, 1, 2] for name in NAMES] == [97, 98, 99, 100, 101]  # codes of a-e
    assert cache.lookup("a").shape == (1, 2, 3)


def test_batches_end_where_their_shard_ends(tmp_path):
    teacher = CountingTeacher()

    fill_cache(tmp_path, KEY, NAMES, teacher, batch_size=2, shard_size=3)

    assert teacher.asked == [["a", "b"], ["c"], ["d", "e"]]
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_filling_again_after_an_interruption_embeds_only_the_lost_shard(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fill_cache(tmp_path, KEY, NAMES, CountingTeacher("d"), batch_size=1, shard_size=2)
    teacher = CountingTeacher()

    assert fill_cache(tmp_path, KEY, NAMES, teacher, batch_size=2, shard_size=2) == 3

    assert teacher.asked == [["c", "d"], ["e"]]  # c was embedded, but its shard never written
    assert fill_cache(tmp_path, KEY, NAMES, CountingTeacher(), shard_size=2) == 0


def test_filling_again_replaces_a_truncated_shard(tmp_path):
    fill_cache(tmp_path, KEY, NAMES, CountingTeacher(), shard_size=2)
    array = tmp_path / "shard_r00000_000001.npy"  # c and d
    array.write_bytes(array.read_bytes()[:-1])
    teacher = CountingTeacher()

    fill_cache(tmp_path, KEY, NAMES, teacher, shard_size=2)

    assert teacher.asked == [["c", "d"]]
    cache = EmbeddingCache(tmp_path, KEY)
    assert cache.lookup("d")[0, 0, 0] == 100
    assert (len(cache), cache.damaged) == (5, [])


def test_ranks_embed_disjoint_shares_that_together_are_everything(tmp_path):
    teachers = [CountingTeacher(), CountingTeacher()]
    for rank in (1, 0):
        fill_cache(tmp_path, KEY, NAMES, teachers[rank], rank=rank, world_size=2)

    assert [teacher.asked for teacher in teachers] == [[["a", "b"]], [["c", "d", "e"]]]
    assert sorted(EmbeddingCache(tmp_path, KEY)) == NAMES


def test_share_does_not_depend_on_what_other_ranks_have_done(tmp_path):
    fill_cache(tmp_path, KEY, ["a", "b"], CountingTeacher(), rank=0, world_size=2)
    teacher = CountingTeacher()

    fill_cache(tmp_path, KEY, NAMES, teacher, rank=0, world_size=2)

    # The share of rank 0 is a and b. One was written by it, the other by nobody: cutting what is
    # missing (b to e) instead would give it c, which rank 1 embeds at the same time.
    assert teacher.asked == [["b"]]


def test_run_may_continue_with_fewer_ranks(tmp_path):
    for rank in (0, 2):  # rank 1 of 3, which has b and c, was killed
        fill_cache(tmp_path, KEY, NAMES, CountingTeacher(), rank=rank, world_size=3)
    teacher = CountingTeacher()

    fill_cache(tmp_path, KEY, NAMES, teacher)

    assert teacher.asked == [["b", "c"]]
    assert sorted(EmbeddingCache(tmp_path, KEY)) == NAMES


@pytest.mark.parametrize(
    ("world_size", "sizes"), [(1, [5]), (2, [2, 3]), (3, [1, 2, 2]), (7, [0, 0, 1, 1, 1, 1, 1])]
)
def test_shares_cover_all_names_once_and_differ_by_at_most_one(world_size, sizes):
    shares = [share_of_rank(NAMES, rank, world_size) for rank in range(world_size)]

    assert sum(shares, []) == NAMES
    assert sorted(len(share) for share in shares) == sizes


@pytest.mark.parametrize("rank", [-1, 2])
def test_rank_outside_the_world_is_refused(tmp_path, rank):
    with pytest.raises(CacheError, match=rf"rank must be in \[0, world_size\), got {rank} of 2"):
        share_of_rank(NAMES, rank, 2)
    with pytest.raises(CacheError, match="rank"):
        fill_cache(tmp_path, KEY, NAMES, CountingTeacher(), rank=rank, world_size=2)


def test_repeated_names_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(CacheError, match="got 3 names, 2 of them different; use paths relative"):
        fill_cache(tmp_path / "cache", KEY, ["a", "b", "a"], CountingTeacher())

    assert not (tmp_path / "cache").exists()


def test_a_batch_without_images_is_refused(tmp_path):
    with pytest.raises(CacheError, match="batch_size must be positive, got 0"):
        fill_cache(tmp_path, KEY, NAMES, CountingTeacher(), batch_size=0)


def test_progress_starts_with_the_rate_of_the_first_batch(tmp_path):
    seen: list[CacheProgress] = []

    fill_cache(
        tmp_path,
        KEY,
        NAMES,
        CountingTeacher(),
        batch_size=2,
        on_progress=seen.append,
        clock=SteppingClock(),
    )

    assert seen == [
        CacheProgress(2, 5, images_per_s=0.2, seconds_left=15.0),  # 2 in 10 s; 3 / 0.2 s left
        CacheProgress(4, 5, images_per_s=0.2, seconds_left=5.0),  # 4 in 20 s
        CacheProgress(5, 5, images_per_s=pytest.approx(1 / 6), seconds_left=0.0),  # 5 in 30 s
    ]


def test_estimate_counts_two_bytes_a_number(monkeypatch, tmp_path):
    set_free_bytes(monkeypatch, 999)

    estimate = CacheEstimate.measure(tmp_path, KEY, 100, images_per_s=4.0)

    assert estimate == CacheEstimate(100, 1_200, 999, 4.0)  # 100 * 1 * 2 * 3 * 2 bytes
    assert estimate.seconds == 25.0


def test_edgesam_training_set_takes_215_gib():
    sam = CacheKey("vit_h", 1024, "1", (256, 64, 64))

    estimate = CacheEstimate(110_000, 110_000 * sam.image_bytes, 2**40)

    # 110,000 * 256 * 64 * 64 * 2 bytes = 220,000 MiB = 214.8 GiB
    assert estimate.summary() == "110,000 images, 214.8 GiB of 1,024.0 GiB free"
    assert estimate.seconds is None


def test_estimate_in_words_rounds_to_minutes():
    estimate = CacheEstimate(7_199, 3 * 2**29, 2**31, images_per_s=1.0)  # 1 s less than 2 hours

    assert estimate.summary() == (
        "7,199 images, 1.5 GiB of 2.0 GiB free, 2 h 00 min at 1.0 images/s"
    )


def test_estimate_asks_the_disk_of_a_folder_that_does_not_exist_yet(monkeypatch, tmp_path):
    asked = set_free_bytes(monkeypatch, 10)

    CacheEstimate.measure(tmp_path / "runs" / "cache", KEY, 1)

    assert asked == [tmp_path]


def test_cache_that_fills_the_disk_exactly_is_accepted_and_one_byte_more_is_not():
    CacheEstimate(1, 2**30, 2**30).check_fits()

    with pytest.raises(CacheError, match=r"1 images need 1\.0 GiB, but only 1\.0 GiB are free; us"):
        CacheEstimate(1, 2**30 + 1, 2**30).check_fits()


@pytest.mark.parametrize(("ranks_on_disk", "needed"), [(None, 60), (4, 60), (2, 36), (1, 12)])
def test_space_is_checked_for_all_ranks_that_share_the_disk(
    monkeypatch, tmp_path, ranks_on_disk, needed
):
    # Shares of 4 ranks: a, b, c, d e; the machine of ranks 2 and 3 keeps c, d, e; 12 bytes each.
    def fill() -> int:
        return fill_cache(
            tmp_path,
            KEY,
            NAMES,
            CountingTeacher(),
            rank=2,
            world_size=4,
            ranks_on_disk=ranks_on_disk,
        )

    set_free_bytes(monkeypatch, needed - 1)
    with pytest.raises(CacheError, match="use a larger disk"):
        fill()
    set_free_bytes(monkeypatch, needed)

    assert fill() == 1


def test_space_is_checked_for_missing_images_only(monkeypatch, tmp_path):
    fill_cache(tmp_path, KEY, NAMES[:4], CountingTeacher())
    set_free_bytes(monkeypatch, 12)  # room for one more

    assert fill_cache(tmp_path, KEY, NAMES, CountingTeacher()) == 1
