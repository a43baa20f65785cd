from pathlib import Path

import pytest

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.fetch_request import FetchRequest, plan_fetch
from edgeseg.manifest import ModelManifest, sha256_of, write_manifest
from edgeseg.published_checkpoints import PUBLISHED

NETWORKS = ("vit_b", "edgeseg_s")
LINK = "https://example.org/a.pth"


def plan(name, source=LINK, **options):
    return plan_fetch(FetchRequest(name, str(source), Path("yours"), **options), NETWORKS)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"numbers")
    return path


def test_a_published_checkpoint_brings_its_network_hash_and_licence():
    found = plan("sam_vit_b")

    assert (found.network, found.name, found.link) == ("vit_b", "sam_vit_b", LINK)
    assert (found.expected_sha256, found.compared_with) == (
        PUBLISHED["sam_vit_b"].sha256,
        "published",
    )
    assert (found.licence, found.source) == ("Apache-2.0", LINK)


def test_official_stands_for_the_authors_address():
    link = "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"

    assert plan("sam_vit_b", "official").link == link
    with pytest.raises(ConfigError, match=r"no official address of mine is known, only of sam_vit"):
        plan("mine", "official")


def test_a_network_is_what_the_file_must_be_and_another_name_is_free():
    assert plan("edgeseg_s").network == "edgeseg_s"
    assert plan("mine").network is None
    assert (plan("mine").expected_sha256, plan("mine").compared_with) == (None, "nothing")


def test_a_checkpoint_without_a_published_hash_is_compared_with_nothing_or_with_yours():
    assert plan("edgesam").compared_with == "nothing"
    found = plan("edgesam", sha256="AB" * 32)
    assert (found.expected_sha256, found.compared_with) == ("ab" * 32, "given")


def test_a_new_name_is_for_what_is_known():
    assert plan("sam_vit_b", new_name="teacher").name == "teacher"
    with pytest.raises(ConfigError, match="and mine is neither; leave --name out and write: .*you"):
        plan("mine", new_name="yours")


@pytest.mark.parametrize("sha256", ["abc", "g" * 64, "a" * 65, ""])
def test_a_hash_that_is_none_is_refused(sha256):
    with pytest.raises(ConfigError, match="must be 64 hexadecimal digits, got '.*'; copy all"):
        plan("mine", sha256=sha256)


def test_a_hash_that_contradicts_the_published_one_is_refused():
    with pytest.raises(ConfigError, match=r"abababababab… is not the published hash of sam_vit_b"):
        plan("sam_vit_b", sha256="ab" * 32)
    same = PUBLISHED["sam_vit_b"].sha256.upper()
    assert plan("sam_vit_b", sha256=same).compared_with == "given"


def test_a_licence_is_taken_where_none_is_known():
    assert plan("mine", licence="MIT").licence == "MIT"
    assert plan("mine").licence is None
    with pytest.raises(ConfigError, match="is known: Apache-2.0; leave --licence out"):
        plan("sam_vit_b", licence="MIT")


def test_a_file_is_found_by_path_and_by_file_link(file, monkeypatch):
    spaced = file.rename(file.with_name("a b.pth"))
    monkeypatch.chdir(file.parent)

    assert plan("mine", "a b.pth").file == spaced
    assert plan("mine", spaced.as_uri()).file == spaced
    assert plan("mine", f"file://localhost{spaced.as_uri().removeprefix('file://')}").file == spaced
    assert plan("mine", spaced).link is None
    assert plan("mine", spaced).source == str(spaced)


def test_a_file_on_another_machine_is_refused():
    with pytest.raises(ConfigError, match="names a file on another machine, server; copy it here"):
        plan("mine", "file://server/a.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no file .*none\.pth, and no model folder"):
        plan("mine", tmp_path / "none.pth")


def test_a_model_folder_brings_what_its_manifest_says(file):
    manifest = ModelManifest(
        model="edgeseg_s",
        image_size=512,
        weights="a.pth",
        sha256=sha256_of(file),
        num_parameters=1,
        licence="MIT",
        trained_on="photographs",
        description="A student.",
    )
    write_manifest(file.parent, manifest)

    found = plan("mine", file.parent)

    assert found.file == file
    assert (found.licence, found.trained_on, found.description) == (
        "MIT",
        "photographs",
        "A student.",
    )
    with pytest.raises(ConfigError, match="is known: MIT"):
        plan("mine", file.parent, licence="GPL")
    file.write_bytes(b"others")
    with pytest.raises(WeightsError, match="is damaged or was replaced"):
        plan("mine", file.parent)


def test_a_download_cannot_be_pointed_to():
    with pytest.raises(ConfigError, match="--link points to a file of yours, not to a download"):
        plan("mine", in_place=True)


def test_a_password_in_a_link_is_not_recorded():
    assert plan("mine", f"{LINK}?token=hunter2").source == LINK
