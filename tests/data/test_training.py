import dataclasses
import pickle

import numpy as np
import pytest

from edgeseg.data.augmentation import AugmentationConfig, ColorConfig, CropConfig
from edgeseg.data.copy_paste import PasteConfig
from edgeseg.data.region_unions import UnionConfig
from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.data.training import TrainingDataset
from edgeseg.errors import ConfigError, DataError

VARIED = AugmentationConfig(crop=CropConfig(), color=ColorConfig())
PASTING = AugmentationConfig(
    crop=CropConfig(),
    union=UnionConfig(probability=1),
    paste=PasteConfig(probability=1, min_contrast=0, max_border=9),
)


def records_of(root, file_format="sa1b"):
    return list_records([SourceConfig(format=file_format, path=root, split="train")])


def equal(first, second):
    return all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name))
        for field in dataclasses.fields(first)
        if getattr(first, field.name) is not None
    )


def test_a_position_gives_the_same_sample_whenever_it_is_asked(two_domains):
    records = records_of(two_domains)
    dataset = TrainingDataset(records, 7, 64, augmentation=VARIED, balance_domains=True)
    again = TrainingDataset(records, 7, 64, augmentation=VARIED, balance_domains=True)

    first = [dataset[position] for position in range(20)]

    assert all(equal(again[p], first[p]) for p in (19, 3, 11))
    other_seed = TrainingDataset(records, 8, 64, augmentation=VARIED, balance_domains=True)
    assert not any(equal(other_seed[p], first[p]) for p in range(20))


def test_pasted_objects_and_unions_depend_on_the_position_only(two_domains):
    dataset = TrainingDataset(records_of(two_domains), 7, 64, augmentation=PASTING)
    elsewhere = pickle.loads(pickle.dumps(dataset))  # as a worker process gets it

    first = [dataset[position] for position in range(12)]

    assert all(equal(elsewhere[p], first[p]) for p in (11, 0, 5))
    cropped = TrainingDataset(
        records_of(two_domains), 7, 64, augmentation=AugmentationConfig(crop=CropConfig())
    )
    num_plain = sum(len(cropped[p].masks) for p in range(12))
    assert sum(len(sample.masks) for sample in first) > num_plain


def test_a_donor_that_is_broken_is_reported_once_a_sample(two_domains):
    for name in ("c0", "c1"):
        (two_domains / "cats" / "train" / f"{name}.jpg").write_bytes(b"broken")
    dataset = TrainingDataset(records_of(two_domains), 0, 64, augmentation=PASTING)
    plain = TrainingDataset(records_of(two_domains), 0, 64, augmentation=VARIED)

    for position in range(24):
        sample = dataset[position]
        tried = plain[position].broken
        assert sample.name == plain[position].name
        assert sample.broken[: len(tried)] == tried  # then the donor, if it is broken
        of_donor = sample.broken[len(tried) :]
        assert len(of_donor) == (sample.name == "cats/train/c2")
        assert all("cats/train/c" in message for message in of_donor)


def test_a_record_is_seen_differently_in_every_epoch(two_domains):
    dataset = TrainingDataset(records_of(two_domains), 0, 64, augmentation=VARIED)
    of_first = [dataset[p] for p in range(24) if dataset[p].name == "cats/train/c0"]

    assert len(of_first) == 3
    assert not equal(of_first[0], of_first[1])


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("c1.jpg", b"\xff\xd8\xff\xe0 broken", "c1.jpg"),
        ("c1.json", b'{"annotations": [{"id', "c1.json .*not valid JSON"),
        (
            "c1.json",
            b'{"annotations": [{"segmentation": {"size": [30, 40], "counts": [0, 1300]}}]}',
            "cover 1300 pixels .* the image has 30 x 40 = 1200",
        ),
    ],
)
def test_a_broken_record_is_replaced_by_the_next_one_and_reported(
    two_domains, file, content, reason
):
    (two_domains / "cats" / "train" / file).write_bytes(content)
    records = records_of(two_domains)
    dataset = TrainingDataset(records, 0, 64)
    order = dataset.order
    broken = next(p for p in range(8) if records[order.record_index(p)].name.endswith("c1"))

    samples = [dataset[position] for position in range(8)]

    assert [p for p in range(8) if samples[p].broken] == [broken]
    assert len(samples[broken].broken) == 1
    with pytest.raises(DataError, match=reason):
        raise DataError(samples[broken].broken[0])
    assert samples[broken].name == records[order.record_index(broken, 1)].name
    assert equal(dataset[broken], samples[broken])


def test_a_truncated_jpeg_is_broken(two_domains):
    file = two_domains / "cats" / "train" / "c1.jpg"
    file.write_bytes(file.read_bytes()[:-100])
    dataset = TrainingDataset(records_of(two_domains), 0, 64)

    assert sum(len(dataset[position].broken) for position in range(8)) == 1


def test_nothing_but_broken_records_is_an_error(two_domains):
    for file in two_domains.rglob("*.jpg"):
        file.write_bytes(b"broken")
    dataset = TrainingDataset(records_of(two_domains), 0, 64)

    with pytest.raises(DataError, match=r"all 8 records tried for position 5.*\.jpg"):
        dataset[5]


def test_embeddings_are_looked_up_by_name(two_domains):
    dataset = TrainingDataset(
        records_of(two_domains), 0, 64, with_instances=False,
        embedding_lookup=lambda name: np.full((4, 2, 3), int(name[-1]), np.float16),
    )  # fmt: skip

    sample = dataset[3]

    assert sample.teacher_embedding.shape == (4, 2, 3)
    assert (sample.teacher_embedding == int(sample.name[-1])).all()
    assert len(sample.masks) == 0


def test_cached_embeddings_exclude_augmentation(two_domains):
    with pytest.raises(ConfigError, match="remove the augmentation or compute the embeddings"):
        TrainingDataset(
            records_of(two_domains), 0, 64, augmentation=VARIED, embedding_lookup=lambda _: None
        )


def test_data_that_cannot_be_learned_from_is_refused(two_domains):
    with pytest.raises(DataError, match="there are no records"):
        TrainingDataset([], 0, 64)
    with pytest.raises(DataError, match="none of the 8 records has masks.*with_instances=False"):
        TrainingDataset(records_of(two_domains, "images"), 0, 64)
    images = TrainingDataset(records_of(two_domains, "images"), 0, 64, with_instances=False)
    assert images.num_records == 8
    assert images[0].masks.shape == (0, 16, 16)


@pytest.mark.parametrize("augmentation", [VARIED, PASTING], ids=["varied", "pasting"])
def test_samples_of_the_real_data_hold_prompts_in_their_masks(real_data, augmentation):
    records = records_of(real_data)
    dataset = TrainingDataset(records, 0, 128, augmentation=augmentation, balance_domains=True)

    for position in range(24):
        sample = dataset[position]
        assert sample.broken == ()
        assert 1 <= len(sample.masks) <= 16
        height, width = sample.image_hw
        assert ((sample.points_xy > 0) & (sample.points_xy < [width, height])).all()
        x0, y0, x1, y1 = sample.boxes_xyxy.T
        assert ((x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1)).all()
        assert (y1 <= height).all()
