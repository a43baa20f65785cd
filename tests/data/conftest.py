"""Fixtures of the data tests."""

import os
from pathlib import Path

import pytest
from tiny_data_sets import write_pair


@pytest.fixture
def two_domains(tmp_path):
    """cats/train with 3 images, dogs/train with 5, all 30 x 40 (height x width)."""
    root = tmp_path / "pets"
    for k in range(3):
        write_pair(root / "cats" / "train" / f"c{k}", seed=k)
    for k in range(5):
        write_pair(root / "dogs" / "train" / f"d{k}", seed=10 + k)
    return root


@pytest.fixture
def real_data():
    folder = os.environ.get("EDGESEG_DATA")
    if not folder:
        pytest.skip("EDGESEG_DATA is not set; it names the folder of real images with masks")
    return Path(folder)
