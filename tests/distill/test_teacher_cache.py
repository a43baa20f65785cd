import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_runs import write_image

from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.distill import teacher_cache
from edgeseg.distill.cache_key import CacheKey
from edgeseg.distill.embedding_cache import CacheProgress
from edgeseg.distill.teacher_cache import cache_key, cached_embeddings
from edgeseg.distill.teachers import NetTeacher, load_teacher
from edgeseg.errors import CacheError, DataError
from edgeseg.modeling.registry import build_model
from edgeseg.preprocess import preprocess


def process(rank=0, world_size=1):
    return SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        device=torch.device("cpu"),
        barrier=lambda: None,
    )


@pytest.fixture(scope="module")
def net_teacher(teacher):
    return load_teacher(teacher, "vit_tiny")


@pytest.fixture
def records(tmp_path):
    for k in range(5):
        write_image(tmp_path / "photos" / f"p{k}.png", (20 + 4 * k, 40), seed=k)
    return list_records([SourceConfig(format="images", path=tmp_path / "photos")])


def test_cached_rows_are_the_teachers_features(tmp_path, net_teacher, records):
    lines = []

    lookup = cached_embeddings(tmp_path / "cache", net_teacher, records, process(), lines.append)

    row = torch.from_numpy(np.asarray(lookup(records[3].name)))[None]
    features = net_teacher.feature_shapes().unpack(row)
    image = torch.from_numpy(preprocess(records[3].read_image(), 128))
    expected = net_teacher.embed(image).embedding
    torch.testing.assert_close(features.embedding.float(), expected, rtol=1e-3, atol=1e-3)
    assert features.high_res is None
    assert len(lines) == 2  # the cost before, the last progress
    assert re.search(r"5 images, 0.0 GiB of .* free, 0 h 00 min at \d", lines[0])
    assert "5 of 5" in lines[1]


def test_finer_levels_are_cached_as_well(tmp_path, records):
    torch.manual_seed(0)
    fine = NetTeacher(build_model("edgeseg_tiny"))
    torch.nn.init.normal_(fine.net.mask_decoder.high_res_s4.weight)

    lookup = cached_embeddings(tmp_path / "cache", fine, records, process(), lambda _: None)

    features = fine.feature_shapes().unpack(torch.from_numpy(lookup(records[0].name))[None])
    expected = fine.embed(torch.from_numpy(preprocess(records[0].read_image(), 64)))
    torch.testing.assert_close(
        features.high_res[1].float(), expected.high_res[1], atol=1e-2, rtol=0
    )
    assert features.high_res[0].shape == (1, 8, 8, 8)
    assert features.high_res[1].shape == (1, 4, 16, 16)


def test_key_holds_weights_size_preprocessing_and_shape(net_teacher):
    assert cache_key(net_teacher) == CacheKey(
        net_teacher.fingerprint, 128, teacher_cache.PREPROCESSING, (32 * 8 * 8, 1, 1)
    )


def test_a_cache_of_other_weights_is_refused(tmp_path, net_teacher, records):
    cached_embeddings(tmp_path, net_teacher, records, process(), lambda _: None)
    torch.manual_seed(8)

    with pytest.raises(CacheError, match="was made with teacher "):
        cached_embeddings(
            tmp_path, NetTeacher(build_model("vit_tiny")), records, process(), lambda _: None
        )


def test_only_missing_images_are_embedded(tmp_path, net_teacher, records, monkeypatch):
    cached_embeddings(tmp_path, net_teacher, records[:4], process(), lambda _: None)
    embedded = []
    embed = net_teacher.embed

    def spy(images):
        embedded.append(len(images))
        return embed(images)

    monkeypatch.setattr(net_teacher, "embed", spy)
    cached_embeddings(tmp_path, net_teacher, records, process(), lambda _: None)

    assert embedded == [1, 1]  # once to tell the time it takes, once to keep


def test_processes_share_the_work_and_leave_each_others_files_alone(tmp_path, net_teacher, records):
    cached_embeddings(tmp_path, net_teacher, [], process(), lambda _: None)
    unfinished = tmp_path / ".shard_r00000_000000.npy.abc.npy"
    unfinished.write_bytes(b"half")  # the first process is in the middle of writing

    lookup = cached_embeddings(tmp_path, net_teacher, records, process(1, 2), lambda _: None)

    assert unfinished.exists()
    assert lookup(records[4].name).shape == (2048, 1, 1)
    with pytest.raises(CacheError, match="has no embedding"):
        lookup(records[0].name)  # in the half of the first process
    lookup = cached_embeddings(tmp_path, net_teacher, records, process(0, 2), lambda _: None)
    assert all(lookup(each.name).any() for each in records)


def test_an_image_that_cannot_be_read_does_not_stop_the_others(tmp_path, net_teacher, records):
    (tmp_path / "photos" / "p2.png").write_bytes(b"no image")

    lookup = cached_embeddings(tmp_path / "cache", net_teacher, records, process(), lambda _: None)

    assert np.abs(lookup(records[4].name)).max() > 0


def test_the_folder_may_hold_variables(tmp_path, net_teacher, records, monkeypatch):
    monkeypatch.setenv("CACHES", str(tmp_path))
    monkeypatch.delenv("NOWHERE", raising=False)

    cached_embeddings(Path("$CACHES/c"), net_teacher, records[:1], process(), lambda _: None)

    assert (tmp_path / "c" / "index.json").exists()
    with pytest.raises(DataError, match="NOWHERE"):
        cached_embeddings(Path("$NOWHERE/c"), net_teacher, records, process(), lambda _: None)


def test_progress_comes_now_and_then_and_at_the_end():
    lines, times = [], iter([0.0, 5.0, 21.0, 21.0, 30.0, 31.0])
    show = teacher_cache._now_and_then(lines.append, lambda: next(times))

    for done in (4, 8, 12, 16):  # after 5 s, after 21 s, after 30 s, at the end
        show(CacheProgress(done, 16, 2.0, 3.0))

    assert [line.split(",")[0] for line in lines] == [
        "teacher features: 8 of 16",
        "teacher features: 16 of 16",
    ]
