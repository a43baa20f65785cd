import hashlib
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeseg import manifest as manifests
from edgeseg.errors import EdgesegError
from edgeseg.export_manifest import hash_of
from edgeseg.inspection import describe as describing
from edgeseg.inspection.describe import describe
from edgeseg.manifest import ModelManifest, sha256_of, write_manifest


@pytest.fixture
def weights(tmp_path):
    """Weights as EdgeSeg writes them."""
    path = tmp_path / "student.safetensors"
    header = {"format": "edgeseg", "model": "edgeseg_s", "image_size": "256"}
    save_file({"mask_decoder.w": np.zeros((2, 3), np.float32)}, path, header)
    return path


@pytest.fixture
def model(weights):
    """The folder of these weights, as a model."""
    facts = ModelManifest(
        model="edgeseg_s", image_size=256, weights=weights.name, sha256=sha256_of(weights),
        num_parameters=6, licence="l", trained_on="t", description="d",
    )  # fmt: skip
    write_manifest(weights.parent, facts)
    return weights.parent


def refusal(path):
    with pytest.raises(EdgesegError) as caught:
        describe(str(path))
    return str(caught.value)


def test_a_file_has_its_size_and_hash(weights):
    found = describe(str(weights))

    assert found.size_bytes == weights.stat().st_size
    assert found.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (found.num_files, found.path) == (1, str(weights))
    assert found.as_dict()["kind"] == "weights"
    assert found.as_dict()["model"] == "edgeseg_s"


def test_the_content_decides_and_not_the_name(weights):
    other = weights.rename(weights.with_name("weights.onnx"))

    assert describe(str(other)).facts.kind == "weights"


def test_a_folder_has_the_size_and_hash_of_all_its_files(model):
    found = describe(str(model))

    sizes = [path.stat().st_size for path in model.iterdir()]
    assert (found.facts.kind, found.num_files, found.size_bytes) == ("model folder", 2, sum(sizes))
    assert found.sha256 == hash_of(model)


@pytest.mark.parametrize("name", ["model.toml"])
def test_the_manifest_of_a_folder_stands_for_the_folder(model, name, monkeypatch):
    assert describe(str(model / name)).facts.kind == "model folder"

    monkeypatch.chdir(model)
    assert describe(name).facts.kind == "model folder"


def test_a_model_is_found_by_its_name(model, monkeypatch):
    place = model.parent / "released"
    place.mkdir()
    model.rename(place / "mine")
    monkeypatch.setattr(manifests, "RELEASED", place)

    found = describe("mine")

    assert (found.path, found.facts.kind) == (str(place / "mine"), "model folder")


def test_a_run_has_no_hash_of_its_own(tmp_path):
    (tmp_path / "config.json").write_text('{"student": {"model": "edgeseg_s"}}')
    (tmp_path / "prompt_metrics.csv").write_text("step,total\n20,1\n")
    (tmp_path / "teacher_masks").mkdir()
    (tmp_path / "teacher_masks" / "a.json").write_text("12345")

    found = describe(str(tmp_path))

    assert (found.facts.kind, found.sha256, found.num_files) == ("run folder", None, 3)
    assert found.size_bytes == sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())


def test_long_work_is_announced(weights, monkeypatch):
    said = []
    monkeypatch.setattr(describing, "SLOW_BYTES", 10)

    describe(str(weights), said.append)

    assert said == ["hashing 0.0 GB"]


def test_an_image_is_named_and_sent_where_images_go(tmp_path):
    path = tmp_path / "photo.onnx"
    path.write_bytes(cv2.imencode(".jpg", np.zeros((4, 6, 3), np.uint8))[1].tobytes())

    expected = f"{path} is a JPEG file, an image; `edgeseg segment` takes images"
    assert refusal(path) == expected


@pytest.mark.parametrize("suffix", ["", ".onnx", ".safetensors", ".pth", ".toml"])
def test_an_empty_file_is_called_empty_whatever_its_name(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.touch()

    assert refusal(path) == f"{path} is an empty file; fetch or write it again"


def test_bytes_of_no_kind_are_shown(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes([200, 1, 2, 3, 4, 5, 6, 7, 8]))

    message = refusal(path)

    assert "is of no known kind (9 bytes, the first are c8 01 02 03 04 05 06 07); give" in message
    assert "weights (.safetensors, .pth)" in message


def test_a_text_shows_how_it_begins(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("hello\nworld")

    assert "is a text file that begins with 'hello'; give" in refusal(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_named_and_not_read(tmp_path, protocol):
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps([1], protocol))

    assert "is a Python pickle, and reading it could run code; save" in refusal(path)


def test_another_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "x")

    assert "is a ZIP archive that PyTorch did not write; unpack it" in refusal(tmp_path / "a.zip")


def test_a_specification_alone_is_not_taken_for_onnx(tmp_path):
    (tmp_path / "model.mlmodel").write_bytes(b"\x08\x07\x12\x02ab")

    assert "give the whole .mlpackage folder" in refusal(tmp_path / "model.mlmodel")


def test_what_does_not_exist_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESEG_MODELS", str(tmp_path))
    message = refusal(tmp_path / "nowhere")
    assert "neither a file, a folder nor a model of that name; give" in message

    (tmp_path / "link").symlink_to("nowhere")
    assert "neither a file, a folder nor a model" in refusal(tmp_path / "link")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    assert "is neither a file nor a folder; give" in refusal(tmp_path / "pipe")


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_file_that_cannot_be_read_gives_the_reason(weights, monkeypatch):
    def refuse(path, *arguments):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # the superuser may read everything

    assert (
        refusal(weights)
        == f"cannot read {weights}: Permission denied; give a file that can be read"
    )


def test_a_folder_says_what_it_holds(tmp_path):
    assert "is an empty folder; give" in refusal(tmp_path)

    for number in range(3):
        (tmp_path / f"{number}.jpg").touch()
    message = refusal(tmp_path)
    assert "is a folder with 3 entries (.jpg) and no model.toml or export.json; give" in message


def test_a_folder_around_something_known_names_it(tmp_path, weights):
    assert refusal(tmp_path).endswith("is a folder with student.safetensors; give one of these")


def test_a_compiled_core_ml_model_is_named(tmp_path):
    (tmp_path / "a.mlmodelc").mkdir()

    message = refusal(tmp_path / "a.mlmodelc")
    assert message.endswith("which only Core ML reads; give its .mlpackage")


def test_a_model_folder_with_a_link_is_refused(model):
    (model / "extra").symlink_to("/dev/zero")

    assert "extra is a link" in refusal(model)


def test_weights_of_ours_are_described_without_torch(weights):
    probe = (
        "import sys; from edgeseg.inspection.describe import describe; "
        f"describe({str(weights)!r}); sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
