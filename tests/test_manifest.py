import hashlib
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgeseg import manifest as manifest_module
from edgeseg.errors import ConfigError, WeightsError
from edgeseg.manifest import (
    ModelManifest,
    find_model_folder,
    find_weights,
    is_plain_name,
    read_manifest,
    sha256_of,
    user_models,
    write_manifest,
)

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


def put_model(place, name):
    (place / name).mkdir(parents=True)
    (place / name / "student.safetensors").write_bytes(WEIGHTS)
    write_manifest(place / name, facts())
    return place / name


@pytest.fixture
def yours(tmp_path, monkeypatch):
    """The folder of the user's own models, not there yet."""
    monkeypatch.setenv("EDGESEG_MODELS", str(tmp_path / "yours"))
    return tmp_path / "yours"


@pytest.fixture
def released(tmp_path, monkeypatch, yours):
    """A folder of released models with one of them, edgeseg_s."""
    monkeypatch.setattr(manifest_module, "RELEASED", tmp_path / "released")
    put_model(tmp_path / "released", "edgeseg_s")
    return tmp_path / "released"


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
        ({"weights": ".."}, "should match pattern"),
        ({"num_parameters": 0}, "greater than 0"),
        ({"colour": "red"}, "Extra inputs"),
        ({"source_sha256": "AB" * 32}, "should match pattern"),
        ({"source_compared_with": "hope"}, "Input should be 'published', 'given' or 'nothing'"),
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


def test_without_released_models_the_error_says_so(tmp_path, monkeypatch, yours):
    monkeypatch.setattr(manifest_module, "RELEASED", tmp_path / "nowhere")

    with pytest.raises(WeightsError, match=r"released model \(none are installed\); give one"):
        find_weights("edgeseg_s")


def test_where_weights_came_from_is_read_as_it_was_written(released):
    source = {
        "source": "https://example.org/a.pth",
        "source_sha256": "ab" * 32,
        "source_compared_with": "given",
    }

    write_manifest(released / "edgeseg_s", facts(**source))

    assert read_manifest(released / "edgeseg_s") == facts(**source)


def test_a_manifest_without_a_source_says_nothing_of_it(released):
    assert "source" not in (released / "edgeseg_s" / "model.toml").read_text()


def test_changed_weights_go_unnoticed_only_where_that_is_asked_for(released):
    (released / "edgeseg_s" / "student.safetensors").write_bytes(b"others")

    assert read_manifest(released / "edgeseg_s", check_hash=False) == facts()


def test_a_path_goes_before_a_released_model_and_that_before_the_users_own(
    released, yours, tmp_path, monkeypatch
):
    own = put_model(yours, "edgeseg_s")
    here = put_model(tmp_path / "here", "edgeseg_s")
    monkeypatch.chdir(tmp_path)

    assert find_model_folder("edgeseg_s") == released / "edgeseg_s"
    (released / "edgeseg_s" / "model.toml").unlink()
    assert find_model_folder("edgeseg_s") == own
    assert find_weights("edgeseg_s") == own / "student.safetensors"
    monkeypatch.chdir(tmp_path / "here")
    assert find_model_folder("edgeseg_s").absolute() == here


@pytest.mark.parametrize("name", ["../yours/mine", "sub/mine", ".mine", "", ".."])
def test_a_name_is_not_a_way_out_of_the_folder(released, yours, name):
    put_model(yours, "mine")
    put_model(yours / "sub", "mine")
    put_model(yours, ".mine")

    assert find_model_folder(name) is None


def test_an_unknown_model_lists_the_users_own_too(released, yours):
    put_model(yours, "mine")
    put_model(yours, "also_mine")

    message = rf"\(edgeseg_s\), nor one of yours in {yours} \(also_mine, mine\); give one of these"
    with pytest.raises(WeightsError, match=message):
        find_weights("theirs")


def test_a_published_checkpoint_that_is_not_here_comes_with_its_command(released):
    command = "bring it in with: edgeseg models fetch sam_vit_b --from FILE_OR_LINK"
    with pytest.raises(WeightsError, match=command):
        find_weights("sam_vit_b")


@pytest.mark.parametrize("name", ["a", "sam_vit_b", "9.v1-x", "a" * 64])
def test_plain_names(name):
    assert is_plain_name(name)


@pytest.mark.parametrize("name", ["", ".a", "_a", "a b", "a/b", "a\\b", "a\n", "ä", "a" * 65])
def test_names_that_are_none(name):
    assert not is_plain_name(name)


def test_the_users_folder_follows_variable_then_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setenv("EDGESEG_MODELS", "~/mine")

    assert user_models() == tmp_path / "mine"
    monkeypatch.delenv("EDGESEG_MODELS")
    for platform, folder in (
        ("linux", "data"),
        ("darwin", "Library/Application Support"),
        ("win32", "local"),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        assert user_models() == tmp_path / folder / "edgeseg" / "models"


@pytest.mark.parametrize("given", ["", "data"], ids=["empty", "relative"])
def test_a_data_home_that_is_no_absolute_path_is_ignored(monkeypatch, tmp_path, given):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", given)
    monkeypatch.setenv("EDGESEG_MODELS", "")

    assert user_models() == tmp_path / ".local/share/edgeseg/models"


def test_an_account_without_a_home_is_told_of_the_variable(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("EDGESEG_MODELS", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)

    with pytest.raises(ConfigError, match="determine home directory.; set EDGESEG_MODELS to one"):
        user_models()
