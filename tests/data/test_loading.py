import dataclasses
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch

from edgeseg.data.augmentation import AugmentationConfig, ColorConfig, CropConfig
from edgeseg.data.batches import collate
from edgeseg.data.broken import BrokenItems
from edgeseg.data.loading import build_loader
from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.data.training import TrainingDataset
from edgeseg.errors import CacheError, ConfigError, DataError

VARIED = AugmentationConfig(crop=CropConfig(), color=ColorConfig())


def embedding_of(name):
    return np.full((4, 2, 2), int(name[-1]), np.float16)


def absent_embedding(name):
    raise CacheError(f"the cache has no embedding of {name}; build it again")


def dataset_of(root, **settings):
    records = list_records([SourceConfig(format="sa1b", path=root, split="train")])
    return TrainingDataset(records, 5, 64, **{"augmentation": VARIED, **settings})


def values(batch):
    """List the fields of a batch in a form that == compares."""
    return [
        value.tolist() if isinstance(value, torch.Tensor) else value
        for value in (getattr(batch, field.name) for field in dataclasses.fields(batch))
    ]


def test_a_batch_joins_samples_in_order(two_domains):
    dataset = dataset_of(two_domains, max_instances=1, teacher_size=96)
    empty = dataclasses.replace(
        dataset[1], masks=np.zeros((0, 16, 16), bool), boxes_xyxy=np.zeros((0, 4), np.float32),
        points_xy=np.zeros((0, 2), np.float32), use_box=np.zeros(0, bool), broken=("x.jpg",),
    )  # fmt: skip
    samples = [dataset[0], empty, dataset[2]]

    batch = collate(samples)

    assert batch.counts == (1, 0, 1)
    assert batch.names == tuple(sample.name for sample in samples)
    assert batch.domains == tuple(sample.domain for sample in samples)
    assert batch.broken == ("x.jpg",)
    assert batch.image_hw.tolist() == [list(sample.image_hw) for sample in samples]
    assert batch.image_hw.dtype == torch.int64
    assert batch.student_images.shape == (3, 3, 64, 64)
    assert batch.teacher_images.shape == (3, 3, 96, 96)
    assert batch.teacher_embedding is None
    assert torch.equal(batch.student_images[2], torch.from_numpy(samples[2].student_image))
    assert torch.equal(batch.teacher_images[2], torch.from_numpy(samples[2].teacher_image))
    assert batch.masks.dtype == batch.use_box.dtype == torch.bool
    assert torch.equal(batch.masks[1], torch.from_numpy(samples[2].masks[0]))
    assert batch.boxes_xyxy.tolist()[1] == samples[2].boxes_xyxy[0].tolist()
    assert batch.points_xy.tolist()[0] == samples[0].points_xy[0].tolist()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_teacher_and_student_share_one_tensor_when_the_sizes_are_equal(two_domains, num_workers):
    dataset = dataset_of(two_domains, teacher_size=64)

    (batch,) = build_loader(dataset, 0, 1, 2, num_workers=num_workers)

    assert batch.teacher_images is batch.student_images
    moved = batch.to("meta")
    assert moved.teacher_images is moved.student_images
    assert values(batch.to("cpu")) == values(batch)


def test_a_batch_moves_all_its_tensors(two_domains):
    (batch,) = build_loader(dataset_of(two_domains, teacher_size=96), 0, 1, 2)

    moved = batch.to("meta")

    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 7
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.names == batch.names


def test_cached_embeddings_come_as_float32(two_domains):
    dataset = dataset_of(
        two_domains, augmentation=None, with_instances=False, embedding_lookup=embedding_of
    )

    (batch,) = build_loader(dataset, 0, 1, 3)

    assert batch.teacher_embedding.dtype == torch.float32
    assert batch.teacher_embedding[:, 0, 0, 0].tolist() == [int(name[-1]) for name in batch.names]
    assert batch.teacher_images is None
    assert batch.counts == (0, 0, 0)
    assert batch.masks.shape == (0, 16, 16)
    assert batch.boxes_xyxy.shape == (0, 4)


def test_step_k_holds_the_positions_from_k_times_the_batch_size(two_domains):
    dataset = dataset_of(two_domains)
    loader = build_loader(dataset, first_step=2, num_steps=3, batch_size=2)

    batches = list(loader)

    assert len(loader) == len(batches) == 3
    assert values(batches[0]) == values(collate([dataset[4], dataset[5]]))
    assert values(batches[2]) == values(collate([dataset[8], dataset[9]]))


def test_workers_and_a_later_start_change_nothing(two_domains):
    dataset = dataset_of(two_domains, balance_domains=True)
    expected = [values(batch) for batch in build_loader(dataset, 0, 6, 2)]

    with_workers = build_loader(dataset, 0, 6, 2, num_workers=2)
    resumed = build_loader(dataset, 4, 2, 2, num_workers=1)

    assert [values(batch) for batch in with_workers] == expected
    assert [values(batch) for batch in resumed] == expected[4:]


def test_two_ranks_share_the_batch_of_one(two_domains):
    dataset = dataset_of(two_domains)
    whole = list(build_loader(dataset, 3, 2, 4))
    ranks = [list(build_loader(dataset, 3, 2, 4, rank=r, world_size=2)) for r in (0, 1)]

    for step in range(2):
        first, second = ranks[0][step], ranks[1][step]
        assert first.names + second.names == whole[step].names
        assert first.counts + second.counts == whole[step].counts
        for field in ("student_images", "image_hw", "masks", "boxes_xyxy", "points_xy", "use_box"):
            joined = torch.cat([getattr(first, field), getattr(second, field)])
            assert torch.equal(joined, getattr(whole[step], field))


def test_loading_leaves_the_global_random_numbers_alone(two_domains):
    torch.manual_seed(0)
    before = torch.get_rng_state()

    list(build_loader(dataset_of(two_domains), 0, 1, 2, num_workers=1))

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_outlive_a_signal_that_the_main_process_handles(two_domains, number):
    batches = iter(build_loader(dataset_of(two_domains), 0, 8, 2, num_workers=1))
    next(batches)

    for worker in multiprocessing.active_children():
        os.kill(worker.pid, number)  # what terminals and job schedulers send to every process

    assert len(list(batches)) == 7


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_records_are_counted_in_the_main_process(two_domains, num_workers):
    (two_domains / "cats" / "train" / "c1.jpg").write_bytes(b"broken")
    (two_domains / "dogs" / "train" / "d1.json").write_bytes(b"{")
    items = BrokenItems(max_share=1.0)

    batches = list(
        build_loader(
            dataset_of(two_domains), 0, 8, 2, num_workers=num_workers, broken_items=items
        )
    )  # fmt: skip

    assert (items.num_broken, items.num_touched) == (2, 8)
    assert sum(len(batch.broken) for batch in batches) >= 4  # met in both epochs


@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_many_broken_records_stop_the_run(two_domains, num_workers):
    for k in range(3):
        (two_domains / "cats" / "train" / f"c{k}.jpg").write_bytes(b"broken")
    items = BrokenItems(max_share=0.3, min_broken=3)
    loader = build_loader(
        dataset_of(two_domains), 0, 8, 2, num_workers=num_workers, broken_items=items
    )

    with pytest.raises(DataError, match=r"^3 of \d records .* are broken.*cats/train/c"):
        list(loader)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_of_a_worker_keeps_its_type_and_its_one_line(two_domains, num_workers):
    dataset = dataset_of(two_domains, augmentation=None, embedding_lookup=absent_embedding)

    with pytest.raises(CacheError, match=r"^the cache has no embedding of \S+; build it again$"):
        list(build_loader(dataset, 0, 1, 2, num_workers=num_workers))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"batch_size": 3, "world_size": 2}, "3 images for 2 processes"),
        ({"batch_size": 0}, "0 images for 1 processes"),
        ({"rank": 2, "world_size": 2}, "rank must be from 0 to 1, got 2"),
        ({"first_step": -1}, "must not be negative"),
        ({"num_workers": -1}, "must not be negative"),
    ],
)
def test_steps_that_cannot_be_shared_out_are_refused(two_domains, wrong, reason):
    arguments = {"first_step": 0, "num_steps": 1, "batch_size": 2, **wrong}

    with pytest.raises(ConfigError, match=reason):
        build_loader(dataset_of(two_domains), **arguments)
