import dataclasses
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from edgeseg.errors import WeightsError
from edgeseg.fetch_request import FetchRequest
from edgeseg.manifest import read_manifest, sha256_of, write_manifest
from edgeseg.model_assembly import unfinished_downloads
from edgeseg.modeling import fetched_weights
from edgeseg.modeling.checkpoints import load_model, save_weights
from edgeseg.modeling.fetched_weights import fetch_model
from edgeseg.modeling.registry import build_model
from edgeseg.published_checkpoints import PUBLISHED


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An EdgeSAM checkpoint as its authors write them, and weights of our own."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    edgesam = build_model("edgesam")
    torch.save({"model": edgesam.state_dict()}, folder / "edge_sam.pth")
    save_weights(build_model("edgeseg_tiny", 128), folder / "tiny.safetensors", torch.float16)
    return folder


@pytest.fixture
def yours(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESEG_MODELS", str(tmp_path / "yours"))
    return tmp_path / "yours"


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client may stop listening."""


@pytest.fixture
def link(files, monkeypatch):
    """The address of the folder with the files."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    address = ("127.0.0.1", 0)
    with QuietServer(address, partial(Handler, directory=str(files))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def fetch(yours, name, source, **options):
    request = FetchRequest(name, str(source), yours, **options)
    return fetch_model(request, lambda *_: None, lambda _: None)


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def test_an_official_checkpoint_is_found_by_name_with_the_very_same_numbers(files, yours):
    original = files / "edge_sam.pth"

    result = fetch(yours, "edgesam", original)

    net = load_model("edgesam")
    assert same(net.state_dict(), torch.load(original, weights_only=True)["model"])
    assert (net.name, net.image_size) == ("edgesam", 1024)
    manifest = read_manifest(yours / "edgesam")
    assert result.manifest == manifest
    assert (manifest.model, manifest.num_parameters) == ("edgesam", 9_582_368)
    assert (manifest.source, manifest.source_sha256) == (str(original), sha256_of(original))
    assert manifest.source_compared_with == "nothing"
    assert manifest.sha256 == sha256_of(yours / "edgesam" / "weights.safetensors")
    assert "non-commercial" in manifest.licence
    card = (yours / "edgesam" / "MODEL_CARD.md").read_text()
    assert manifest.source_sha256 in card
    assert "compared with nothing" in card


def test_a_stored_official_checkpoint_says_what_it_is(files, yours):
    fetch(yours, "edgesam_3x", files / "edge_sam.pth", new_name="phone")

    with safe_open(yours / "phone" / "weights.safetensors", "pt") as file:
        assert file.metadata() == {"format": "edgeseg", "model": "edgesam", "image_size": "1024"}
    assert sorted(path.name for path in yours.rglob("*")) == [
        "MODEL_CARD.md",
        "model.toml",
        "phone",
        "weights.safetensors",
    ]


def test_weights_of_our_own_are_stored_byte_for_byte(files, yours):
    result = fetch(yours, "mine", files / "tiny.safetensors", licence="MIT")

    stored = yours / "mine" / "weights.safetensors"
    assert stored.read_bytes() == (files / "tiny.safetensors").read_bytes()
    assert result.manifest.sha256 == result.manifest.source_sha256 == sha256_of(stored)
    assert (result.manifest.model, result.manifest.image_size) == ("edgeseg_tiny", 128)
    assert result.manifest.licence == "MIT"
    assert load_model("mine").image_size == 128


def test_a_hash_that_is_given_is_compared_and_recorded(files, yours):
    digest = sha256_of(files / "tiny.safetensors")

    result = fetch(yours, "mine", files / "tiny.safetensors", sha256=digest.upper())

    assert result.manifest.source_compared_with == "given"


def test_a_wrong_hash_is_told_before_anything_reads_the_file(files, yours, monkeypatch):
    monkeypatch.setattr(fetched_weights, "load_model", None)  # calling it would be a TypeError
    found, wanted = sha256_of(files / "edge_sam.pth"), "ab" * 32

    with pytest.raises(WeightsError, match=rf"its sha256 is {found}, the given one is {wanted}"):
        fetch(yours, "edgesam", files / "edge_sam.pth", sha256=wanted)

    assert list(yours.iterdir()) == []
    assert (files / "edge_sam.pth").is_file()  # the user's own


def test_a_downloaded_file_with_a_wrong_hash_is_removed(link, yours, monkeypatch):
    monkeypatch.setattr(fetched_weights, "load_model", None)

    with pytest.raises(WeightsError, match="nothing was kept, get the right file"):
        fetch(yours, "edgesam", f"{link}/edge_sam.pth", sha256="ab" * 32)

    assert list(yours.iterdir()) == []


def test_a_published_hash_is_compared_without_being_asked(files, link, yours, monkeypatch):
    digest = sha256_of(files / "edge_sam.pth")
    official = dataclasses.replace(PUBLISHED["edgesam"], sha256=digest, link=f"{link}/edge_sam.pth")
    monkeypatch.setitem(PUBLISHED, "edgesam", official)

    first = fetch(yours, "edgesam", "official")
    again = fetch(yours, "edgesam", "official")

    assert first.manifest.source_compared_with == "published"
    assert first.manifest.source == f"{link}/edge_sam.pth"
    assert (first.was_here, again.was_here) == (False, True)
    assert again.manifest == first.manifest
    assert unfinished_downloads(yours) == {}
    with pytest.raises(WeightsError, match="the published one is"):
        fetch(yours, "edgesam", files / "tiny.safetensors", new_name="other")


def test_a_link_may_end_in_anything(link, yours):
    fetch(yours, "mine", f"{link}/tiny.safetensors?download=1")

    assert load_model("mine").name == "edgeseg_tiny"
    assert [path.name for path in yours.iterdir()] == ["mine"]


def test_foreign_safetensors_are_stored_as_ours(files, yours, tmp_path):
    state = torch.load(files / "edge_sam.pth", weights_only=True)["model"]
    save_file(state, tmp_path / "edge_sam.safetensors")

    fetch(yours, "edgesam", tmp_path / "edge_sam.safetensors")

    assert same(load_model("edgesam").state_dict(), state)
    with safe_open(yours / "edgesam" / "weights.safetensors", "pt") as file:
        assert file.metadata()["format"] == "edgeseg"


def test_another_network_than_the_name_says_is_refused(files, yours, monkeypatch):
    without_hash = dataclasses.replace(PUBLISHED["sam_vit_b"], sha256=None)
    monkeypatch.setitem(PUBLISHED, "sam_vit_b", without_hash)

    message = "edgesam, but sam_vit_b is vit_b; fetch it as edgesam or edgesam_3x or another NAME"
    with pytest.raises(WeightsError, match=message):
        fetch(yours, "sam_vit_b", files / "edge_sam.pth")


def test_a_network_name_is_checked_too(files, yours):
    with pytest.raises(WeightsError, match="holds edgeseg_tiny, but edgeseg_xs is edgeseg_xs; fet"):
        fetch(yours, "edgeseg_xs", files / "tiny.safetensors", new_name="mine")

    assert list(yours.iterdir()) == []


def test_a_file_that_is_no_checkpoint_leaves_nothing(files, link, yours):
    (files / "page.pth").write_bytes(b"PK not really")

    for source in (files / "page.pth", f"{link}/page.pth"):
        with pytest.raises(WeightsError, match="cannot read weights from"):
            fetch(yours, "mine", source)
        assert list(yours.iterdir()) == []


def test_a_checkpoint_with_a_missing_entry_is_refused(files, yours, tmp_path):
    state = torch.load(files / "edge_sam.pth", weights_only=True)["model"]
    del state["mask_decoder.iou_token.weight"]
    torch.save(state, tmp_path / "cut.pth")

    with pytest.raises(WeightsError, match=r"missing: mask_decoder\.iou_token\.weight"):
        fetch(yours, "edgesam", tmp_path / "cut.pth")


def test_a_file_of_the_user_can_be_pointed_to(files, yours):
    result = fetch(yours, "edgesam", files / "edge_sam.pth", in_place=True)

    weights = yours / "edgesam" / "weights.pth"
    assert weights.is_symlink()
    assert weights.resolve() == (files / "edge_sam.pth").resolve()
    assert result.manifest.sha256 == result.manifest.source_sha256
    assert load_model("edgesam").name == "edgesam"


def test_a_file_pointed_to_that_changes_is_noticed(files, yours, tmp_path):
    own = tmp_path / "own.safetensors"
    own.write_bytes((files / "tiny.safetensors").read_bytes())
    fetch(yours, "mine", own, in_place=True)

    own.write_bytes(own.read_bytes() + b" ")

    with pytest.raises(WeightsError, match="is damaged or was replaced"):
        load_model("mine")


def test_a_model_folder_is_taken_over_with_its_card(files, yours, tmp_path):
    first = fetch(yours, "mine", files / "tiny.safetensors")
    facts = first.manifest.model_copy(
        update={"licence": "MIT", "trained_on": "photographs", "description": "A student."}
    )
    write_manifest(first.folder, facts)
    (first.folder / "MODEL_CARD.md").write_text("# Mine\n")

    second = fetch(yours, "copy", first.folder)

    assert (second.manifest.licence, second.manifest.trained_on, second.manifest.description) == (
        "MIT",
        "photographs",
        "A student.",
    )
    assert (second.folder / "MODEL_CARD.md").read_text() == "# Mine\n"


@pytest.mark.parametrize("name", ["../mine", "a/b", "a\\b", ".mine", ""])
def test_a_name_that_leads_elsewhere_is_refused(files, yours, name):
    with pytest.raises(WeightsError, match="cannot be the name of a model; use letters, digits"):
        fetch(yours, name, files / "tiny.safetensors")

    assert not yours.exists() or list(yours.rglob("model.toml")) == []


def test_a_name_that_is_taken_is_refused(files, yours, tmp_path, monkeypatch):
    fetch(yours, "mine", files / "tiny.safetensors")
    monkeypatch.setattr("edgeseg.model_library.RELEASED", yours)

    with pytest.raises(WeightsError, match="mine is the name of a released model, which would hid"):
        fetch(tmp_path / "elsewhere", "mine", files / "tiny.safetensors")
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="there is a .*mine already; give another name with --n"):
        fetch(yours, "mine", files / "tiny.safetensors")


def test_a_damaged_model_is_not_taken_for_the_one_asked_for(files, yours):
    digest = sha256_of(files / "tiny.safetensors")
    fetch(yours, "mine", files / "tiny.safetensors", sha256=digest)
    (yours / "mine" / "weights.safetensors").write_bytes(b"damaged")

    with pytest.raises(WeightsError, match="there is a .*mine already"):
        fetch(yours, "mine", files / "tiny.safetensors", sha256=digest)


def test_a_folder_that_cannot_be_written_is_named(files, tmp_path):
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(
        WeightsError, match="cannot bring mine into .*make room, or choose another f"
    ):
        fetch(tmp_path / "file" / "yours", "mine", files / "tiny.safetensors")


def test_an_interrupted_conversion_keeps_the_download(link, yours, monkeypatch):
    def interrupted(net, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetched_weights, "save_weights", interrupted)

    with pytest.raises(KeyboardInterrupt):
        fetch(yours, "edgesam", f"{link}/edge_sam.pth")

    assert list(unfinished_downloads(yours)) == ["edgesam"]
    assert not (yours / "edgesam").exists()
