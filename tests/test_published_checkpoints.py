import re

import pytest
import torch

from edgeseg.links import check_link
from edgeseg.manifest import is_plain_name
from edgeseg.modeling.registry import build_model
from edgeseg.published_checkpoints import PUBLISHED

ALL = list(PUBLISHED.values())


@pytest.mark.parametrize("checkpoint", ALL, ids=list(PUBLISHED))
def test_a_published_checkpoint_is_of_a_network_of_ours(checkpoint):
    with torch.device("meta"):  # shapes without numbers
        net = build_model(checkpoint.model)

    assert net.num_parameters() == checkpoint.num_parameters
    assert net.image_size == checkpoint.image_size


@pytest.mark.parametrize("checkpoint", ALL, ids=list(PUBLISHED))
def test_a_published_checkpoint_can_be_fetched_and_named(checkpoint):
    check_link(checkpoint.link)

    assert checkpoint.link.startswith("https://")
    assert is_plain_name(checkpoint.name)
    assert PUBLISHED[checkpoint.name] is checkpoint
    assert checkpoint.sha256 is None or re.fullmatch("[0-9a-f]{64}", checkpoint.sha256)


def test_a_file_of_float32_numbers_is_as_large_as_its_network():
    for checkpoint in ALL:
        if checkpoint.size_bytes is not None:
            # 4 bytes a number, and less than 1 % for names, shapes and the zip file around them
            assert 0 < checkpoint.size_bytes / (4 * checkpoint.num_parameters) - 1 < 0.01


def test_no_hash_is_used_twice_and_every_known_file_name_has_its_own():
    hashes = [checkpoint.sha256 for checkpoint in ALL if checkpoint.sha256]

    assert len(set(hashes)) == len(hashes) == 3
    assert len({checkpoint.link for checkpoint in ALL}) == len(ALL)
