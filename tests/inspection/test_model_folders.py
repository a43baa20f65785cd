import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeseg.errors import WeightsError
from edgeseg.export_manifest import (
    ExportedFile,
    ExportedTensor,
    ExportManifest,
    sha256_of,
    size_of,
    write_export,
)
from edgeseg.inspection.model_folders import describe_exported_folder, describe_model_folder
from edgeseg.manifest import ModelManifest, write_manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """A model folder whose weights hold six numbers."""
    weights = tmp_path / "student.safetensors"
    header = {"format": "edgeseg", "model": "edgeseg_s", "image_size": "512"}
    save_file({"mask_decoder.w": np.zeros((2, 3), np.float16)}, weights, header)
    put_manifest(tmp_path)
    return tmp_path


def put_manifest(folder, **changed):
    facts = {
        "model": "edgeseg_s",
        "image_size": 512,
        "weights": "student.safetensors",
        "sha256": sha256_of(folder / "student.safetensors"),
        "num_parameters": 6,
        "licence": "Apache-2.0",
        "trained_on": "photographs",
        "description": "A student.",
    }
    write_manifest(folder, ModelManifest(**{**facts, **changed}))


@pytest.fixture
def exported(tmp_path):
    """An exported folder of one file."""
    (tmp_path / "encoder.onnx").write_bytes(b"graph")
    file = ExportedFile(
        path="encoder.onnx", role="encoder", sha256=sha256_of(tmp_path / "encoder.onnx"),
        size_bytes=size_of(tmp_path / "encoder.onnx"),
        inputs=(ExportedTensor(name="image", shape=(1, 3, 64, 64), dtype="float32"),), outputs=(),
    )  # fmt: skip
    manifest = ExportManifest(
        model="edgeseg_tiny", target="onnx_fp32", format="onnx", precision="float32",
        image_size=64, normalises=False, pixel_mean=(1, 2, 3), pixel_std=(1, 1, 1), padding="zeros",
        files=(file,), versions={}, weights_sha256="", licence="l",
    )  # fmt: skip
    write_export(tmp_path, manifest)
    return tmp_path


def test_a_model_folder_tells_its_manifest_and_its_weights(folder):
    (folder / "MODEL_CARD.md").touch()
    (folder / "onnx_fp16").mkdir()
    (folder / "onnx_fp16" / "export.json").touch()

    facts, notes = describe_model_folder(folder)

    assert facts.manifest["licence"] == "Apache-2.0"
    assert facts.counts.numbers_by_type == {"float16": 6}
    assert (facts.exports, facts.has_card, notes) == (("onnx_fp16",), True, ())
    assert facts.summary == (
        "model `edgeseg_s` for 512 px input, 6 parameters, licence: Apache-2.0"
    )


def test_a_manifest_that_contradicts_its_weights_is_told(folder):
    put_manifest(folder, image_size=256)

    _, notes = describe_model_folder(folder)

    assert notes == (
        "model.toml says ('edgeseg_s', 256), the weights themselves ('edgeseg_s', 512)",
    )


def test_a_model_folder_with_other_weights_is_refused(folder):
    put_manifest(folder, sha256="0" * 64)

    with pytest.raises(WeightsError, match="damaged or was replaced"):
        describe_model_folder(folder)


def test_the_released_models_are_described():
    for manifest in (ROOT / "models").glob("*/model.toml"):
        facts, notes = describe_model_folder(manifest.parent)

        assert facts.counts.num_parameters == facts.manifest["num_parameters"]
        assert notes == ()


def test_an_exported_folder_tells_its_manifest(exported):
    facts, notes = describe_exported_folder(exported)

    assert facts.manifest["files"][0]["inputs"][0]["name"] == "image"
    assert facts.summary == (
        "`edgeseg_tiny` exported to onnx_fp32 (onnx, float32) for 64 px input: encoder"
    )
    assert notes == ()


def test_an_exported_file_that_was_changed_is_refused(exported):
    (exported / "encoder.onnx").write_bytes(b"grape")

    with pytest.raises(WeightsError, match=r"encoder\.onnx is damaged or was replaced"):
        describe_exported_folder(exported)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_manifest_that_names_a_folder_around_it_is_refused_before_it_is_hashed(exported, name):
    document = json.loads((exported / "export.json").read_text())
    document["files"][0]["path"] = name
    (exported / "export.json").write_text(json.dumps(document))

    with pytest.raises(WeightsError, match="is no valid export manifest"):
        describe_exported_folder(exported)
