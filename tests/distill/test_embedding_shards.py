import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeseg.distill.cache_key import CacheKey
from edgeseg.distill.embedding_shards import EmbeddingCache, EmbeddingCacheWriter
from edgeseg.errors import CacheError

KEY = CacheKey(teacher="a1b2", image_size=64, preprocessing="1", embedding_shape=(1, 2, 3))


def embeddings(*values: float) -> np.ndarray:
    return np.array([np.full((1, 2, 3), value) for value in values], np.float16)


def write(folder: Path, *names: str, rank: int = 0, world_size: int = 1) -> Path:
    writer = EmbeddingCacheWriter(folder, KEY, rank=rank, world_size=world_size)
    return writer.write_shard(names, embeddings(*map(ord, names)))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_embedding_comes_back_bit_for_bit_with_its_axes_in_place(tmp_path):
    embedding = np.arange(6, dtype=np.float16).reshape(1, 1, 2, 3) / 7
    EmbeddingCacheWriter(tmp_path, KEY).write_shard(["x/é.jpg"], embedding)

    found = EmbeddingCache(tmp_path, KEY).lookup("x/é.jpg")

    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, embedding[0])


def test_an_embedding_may_be_changed_without_changing_the_cache(tmp_path):
    write(tmp_path, "a")
    cache = EmbeddingCache(tmp_path, KEY)

    cache.lookup("a")[:] = 0

    assert cache.lookup("a")[0, 0, 0] == 97  # code of a


def test_cache_knows_its_names(tmp_path):
    write(tmp_path, "a", "b")
    write(tmp_path, "c")

    cache = EmbeddingCache(tmp_path, KEY)

    assert (len(cache), sorted(cache)) == (3, ["a", "b", "c"])
    assert "b" in cache
    assert "d" not in cache
    with pytest.raises(CacheError, match=r"no embedding of 'd' \(it has 3 images\); fill it"):
        cache.lookup("d")


def test_a_new_writer_continues_the_numbering(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b")

    assert [path.name for path in sorted(tmp_path.glob("*.npy"))] == [
        "shard_r00000_000000.npy",
        "shard_r00000_000001.npy",
    ]


def test_missing_names_keep_their_order_and_lose_what_is_written(tmp_path):
    write(tmp_path, "b")
    writer = EmbeddingCacheWriter(tmp_path, KEY)

    assert writer.missing(["d", "b", "c"]) == ["d", "c"]
    writer.write_shard(["c"], embeddings(1))
    assert writer.missing(["d", "b", "c"]) == ["d"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("teacher", "ffff", "teacher 'a1b2' where this run has 'ffff'; use another folder"),
        ("image_size", 128, "image_size 64 where this run has 128; use another folder"),
        ("preprocessing", "2", "preprocessing '1' where this run has '2'; use another folder"),
        (
            "embedding_shape",
            (1, 3, 2),
            r"embedding_shape \(1, 2, 3\) where .* has \(1, 3, 2\); use",
        ),
    ],
)
@pytest.mark.parametrize("opened", [EmbeddingCache, EmbeddingCacheWriter])
def test_cache_of_other_settings_is_refused_with_the_field_that_differs(
    tmp_path, opened, field, value, message
):
    write(tmp_path, "a")

    with pytest.raises(CacheError, match=f"was made with {message}"):
        opened(tmp_path, replace(KEY, **{field: value}))


def test_all_fields_that_differ_are_named(tmp_path):
    write(tmp_path, "a")

    with pytest.raises(CacheError, match=r"teacher 'a1b2' .* 'b', image_size 64 .* 32; use"):
        EmbeddingCache(tmp_path, replace(KEY, teacher="b", image_size=32))


def test_shard_copied_from_a_cache_of_other_settings_is_refused(tmp_path):
    other = EmbeddingCacheWriter(tmp_path / "other", replace(KEY, teacher="ffff"))
    other.write_shard(["a"], embeddings(1))
    (tmp_path / "other" / "index.json").unlink()
    EmbeddingCacheWriter(tmp_path / "cache", KEY)
    for path in (tmp_path / "other").iterdir():
        path.rename(tmp_path / "cache" / path.name)

    with pytest.raises(CacheError, match=r"shard_r00000_000000\.npy was made with other settings"):
        EmbeddingCache(tmp_path / "cache", KEY)


@pytest.mark.parametrize(
    "changes", [{"embedding_shape": (1, 2)}, {"embedding_shape": (1, 0, 2)}, {"image_size": 0}]
)
def test_key_out_of_range_is_refused(changes):
    with pytest.raises(CacheError, match=r"embedding_shape must be \(C, h, w\) and"):
        replace(KEY, **changes)


def test_key_of_another_type_of_number_is_refused():
    with pytest.raises(CacheError, match="dtype must be 'float16', got 'float32'"):
        replace(KEY, dtype="float32")


def test_key_read_from_json_equals_the_one_written():
    assert CacheKey("t", 64, "1", [1, 2, 3]) == CacheKey("t", 64, "1", (1, 2, 3))


def test_folder_without_a_cache_is_refused_by_the_reader(tmp_path):
    with pytest.raises(CacheError, match="there is no teacher cache in .*; fill it first"):
        EmbeddingCache(tmp_path, KEY)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"key": {"colour": 1}}'])
def test_unreadable_index_is_refused_with_its_path(tmp_path, text):
    (tmp_path / "index.json").write_text(text)

    with pytest.raises(CacheError, match=r"cannot read .*index\.json .*; delete"):
        EmbeddingCache(tmp_path, KEY)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "cache").write_text("")

    with pytest.raises(CacheError, match=r"cannot write .*index\.json .*; make room or pass"):
        EmbeddingCacheWriter(tmp_path / "cache", KEY)


@pytest.mark.parametrize(
    ("names", "array", "message"),
    [
        (["a"], embeddings(1).astype(np.float32), r"\(1, 1, 2, 3\) float16, got .* float32"),
        (["a"], embeddings(1).transpose(0, 1, 3, 2), r"got \(1, 1, 3, 2\) float16"),
        (["a", "b"], embeddings(1), r"must be \(2, 1, 2, 3\) float16, got \(1, 1, 2, 3\)"),
        ([], embeddings(1)[:0], "takes 1 to 2 images, each once, got 0 names"),
        (["a", "a"], embeddings(1, 2), "got 2 names, 1 of them different"),
        (["a", "b", "c"], embeddings(1, 2, 3), "takes 1 to 2 images, each once, got 3 names"),
        (["a", "b"], embeddings(1, np.inf), "embedding of 'b' is not finite in float16; check"),
        (["a", "b"], embeddings(np.nan, 1), "embedding of 'a' is not finite"),
    ],
)
def test_shard_that_does_not_fit_is_refused_and_leaves_no_file(tmp_path, names, array, message):
    writer = EmbeddingCacheWriter(tmp_path, KEY, shard_size=2)

    with pytest.raises(CacheError, match=message):
        writer.write_shard(names, array)

    assert files(tmp_path) == ["index.json"]


@pytest.mark.parametrize(("shard_size", "rank"), [(0, 0), (1, 2), (1, -1)])
def test_writer_outside_its_range_is_refused(tmp_path, shard_size, rank):
    with pytest.raises(CacheError, match=r"rank in \[0, world_size\), got"):
        EmbeddingCacheWriter(tmp_path, KEY, shard_size, rank=rank, world_size=2)


class PowerCut(BaseException):
    pass


@pytest.mark.parametrize("file_that_stays_temporary", [".npy", ".json"])
def test_shard_interrupted_before_a_renaming_does_not_count_and_is_written_again(
    tmp_path, monkeypatch, file_that_stays_temporary
):
    write(tmp_path, "a")
    writer = EmbeddingCacheWriter(tmp_path, KEY)
    rename = Path.replace

    def cut(self, target):
        if target.suffix == file_that_stays_temporary:
            raise PowerCut
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(PowerCut):
        writer.write_shard(["b"], embeddings(1))
    monkeypatch.undo()

    assert sorted(EmbeddingCache(tmp_path, KEY)) == ["a"]
    write(tmp_path, "b")
    assert sorted(EmbeddingCache(tmp_path, KEY)) == ["a", "b"]
    assert files(tmp_path) == [
        "index.json",
        "shard_r00000_000000.json",
        "shard_r00000_000000.npy",
        "shard_r00000_000001.json",
        "shard_r00000_000001.npy",
    ]


def test_sidecar_gets_its_name_after_the_array_has_reached_the_disk(tmp_path, monkeypatch):
    writer = EmbeddingCacheWriter(tmp_path, KEY)
    steps: list[str] = []
    sync, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append("sync"), sync(descriptor)))
    monkeypatch.setattr(
        Path, "replace", lambda self, target: (steps.append(target.suffix), rename(self, target))
    )

    writer.write_shard(["a"], embeddings(1))

    assert steps == ["sync", ".npy", "sync", ".json"]


KILLED = """
import os, sys
import numpy as np
from edgeseg.distill.embedding_cache import CacheKey, fill_cache

key = CacheKey("a1b2", 64, "1", (1, 2, 3))

def embed(names):
    if "e" in names:
        os.kill(os.getpid(), 9)
    return np.ones((len(names), 1, 2, 3), np.float16)

fill_cache(sys.argv[1], key, list("abcdefgh"), embed, batch_size=1, shard_size=2)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_killed_process_leaves_all_finished_shards(tmp_path):
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)

    assert run.returncode == -9
    assert sorted(EmbeddingCache(tmp_path, KEY)) == ["a", "b", "c", "d"]


def test_truncated_shard_is_reported_with_both_sizes_and_counts_as_missing(tmp_path, caplog):
    write(tmp_path, "a")
    array = write(tmp_path, "b", "c")
    array.write_bytes(array.read_bytes()[:-1])  # 128 bytes of header + 2 * 12 of data - 1 = 151

    cache = EmbeddingCache(tmp_path, KEY)

    assert (sorted(cache), cache.damaged) == (["a"], [array])
    (record,) = caplog.records
    assert record.getMessage() == (
        f"cache shard {array} has 151 of 152 bytes; its images count as missing"
    )
    assert record.levelname == "WARNING"


def test_array_or_sidecar_that_is_gone_or_garbled_counts_as_missing(tmp_path, caplog):
    gone = write(tmp_path, "a")
    garbled = write(tmp_path, "b")
    write(tmp_path, "c")
    gone.unlink()
    garbled.with_suffix(".json").write_text('{"key": ')

    cache = EmbeddingCache(tmp_path, KEY)

    assert (sorted(cache), cache.damaged) == (["c"], [gone, garbled])
    assert ["gone" in caplog.text, "unreadable sidecar" in caplog.text] == [True, True]


def test_changed_content_is_found_when_asked_for(tmp_path):
    array = write(tmp_path, "a")
    array.write_bytes(array.read_bytes()[:-1] + b"\x01")  # same size

    assert EmbeddingCache(tmp_path, KEY).damaged == []
    assert EmbeddingCache(tmp_path, KEY, check_content=True).damaged == [array]


def test_unchanged_content_passes_the_check(tmp_path):
    write(tmp_path, "a")

    assert EmbeddingCache(tmp_path, KEY, check_content=True).damaged == []


def test_shard_damaged_after_opening_gives_an_error_with_its_path(tmp_path):
    array = write(tmp_path, "a", "b")
    cache = EmbeddingCache(tmp_path, KEY)
    array.write_bytes(array.read_bytes()[:-1])

    with pytest.raises(CacheError, match=rf"cannot read {array} \(.*\); fill the cache again"):
        cache.lookup("b")


def test_writer_removes_damaged_shards_of_its_own_rank_only(tmp_path):
    for rank in (0, 1):
        write(tmp_path, "ab"[rank], rank=rank, world_size=2).write_bytes(b"")

    EmbeddingCacheWriter(tmp_path, KEY, rank=1, world_size=2)

    assert files(tmp_path) == [
        "index.json",
        "shard_r00000_000000.json",
        "shard_r00000_000000.npy",
    ]


def test_ranks_that_are_no_more_are_cleaned_up_by_the_ones_left(tmp_path):
    write(tmp_path, "a", rank=5, world_size=6).write_bytes(b"")
    (tmp_path / ".shard_r00005_000001.npy.x1y2.npy").write_text("")  # from a killed process

    EmbeddingCacheWriter(tmp_path, KEY, rank=0, world_size=2)
    assert len(files(tmp_path)) == 4
    EmbeddingCacheWriter(tmp_path, KEY, rank=1, world_size=2)  # 5 % 2

    assert files(tmp_path) == ["index.json"]


def test_files_that_are_not_of_the_cache_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".hidden").write_text("")

    EmbeddingCacheWriter(tmp_path, KEY)

    assert files(tmp_path) == [".hidden", "index.json", "notes.txt"]


def test_full_disk_is_an_error_that_keeps_finished_shards_and_no_half_ones(tmp_path, monkeypatch):
    write(tmp_path, "a")
    writer = EmbeddingCacheWriter(tmp_path, KEY)

    def full(path, array):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(CacheError, match=r"No space left on device\); make room or pass another"):
        writer.write_shard(["b"], embeddings(1))

    assert len(files(tmp_path)) == 3  # index and the first shard
    assert sorted(EmbeddingCache(tmp_path, KEY)) == ["a"]


def test_merged_folders_of_two_machines_serve_all_names(tmp_path):
    for rank, name in enumerate("ab"):
        write(tmp_path / f"machine{rank}", name, rank=rank, world_size=2)
    for path in (tmp_path / "machine1").iterdir():
        path.replace(tmp_path / "machine0" / path.name)

    cache = EmbeddingCache(tmp_path / "machine0", KEY)

    assert [cache.lookup(name)[0, 0, 0] for name in "ab"] == [97, 98]


def lookup_first(cache: EmbeddingCache, name: str) -> float:
    return float(cache.lookup(name)[0, 0, 0])


def test_reader_works_in_a_worker_that_got_it_pickled(tmp_path):
    write(tmp_path, "a", "b")
    cache = EmbeddingCache(tmp_path, KEY)
    cache.lookup("a")

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(lookup_first, (cache, "b")) == 98.0
    assert lookup_first(pickle.loads(pickle.dumps(cache)), "a") == 97.0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files on Linux")
def test_reading_many_shards_keeps_no_file_open(tmp_path):
    writer = EmbeddingCacheWriter(tmp_path, KEY)
    names = [str(number) for number in range(20)]
    for number, name in enumerate(names):
        writer.write_shard([name], embeddings(number))
    cache = EmbeddingCache(tmp_path, KEY)
    before = len(list(Path("/proc/self/fd").iterdir()))

    found = [cache.lookup(name) for name in names]

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert [embedding[0, 0, 0] for embedding in found] == list(range(20))


def test_sidecar_names_rows_size_and_hash(tmp_path):
    sidecar = json.loads(write(tmp_path, "a", "b").with_suffix(".json").read_text())

    assert sidecar["names"] == ["a", "b"]
    assert sidecar["size_bytes"] == 152  # header of 128 bytes, 2 embeddings of 12
    assert len(sidecar["sha256"]) == 64
