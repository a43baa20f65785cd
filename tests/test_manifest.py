import hashlib

import pytest
from pydantic import ValidationError

from edgeseg import manifest as manifest_module
from edgeseg.errors import WeightsError
from edgeseg.manifest import ModelManifest, find_weights, read_manifest, sha256_of, write_manifest

WEIGHTS = b"not really weights"


def facts(**changed):
    values = {
        "model": "edgeseg_s",
        "image_size": 512,
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "num_parameters": 7_798_272,
        "licence": "Apache-2.0",
        "trained_on": "photographs",
        "description": "A student.",
    }
    return ModelManifest(**{**values, **changed})


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A folder of released models with one of them, edgeseg_s."""
    monkeypatch.setattr(manifest_module, "RELEASED", tmp_path)
    folder = tmp_path / "edgeseg_s"
    folder.mkdir()
    (folder / "student.safetensors").write_bytes(WEIGHTS)
    write_manifest(folder, facts())
    return tmp_path


def test_a_manifest_is_read_as_it_was_written(released):
    assert read_manifest(released / "edgeseg_s") == facts()


def test_awkward_text_survives(released):
    text = 'quotes " and \\ backslash\nnew line\ttab \x7f\x01 ü'

    path = write_manifest(released / "edgeseg_s", facts(description=text))

    assert path == released / "edgeseg_s" / "model.toml"
    assert read_manifest(released / "edgeseg_s").description == text


def test_a_hash_is_the_one_of_the_content(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")

    # the test vector of the standard, FIPS 180-4
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": 100}, "multiple of 64"),
        ({"image_size": 0}, "greater than or equal to 64"),
        ({"sha256": "abc"}, "should match pattern"),
        ({"weights": "../elsewhere.safetensors"}, "should match pattern"),
        ({"num_parameters": 0}, "greater than 0"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_facts_that_cannot_be_are_refused(changed, message):
    with pytest.raises(ValidationError, match=message):
        facts(**changed)


def test_changed_weights_are_noticed(released):
    weights = released / "edgeseg_s" / "student.safetensors"
    weights.write_bytes(WEIGHTS + b"!")

    with pytest.raises(WeightsError, match=r"student\.safetensors is damaged or was .*fetch the"):
        read_manifest(released / "edgeseg_s")
    with pytest.raises(WeightsError, match="is damaged or was replaced"):
        find_weights("edgeseg_s")


def test_missing_weights_are_named(released):
    (released / "edgeseg_s" / "student.safetensors").unlink()

    with pytest.raises(WeightsError, match=r"names student\.safetensors, but there is no"):
        read_manifest(released / "edgeseg_s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"model = ", r"model\.toml is no valid model manifest: .*; correct or fetch it again"),
        (b"\xff\xfe", "is no valid model manifest: .*utf-8"),
        (b'model = "edgeseg_s"', "manifest: image_size: Field required; sha256: Field required"),
        (b'modle = "edgeseg_s"', "modle: Extra inputs are not permitted"),
    ],
)
def test_a_malformed_manifest_says_where(released, text, message):
    (released / "edgeseg_s" / "model.toml").write_bytes(text)

    with pytest.raises(WeightsError, match=message):
        read_manifest(released / "edgeseg_s")


def test_a_folder_without_manifest_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"cannot read .*model\.toml: No such file"):
        read_manifest(tmp_path)


def test_weights_are_found_by_name_folder_and_file(released, tmp_path):
    weights = released / "edgeseg_s" / "student.safetensors"

    assert find_weights("edgeseg_s") == weights
    assert find_weights(released / "edgeseg_s") == weights
    assert find_weights(str(weights)) == weights


def test_an_unknown_model_lists_the_released_ones(released):
    write_manifest(released / "edgeseg_a", facts())

    with pytest.raises(WeightsError, match=r"'edgeseg_z': .* \(edgeseg_a, edgeseg_s\); give"):
        find_weights("edgeseg_z")


def test_without_released_models_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_module, "RELEASED", tmp_path / "nowhere")

    with pytest.raises(WeightsError, match="none are installed"):
        find_weights("edgeseg_s")
