import tempfile
from types import SimpleNamespace

import pytest

from edgeseg import manifest as manifests
from edgeseg.inspection.health import places
from edgeseg.manifest import ModelManifest, sha256_of, write_manifest


@pytest.fixture
def free(monkeypatch):
    """Make a disk have so many bytes left."""

    def put(size_bytes):
        usage = SimpleNamespace(free=size_bytes)
        monkeypatch.setattr(places.shutil, "disk_usage", lambda folder: usage)

    return put


@pytest.mark.parametrize(
    ("size_bytes", "status"),
    [
        (499_999_999, "problem"),
        (500_000_000, "warning"),
        (4_999_999_999, "warning"),
        (5 * 10**9, "ok"),
    ],
)
def test_space_is_a_problem_below_half_a_gigabyte_and_a_warning_below_five(
    tmp_path, free, size_bytes, status
):
    free(size_bytes)

    found = places.check_disk("working folder", tmp_path, "runs")

    assert (found.check, found.status) == ("working folder", status)
    assert found.found == f"{size_bytes / 1e9:.1f} GB free in {tmp_path}, for runs"
    assert bool(found.advice) == (status != "ok")


def test_a_folder_that_is_read_only_is_a_warning(tmp_path, free, monkeypatch):
    free(10**12)
    monkeypatch.setattr(places.os, "access", lambda folder, mode: mode != places.os.W_OK)

    found = places.check_disk("working folder", tmp_path, "runs")

    assert (found.status, found.advice) == ("warning", "write to another folder")
    assert found.found.endswith("it is read-only")


def test_no_place_for_temporary_files_is_a_problem(monkeypatch):
    def nowhere():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)

    found = places.check_temporary_files()

    assert (found.status, found.advice) == ("problem", "set TMPDIR to a folder that can be written")


def test_temporary_files_are_checked_where_python_puts_them(tmp_path, free, monkeypatch):
    free(10**12)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))

    assert str(tmp_path) in places.check_temporary_files().found


@pytest.mark.parametrize("value", [None, ""])
def test_images_that_are_not_named_are_a_warning(monkeypatch, value):
    monkeypatch.delenv("EDGESEG_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("EDGESEG_DATA", value)

    found = places.check_data()

    assert (found.status, found.found.partition(";")[0]) == ("warning", "not set")
    assert found.advice.startswith("export EDGESEG_DATA=")


def test_images_that_cannot_be_read_are_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESEG_DATA", str(tmp_path / "nowhere"))

    found = places.check_data()

    assert found.status == "problem"
    assert found.found == f"{tmp_path / 'nowhere'} cannot be read: No such file or directory"


def test_images_that_are_there_are_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESEG_DATA", str(tmp_path))
    assert places.check_data().found == f"{tmp_path} is empty"

    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()

    assert (places.check_data().status, places.check_data().found) == (
        "ok",
        f"{tmp_path}, 3 entries",
    )


@pytest.fixture
def released(tmp_path, monkeypatch):
    """Two places for models, both empty; returns a function that puts a model in one."""
    for name in ("released", "own"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(manifests, "RELEASED", tmp_path / "released")
    monkeypatch.setenv("EDGESEG_MODELS", str(tmp_path / "own"))

    def put(place, name):
        folder = tmp_path / place / name
        folder.mkdir()
        (folder / "student.safetensors").write_bytes(b"weights")
        facts = ModelManifest(
            model="edgeseg_s", image_size=512, weights="student.safetensors", num_parameters=1,
            sha256=sha256_of(folder / "student.safetensors"),
            licence="l", trained_on="t", description="d",
        )  # fmt: skip
        write_manifest(folder, facts)
        return folder

    return put


def test_no_model_at_all_is_a_warning(released):
    (found,) = places.check_models(thorough=False)

    assert (found.check, found.status) == ("models", "warning")
    assert found.advice.startswith("edgeseg models")


def test_a_released_model_with_other_weights_is_a_problem(released):
    folder = released("released", "good")
    (released("released", "replaced") / "student.safetensors").write_bytes(b"others")

    good, replaced = places.check_models(thorough=False)

    assert (good.check, good.status) == ("model good", "ok")
    assert good.found == f"{folder / 'student.safetensors'}: its hash is right"
    assert (replaced.check, replaced.status) == ("model replaced", "problem")
    assert "damaged or was replaced" in replaced.found


def test_a_model_of_the_user_is_hashed_only_if_there_is_time(released):
    (released("own", "mine") / "student.safetensors").write_bytes(b"others")

    assert [each.status for each in places.check_models(thorough=False)] == ["ok"]
    assert [each.status for each in places.check_models(thorough=True)] == ["problem"]


def test_a_broken_export_inside_a_model_is_a_problem(released):
    folder = released("released", "good") / "onnx_fp32"
    folder.mkdir()
    (folder / "export.json").write_text("{}")

    (found,) = places.check_models(thorough=False)

    assert found.status == "problem"
    assert "no valid export manifest" in found.found
