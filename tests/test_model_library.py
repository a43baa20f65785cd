import pytest

from edgeseg import model_library
from edgeseg.errors import WeightsError
from edgeseg.export_manifest import ExportedFile, ExportManifest, write_export
from edgeseg.manifest import ModelManifest, sha256_of, write_manifest
from edgeseg.model_library import check_new_name, describe_model, is_here, list_models


def put_model(place, name, weights=b"12345"):
    (place / name).mkdir(parents=True)
    path = place / name / "student.safetensors"
    path.write_bytes(weights)
    manifest = ModelManifest(
        model="edgeseg_s",
        image_size=512,
        sha256=sha256_of(path),
        num_parameters=7_000_000,
        licence="MIT",
        trained_on="photographs",
        description="A student.",
    )
    write_manifest(place / name, manifest)
    return place / name


def put_export(model, name, size_bytes):
    file = ExportedFile(
        path="encoder.onnx",
        role="encoder",
        sha256="ab" * 32,
        size_bytes=size_bytes,
        inputs=(),
        outputs=(),
    )
    (model / name).mkdir()
    (model / name / "encoder.onnx").write_bytes(b"x" * size_bytes)
    manifest = ExportManifest(
        model="edgeseg_s",
        target=name,
        format="onnx",
        precision="int8",
        image_size=512,
        normalises=True,
        pixel_mean=(0, 0, 0),
        pixel_std=(1, 1, 1),
        padding="zeros",
        files=(file, file.model_copy(update={"role": "decoder"})),
        versions={},
        weights_sha256="ab" * 32,
        licence="MIT",
    )
    write_export(model / name, manifest)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of released models, with edgeseg_s, and of the user's, with mine."""
    monkeypatch.setattr(model_library, "RELEASED", tmp_path / "released")
    put_model(tmp_path / "released", "edgeseg_s")
    put_model(tmp_path / "yours", "mine", b"1234567")
    return tmp_path / "released", tmp_path / "yours"


def test_released_models_are_listed_before_the_users_own(places):
    released, yours = places

    found = list_models(yours)

    assert [(model.name, model.place, model.folder, model.size_bytes) for model in found] == [
        ("edgeseg_s", "released", released / "edgeseg_s", 5),
        ("mine", "yours", yours / "mine", 7),
    ]
    assert not any(model.problem for model in found)


def test_a_listed_model_is_plain_data(places):
    _, yours = places

    assert list_models(yours)[1].as_dict() == {
        "name": "mine",
        "place": "yours",
        "folder": str(yours / "mine"),
        "model": "edgeseg_s",
        "image_size": 512,
        "weights": "student.safetensors",
        "sha256": sha256_of(yours / "mine" / "student.safetensors"),
        "num_parameters": 7_000_000,
        "licence": "MIT",
        "trained_on": "photographs",
        "description": "A student.",
        "source": None,
        "source_sha256": None,
        "source_compared_with": None,
        "size_bytes": 7,
        "problem": None,
    }


def test_a_broken_model_does_not_hide_the_others(places):
    released, yours = places
    (released / "edgeseg_s" / "model.toml").write_text("model = ")
    put_model(yours, "empty")
    (yours / "empty" / "student.safetensors").unlink()

    problems = {model.name: model.problem for model in list_models(yours)}

    assert "is no valid model manifest" in problems["edgeseg_s"]
    assert "no such file beside it" in problems["empty"]
    assert problems["mine"] == ""


def test_a_model_hidden_by_a_released_one_is_told(places):
    _, yours = places
    put_model(yours, "edgeseg_s")

    hidden = list_models(yours)[1]

    assert (hidden.name, hidden.place) == ("edgeseg_s", "yours")
    assert hidden.problem.startswith("hidden by the released model of that name; rename ")


def test_one_folder_for_both_lists_each_model_once(places):
    released, _ = places

    assert [(model.place, model.problem) for model in list_models(released)] == [("released", "")]


def test_a_place_that_is_not_there_has_no_models(places, tmp_path):
    assert [model.name for model in list_models(tmp_path / "nowhere")] == ["edgeseg_s"]


def test_listing_reads_no_weights_and_describing_does(places):
    _, yours = places
    (yours / "mine" / "student.safetensors").write_bytes(b"other")

    assert list_models(yours)[1].problem == ""
    found = describe_model("mine", yours)
    assert "is damaged or was replaced" in found.hash_problem
    assert not found.is_usable
    assert found.as_dict()["hash_is_right"] is False
    assert found.as_dict()["problem"] == found.hash_problem


def test_card_and_exports_belong_to_a_description(places):
    released, yours = places
    put_export(released / "edgeseg_s", "onnx_int8", size_bytes=10)
    (released / "edgeseg_s" / "torn").mkdir()
    (released / "edgeseg_s" / "torn" / "export.json").write_text("{")
    (released / "edgeseg_s" / "MODEL_CARD.md").write_text("# A student\n")

    found = describe_model("edgeseg_s", yours)

    assert found.is_usable
    assert found.weights == released / "edgeseg_s" / "student.safetensors"
    facts = found.as_dict()
    assert facts["card_text"] == "# A student\n"
    assert facts["exports"] == [
        {
            "folder": str(released / "edgeseg_s" / "onnx_int8"),
            "target": "onnx_int8",
            "format": "onnx",
            "precision": "int8",
            "size_bytes": 20,  # two files of 10 bytes
        }
    ]
    assert describe_model("mine", yours).as_dict()["card_text"] is None


def test_a_folder_is_described_by_its_path_and_goes_before_a_name(places, tmp_path, monkeypatch):
    released, yours = places
    here = put_model(tmp_path / "here", "edgeseg_s", b"123")

    assert describe_model(str(here), yours).listed.size_bytes == 3
    assert describe_model("edgeseg_s", yours).listed.size_bytes == 5
    monkeypatch.chdir(tmp_path / "here")
    found = describe_model("edgeseg_s", yours).listed
    assert (found.size_bytes, found.place) == (3, "path")


def test_a_model_with_a_broken_manifest_is_described(places):
    _, yours = places
    (yours / "mine" / "model.toml").write_text("")

    found = describe_model("mine", yours)

    assert not found.is_usable
    assert (found.weights, found.hash_problem) == (None, "")
    assert "no valid model manifest" in str(found.as_dict()["problem"])


def test_an_unknown_model_lists_those_there_are(places):
    with pytest.raises(WeightsError, match=r"one of those known by name \(edgeseg_s, mine\); give"):
        describe_model("nonesuch", places[1])


def test_what_is_here_and_what_is_not(places):
    released, yours = places

    assert is_here("edgeseg_s", yours)
    assert is_here("mine", yours)
    assert is_here(str(yours / "mine"), released)
    assert not is_here("sam_vit_b", yours)


def test_a_new_name_is_neither_taken_nor_a_released_one(places):
    _, yours = places

    check_new_name("new", yours)
    with pytest.raises(WeightsError, match="edgeseg_s is the name of a released model"):
        check_new_name("edgeseg_s", yours)
    (yours / "dangling").symlink_to(yours / "nowhere")
    for taken in ("mine", "dangling"):
        with pytest.raises(WeightsError, match=f"there is a .*{taken} already"):
            check_new_name(taken, yours)
