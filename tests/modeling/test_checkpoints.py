import os
import pickle

import pytest
import torch
from random_networks import randomised
from safetensors import safe_open
from safetensors.torch import save_file

from edgeseg import manifest as manifest_module
from edgeseg.errors import WeightsError
from edgeseg.manifest import ModelManifest, sha256_of, write_manifest
from edgeseg.modeling import build_model
from edgeseg.modeling.checkpoints import (
    fingerprint,
    load_model,
    load_strict,
    read_state,
    recognise,
    save_weights,
)


@pytest.fixture(scope="module")
def tiny():
    return randomised(build_model("edgeseg_tiny", image_size=128))


def same(ours, theirs):
    assert list(ours) == list(theirs)
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_weights_return_exactly(tiny, tmp_path):
    save_weights(tiny, tmp_path / "a.safetensors")

    net = load_model(tmp_path / "a.safetensors")

    assert same(net.state_dict(), tiny.state_dict())
    assert (net.name, net.image_size) == ("edgeseg_tiny", 128)
    assert not net.training
    weight = net.image_encoder.neck[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_the_input_size_can_be_another_than_trained(tiny, tmp_path):
    save_weights(tiny, tmp_path / "a.safetensors")

    assert load_model(tmp_path / "a.safetensors", image_size=192).image_size == 192


def test_the_header_says_which_model_it_is(tiny, tmp_path):
    save_weights(tiny, tmp_path / "a.safetensors")

    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        header = file.metadata()
    assert header == {"format": "edgeseg", "model": "edgeseg_tiny", "image_size": "128"}


def test_half_precision_files_keep_statistics_and_positions_exact(tiny, tmp_path):
    save_weights(tiny, tmp_path / "a.safetensors", torch.float16)

    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state = load_model(tmp_path / "a.safetensors").state_dict()

    exact = ("running_mean", "running_var", "gaussian_matrix", "num_batches_tracked")
    for name, tensor in tiny.state_dict().items():
        if name.endswith(exact):
            assert torch.equal(stored[name], tensor), name
        else:
            assert stored[name].dtype == torch.float16, name
        assert state[name].dtype == tensor.dtype
        torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-6)


def test_weights_in_channels_last_memory_are_stored_alike(tiny, tmp_path):
    moved = build_model("edgeseg_tiny", image_size=128)
    moved.load_state_dict(tiny.state_dict())
    moved.to(memory_format=torch.channels_last)

    save_weights(moved, tmp_path / "a.safetensors")

    assert same(load_model(tmp_path / "a.safetensors").state_dict(), tiny.state_dict())
    assert fingerprint(moved) == fingerprint(tiny)


def test_a_released_model_is_loaded_by_name(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_module, "RELEASED", tmp_path)
    path = tmp_path / "edgeseg_tiny" / "student.safetensors"
    save_weights(tiny, path)
    facts = ModelManifest(
        model="edgeseg_tiny",
        image_size=128,
        sha256=sha256_of(path),
        num_parameters=tiny.num_parameters(),
        licence="Apache-2.0",
        trained_on="nothing",
        description="Random numbers.",
    )
    write_manifest(path.parent, facts)

    for name in ("edgeseg_tiny", path.parent, str(path)):
        assert same(load_model(name).state_dict(), tiny.state_dict())
    with pytest.raises(WeightsError, match=r"nor a released model \(edgeseg_tiny\)"):
        load_model("edgeseg_x")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_a_checkpoint_of_another_trainer_is_loaded(tmp_path, wrapper, zipped):
    vit = randomised(build_model("vit_tiny"))
    content = vit.state_dict() if wrapper is None else {wrapper: vit.state_dict(), "epoch": 3}
    torch.save(content, tmp_path / "sam.pth", _use_new_zipfile_serialization=zipped)

    net = load_model(tmp_path / "sam.pth", model="vit_tiny")

    assert same(net.state_dict(), vit.state_dict())
    assert net.image_size == 128


def test_half_precision_checkpoints_are_loaded_as_float32(tmp_path):
    vit = build_model("vit_tiny").half()
    torch.save(vit.state_dict(), tmp_path / "sam.pth")

    net = load_model(tmp_path / "sam.pth", model="vit_tiny")

    assert all(tensor.dtype == torch.float32 for tensor in net.state_dict().values())
    assert same(net.state_dict(), vit.float().state_dict())


def test_a_published_edgesam_checkpoint_is_recognised_and_loaded(tmp_path):
    edgesam = build_model("edgesam")
    torch.save({"model": edgesam.state_dict()}, tmp_path / "edge_sam.pth")

    net = load_model(tmp_path / "edge_sam.pth")

    assert (net.name, net.image_size) == ("edgesam", 1024)
    assert same(net.state_dict(), edgesam.state_dict())


@pytest.mark.parametrize(("width", "name"), [(768, "vit_b"), (1024, "vit_l"), (1280, "vit_h")])
def test_official_sam_checkpoints_are_told_apart_by_their_width(width, name):
    state = {"image_encoder.patch_embed.proj.weight": torch.empty(width, 3, 16, 16, device="meta")}

    assert recognise(state, {}, "sam.pth") == name


@pytest.mark.parametrize(
    ("state", "header", "message"),
    [
        ({}, {}, r"a\.pth is no checkpoint of SAM, EdgeSAM or EdgeSeg: its first entries are none"),
        ({"fc.weight": torch.ones(1)}, {}, r"first entries are fc\.weight; name the model"),
        (
            {"image_encoder.patch_embed.proj.weight": torch.ones(7, 3, 16, 16)},
            {},
            "is no checkpoint of SAM",
        ),
        (
            {},
            {"format": "edgeseg", "model": "edgeseg_9"},
            "model 'edgeseg_9', which .*; update",
        ),
        ({}, {"format": "edgeseg"}, "the model None, which this version does not know"),
        ({}, {"format": "pt", "model": "edgeseg_s"}, "is no checkpoint of SAM"),
    ],
)
def test_an_unknown_file_is_refused(state, header, message):
    with pytest.raises(WeightsError, match=message):
        recognise(state, header, "a.pth")


def test_a_wrong_file_is_refused_with_what_is_wrong_about_it(tiny, tmp_path):
    state = tiny.state_dict()
    before = fingerprint(tiny)
    del state["mask_decoder.iou_token.weight"]
    state["surplus"] = torch.ones(1)
    state["prompt_encoder.no_mask_embed.weight"] = torch.ones(1, 7)

    with pytest.raises(WeightsError) as caught:
        load_strict(tiny, state, "a.pth")

    assert str(caught.value) == (
        "a.pth does not fit edgeseg_tiny; missing: mask_decoder.iou_token.weight; unexpected: "
        "surplus; other shape: prompt_encoder.no_mask_embed.weight (1, 7) instead of (1, 32); use "
        "weights made for this network"
    )
    assert fingerprint(tiny) == before


def test_a_long_list_of_differences_is_cut_short(tiny):
    number = len([name for name in tiny.state_dict() if not name.startswith(OPTIONAL)])

    with pytest.raises(WeightsError, match=rf"missing: (\S+ ){{6}}and {number - 6} more; "):
        load_strict(tiny, {"surplus": torch.ones(1)}, "a.pth")


OPTIONAL = (
    "mask_decoder.high_res_",
    "mask_decoder.refinement.",
    "prompt_encoder.prompt_map.",
)


@pytest.mark.parametrize("prefix", OPTIONAL)
def test_parts_that_sam_lacks_may_be_missing_as_a_whole_only(tiny, prefix):
    net = build_model("edgeseg_tiny")
    names = [name for name in tiny.state_dict() if name.startswith(prefix)]
    state = {name: t for name, t in tiny.state_dict().items() if name not in names}
    untouched = {name: net.state_dict()[name].clone() for name in names}

    load_strict(net, state, "a.pth")

    assert len(names) >= 2
    assert all(torch.equal(net.state_dict()[name], t) for name, t in untouched.items())
    assert torch.equal(net.mask_decoder.iou_token.weight, tiny.mask_decoder.iou_token.weight)
    with pytest.raises(WeightsError, match=f"missing: {names[1]}"):
        load_strict(net, {**state, names[0]: tiny.state_dict()[names[0]]}, "a.pth")


class Attack:
    """Pickles into a call that leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(content)])
def test_a_pickled_object_is_refused_and_not_run(tmp_path, save):
    content = {"model": Attack(tmp_path / "executed")}
    if save is not torch.save:
        content = pickle.dumps(content, protocol=2)
    save(content, tmp_path / "evil.pth")

    with pytest.raises(WeightsError, match=r"evil\.pth: .* objects could run code; save the state"):
        read_state(tmp_path / "evil.pth")

    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content",
    [{"epoch": 3}, [1, 2], {1: torch.ones(1)}, {"model": {"a": torch.ones(1), "b": "text"}}],
)
def test_a_file_without_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")

    with pytest.raises(WeightsError, match=r"a\.pth holds no state dict; save net\.state_dict"):
        read_state(tmp_path / "a.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("kept", [0, 5, 50, -10])
def test_a_truncated_file_is_refused(tmp_path, suffix, kept):
    path = tmp_path / f"a{suffix}"
    state = {"a": torch.ones(100), "b": torch.zeros(3)}
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(WeightsError, match=rf"cannot read weights from .*a\{suffix}: .*again"):
        read_state(path)


@pytest.mark.parametrize("content", [b"hello world", b"\x80\x02", b"\xff" * 40, b"\x80\x02X\xff"])
def test_any_other_bytes_are_refused(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)

    with pytest.raises(WeightsError, match=r"cannot read weights from .*a\.pth: .*damaged"):
        read_state(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["gone.pth", "gone.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(WeightsError, match=rf"cannot read weights .*{name}: .*[Nn]o such file"):
        read_state(tmp_path / name)


def test_a_fingerprint_changes_with_any_weight_and_with_nothing_else():
    net = torch.nn.Linear(2, 2)
    first = fingerprint(net)

    assert fingerprint(net.eval()) == first
    assert len(first) == 64
    with torch.no_grad():
        net.bias[1] += 1e-3
    assert fingerprint(net) != first


def test_a_fingerprint_sees_names_and_shapes():
    linear, other = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        linear.weight.fill_(1)
        other.weight.fill_(1)

    assert fingerprint(linear) != fingerprint(other)
    assert fingerprint(linear) != fingerprint(torch.nn.Sequential(linear))
