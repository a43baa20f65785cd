"""Packs on disk: written whole, checked when read, and each in a folder of its own."""

import json

import numpy as np
import pytest

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.packs import (
    ADAPTER_NAME,
    PACK_MANIFEST_NAME,
    VECTORS_NAME,
    PackBase,
    PackFigures,
    PackManifest,
    find_packs,
    load_vectors,
    read_adapter,
    read_pack,
    read_vectors,
    save_vectors,
    write_pack,
)

NO_HASH = "0" * 64
WEIGHTS = {"scale": np.array([0.5, -2.0], np.float32)}
VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2)


def manifest(name: str = "roads", **changes) -> PackManifest:
    facts = {
        "name": name,
        "base": PackBase(model="edgeseg_tiny", image_size=64, fingerprint="a" * 64),
        "kind": "convolutional",
        "settings": {"width": 32},
        "adapter_sha256": NO_HASH,
        "vectors_sha256": NO_HASH,
        "trained_on": "60 photographs of roads",
        "num_images": 60,
        "num_objects": 400,
        "seconds": 12.5,
        "licence": "the customer's own",
        "figures": (
            PackFigures(
                prompt_set="box",
                base=0.5,
                adapted=0.6,
                gain_interval=(0.05, 0.15),
                num_images=20,
                num_objects=90,
            ),
        ),
    }
    return PackManifest(**{**facts, **changes})


def test_a_pack_returns_as_it_was_written(tmp_path):
    written = write_pack(tmp_path / "roads", manifest(), WEIGHTS, VECTORS)

    assert read_pack(tmp_path / "roads") == written
    assert written.adapter_sha256 != NO_HASH
    assert (
        written.model_copy(update={"adapter_sha256": NO_HASH, "vectors_sha256": NO_HASH})
        == manifest()
    )
    assert np.array_equal(read_adapter(tmp_path / "roads")["scale"], WEIGHTS["scale"])
    vectors = read_vectors(tmp_path / "roads")
    assert vectors.name == "roads"
    assert np.array_equal(vectors.vectors, VECTORS)


def test_another_pack_leaves_every_byte_of_the_first(tmp_path):
    write_pack(tmp_path / "roads", manifest(), WEIGHTS, VECTORS)
    before = {path.name: path.read_bytes() for path in (tmp_path / "roads").iterdir()}

    write_pack(tmp_path / "cells", manifest("cells"), WEIGHTS, VECTORS + 1)

    assert {path.name: path.read_bytes() for path in (tmp_path / "roads").iterdir()} == before
    assert [path.name for path in find_packs(tmp_path)] == ["cells", "roads"]


def test_a_pack_that_was_not_finished_is_none(tmp_path, monkeypatch):
    write_pack(tmp_path / "roads", manifest(), WEIGHTS, VECTORS)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeseg.packs.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_pack(tmp_path / "roads", manifest(), WEIGHTS, VECTORS)

    assert find_packs(tmp_path) == []


@pytest.mark.parametrize("name", [ADAPTER_NAME, VECTORS_NAME])
def test_changed_and_missing_files_are_noticed(tmp_path, name):
    write_pack(tmp_path / "roads", manifest(), WEIGHTS, VECTORS)
    path = tmp_path / "roads" / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    with pytest.raises(WeightsError, match=f"{name} is damaged or was replaced"):
        read_pack(tmp_path / "roads")

    path.unlink()
    with pytest.raises(WeightsError, match=f"{name} is missing; copy the whole folder"):
        read_pack(tmp_path / "roads")


def test_a_pack_has_the_name_of_its_folder(tmp_path):
    with pytest.raises(WeightsError, match="folder of its own name, roads"):
        write_pack(tmp_path / "streets", manifest(), WEIGHTS, VECTORS)

    write_pack(tmp_path / "roads", manifest(), WEIGHTS, VECTORS)
    (tmp_path / "roads").rename(tmp_path / "streets")
    with pytest.raises(WeightsError, match="its folder is 'streets'; rename the folder"):
        read_pack(tmp_path / "streets")


@pytest.mark.parametrize("name", ["../roads", "Roads", "", "a b", "x" * 65])
def test_names_that_are_no_folder_everywhere_are_refused(name):
    with pytest.raises(ValueError, match="String should match pattern"):
        manifest(name)


def test_a_pack_cannot_have_the_name_that_means_none():
    with pytest.raises(ValueError, match="'base' means no pack; choose another name"):
        manifest("base")


def test_a_manifest_of_strangers_is_refused_with_its_problems(tmp_path):
    write_pack(tmp_path / "roads", manifest(), WEIGHTS, VECTORS)
    path = tmp_path / "roads" / PACK_MANIFEST_NAME
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "kind": "magic", "extra": 1}))

    with pytest.raises(WeightsError, match=r"kind: .*extra: .*make the pack again"):
        read_pack(tmp_path / "roads")

    path.write_text("{")
    with pytest.raises(WeightsError, match="is no valid pack manifest"):
        read_pack(tmp_path / "roads")
    with pytest.raises(WeightsError, match="cannot read .*No such file"):
        read_pack(tmp_path / "nothing")


def test_vectors_of_natural_images_are_saved_alone(tmp_path):
    save_vectors(tmp_path / "natural.safetensors", VECTORS)

    assert np.array_equal(
        load_vectors(tmp_path / "natural.safetensors", "natural").vectors, VECTORS
    )
    write_pack(tmp_path / "roads", manifest(), WEIGHTS, VECTORS)
    with pytest.raises(WeightsError, match=r"one tensor, 'vectors', got \['scale'\]"):
        load_vectors(tmp_path / "roads" / ADAPTER_NAME, "natural")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    with pytest.raises(WeightsError, match="cannot read .*noise"):
        load_vectors(tmp_path / "noise.safetensors", "natural")


def test_useless_vectors_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="give more images"):
        write_pack(tmp_path / "roads", manifest(), WEIGHTS, VECTORS[:1])

    assert not (tmp_path / "roads").exists()


def test_a_missing_folder_of_packs_is_named(tmp_path):
    with pytest.raises(WeightsError, match="there is no folder .*packs; give the folder"):
        find_packs(tmp_path / "packs")
