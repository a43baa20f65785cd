"""Fixtures of the distillation tests."""

import pytest
from tiny_runs import save_teacher, write_pairs


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Four small images of different shapes with two masks each."""
    folder = tmp_path_factory.mktemp("pairs") / "photos"
    write_pairs(folder)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """Weights of a random teacher with an input twice as large as the student's."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_teacher(path)
    return path
