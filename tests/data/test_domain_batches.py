from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeseg.data.batches import collate
from edgeseg.data.domain_batches import domain_of, pick_images, rows_by_domain
from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.data.training import TrainingDataset
from edgeseg.errors import DataError


@pytest.fixture
def samples(two_domains):
    """Four samples of 2, 0, 1 and 2 objects."""
    records = list_records([SourceConfig(format="sa1b", path=two_domains, split="train")])
    dataset = TrainingDataset(records, 5, 64, teacher_size=96, balance_domains=True)
    made = [dataset[k] for k in range(4)]
    made[1] = without_objects(made[1], 0)
    made[2] = without_objects(made[2], 1)
    return made


def without_objects(sample, keep):
    names = ("masks", "boxes_xyxy", "points_xy", "use_box")
    return replace(sample, **{name: getattr(sample, name)[:keep] for name in names})


def fields_of(batch):
    return {
        name: value.tolist() if isinstance(value, torch.Tensor) else value
        for name, value in vars(batch).items()
    }


@pytest.mark.parametrize("rows", [[0], [1], [2, 0], [3, 1, 2], [0, 1, 2, 3]])
def test_picked_images_are_the_batch_of_their_samples(samples, rows):
    picked = pick_images(collate(samples), rows)

    assert fields_of(picked) == fields_of(collate([samples[row] for row in rows]))


def test_an_image_that_both_networks_share_stays_one_tensor(samples):
    shared = [replace(sample, teacher_image=sample.student_image) for sample in samples]

    picked = pick_images(collate(shared), [2, 3])

    assert picked.teacher_images is picked.student_images


def test_absent_teacher_images_and_present_embeddings_are_picked(samples):
    cached = [
        replace(sample, teacher_image=None, teacher_embedding=np.full((2, 1, 1), k, np.float16))
        for k, sample in enumerate(samples)
    ]

    picked = pick_images(collate(cached), [3, 1])

    assert picked.teacher_images is None
    assert picked.teacher_embedding[:, 0, 0, 0].tolist() == [3, 1]


def test_rows_of_a_domain_keep_their_order_and_domains_are_sorted():
    assert rows_by_domain(["dogs", "cats", "cats", "dogs"]) == {"cats": [1, 2], "dogs": [0, 3]}
    assert list(rows_by_domain(["dogs", "cats"])) == ["cats", "dogs"]


@pytest.mark.parametrize(
    ("domains", "found"),
    [(["b", "a", "b"], "got 1 of a, 2 of b; draw them"), ([], "got no images")],
)
def test_domains_of_different_size_are_refused(domains, found):
    with pytest.raises(DataError, match=found):
        rows_by_domain(domains)


def test_a_batch_of_one_domain_has_its_name():
    assert domain_of(["cats", "cats"]) == "cats"


@pytest.mark.parametrize(
    ("domains", "found"),
    [(["dogs", "cats", "dogs"], "got 1 of cats, 2 of dogs"), ([], "no images")],
)
def test_a_mixed_batch_is_refused(domains, found):
    with pytest.raises(DataError, match=f"a batch of one domain is wanted, {found}|{found}"):
        domain_of(domains)
