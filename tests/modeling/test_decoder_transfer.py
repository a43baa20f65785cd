import pytest
import torch
from random_networks import randomised
from torch import nn

from edgeseg.errors import WeightsError
from edgeseg.modeling import PromptableNet, build_model
from edgeseg.modeling.checkpoints import copy_decoder, fingerprint, load_decoder, save_weights
from edgeseg.modeling.mask_decoder import MaskDecoder
from edgeseg.modeling.prompt_encoder import PromptEncoder


def net(high_res=None, map_width=None, width=32, seed=0):
    """A network whose image encoder is one convolution."""
    decoder = MaskDecoder(width, 64, high_res_channels=high_res)
    prompt_encoder = PromptEncoder(width, prompt_map_width=map_width)
    built = PromptableNet(nn.Conv2d(3, 4, 1), prompt_encoder, decoder, 64, f"net{seed}")
    return randomised(built, seed)


def copied(source, target):
    """Names of the target's entries that have the source's values afterwards."""
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    copy_decoder(source, target)
    theirs = source.state_dict()
    took = set()
    for name, tensor in target.state_dict().items():
        if name in theirs and torch.equal(tensor, theirs[name]):
            took.add(name)
        else:
            assert torch.equal(tensor, before[name]), name
    return took


def parts(network, *prefixes):
    return {name for name in network.state_dict() if name.startswith(prefixes)}


DECODER = ("prompt_encoder.", "mask_decoder.")
SKIPS = "mask_decoder.high_res_"
MAP = "prompt_encoder.prompt_map."


def test_all_but_the_image_encoder_is_copied_between_equal_networks():
    source, target = net((5, 3), 8, seed=1), net((5, 3), 8, seed=2)

    assert copied(source, target) == parts(target, *DECODER)


@pytest.mark.parametrize("channels", [(5, 4), (6, 3), (6, 4)], ids=str)
def test_skips_of_other_features_are_left_alone_biases_too(channels):
    source, target = net((5, 3), 8, seed=1), net(channels, 8, seed=2)

    assert copied(source, target) == parts(target, *DECODER) - parts(target, SKIPS)


def test_a_prompt_map_of_another_width_is_left_alone():
    source, target = net((5, 3), 8, seed=1), net((5, 3), 4, seed=2)

    assert copied(source, target) == parts(target, *DECODER) - parts(target, MAP)


def test_a_teacher_without_the_new_parts_leaves_them_as_built():
    source, target = net(seed=1), net((5, 3), 8, seed=2)

    assert copied(source, target) == parts(target, *DECODER) - parts(target, SKIPS, MAP)


def test_new_parts_of_the_teacher_are_dropped_where_the_student_has_none():
    source, target = net((5, 3), 8, seed=1), net(seed=2)

    assert copied(source, target) == parts(target, *DECODER)


def test_a_decoder_of_another_width_is_refused_and_nothing_is_touched():
    source, target = net(width=16, seed=1), net(seed=2)
    before = fingerprint(target)

    with pytest.raises(WeightsError, match=r"decoder of net1 does not fit net2; other shape: \w+"):
        copy_decoder(source, target)

    assert fingerprint(target) == before


def test_the_decoder_of_a_sam_checkpoint_is_loaded(tmp_path):
    vit = randomised(build_model("vit_tiny"))
    torch.save(vit.state_dict(), tmp_path / "sam.pth")
    target = net((5, 3), 8)
    target.mask_decoder = MaskDecoder(32, 2048, high_res_channels=(5, 3))
    untouched = {name: target.state_dict()[name].clone() for name in parts(target, SKIPS, MAP)}

    load_decoder(target, tmp_path / "sam.pth")

    state, theirs = target.state_dict(), vit.state_dict()
    for name in parts(vit, *DECODER):
        assert torch.equal(state[name], theirs[name]), name
    assert all(torch.equal(state[name], tensor) for name, tensor in untouched.items())


def test_the_decoder_of_our_own_file_is_loaded(tmp_path):
    source, target = net((5, 3), 8, seed=1), net((5, 3), 8, seed=2)
    encoder = target.image_encoder.weight.clone()
    save_weights(source, tmp_path / "a.safetensors")

    load_decoder(target, tmp_path / "a.safetensors")

    assert torch.equal(target.image_encoder.weight, encoder)
    state, theirs = target.state_dict(), source.state_dict()
    assert all(torch.equal(state[name], theirs[name]) for name in parts(target, *DECODER))


def test_a_file_without_decoder_is_refused_and_nothing_is_touched(tmp_path):
    target = net((5, 3), 8)
    before = fingerprint(target)
    state = {n: t for n, t in net((5, 3), 8, seed=1).state_dict().items() if "mask_dec" not in n}
    torch.save(state, tmp_path / "half.pth")

    with pytest.raises(WeightsError, match=r"half\.pth does not fit net0; missing: mask_decoder\."):
        load_decoder(target, tmp_path / "half.pth")

    assert fingerprint(target) == before
