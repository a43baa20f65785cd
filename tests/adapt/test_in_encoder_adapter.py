import copy

import pytest
import torch
from adapted_networks import padded_images, randomised, tiny_net
from torch import nn

from edgeseg.adapt.in_encoder_adapter import (
    BottleneckAdapter,
    SamAdapterViT,
    adapter_parameters,
    with_in_encoder_adapters,
)
from edgeseg.errors import ConfigError
from edgeseg.modeling.encoders.repvit import RepViTEncoder
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.registry import build_model

NETS = pytest.mark.parametrize("name", ["edgeseg_tiny", "vit_tiny", "RepViT"])


def net_of(name):
    if name != "RepViT":
        return tiny_net(name)
    tiny = tiny_net("vit_tiny")
    encoder = randomised(RepViTEncoder(32)).eval()
    return PromptableNet(encoder, tiny.prompt_encoder, tiny.mask_decoder, 64, "RepViT")


def fill(adapted, seed=1):
    """Give every adapter values, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter_parameters(adapted).values():
        parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


@NETS
@torch.no_grad()
def test_untrained_adapters_change_no_bit(name):
    net, images = net_of(name), padded_images((64, 40), (24, 64))
    expected = net.encode(images)

    features = with_in_encoder_adapters(net, 8).encode(images)

    assert torch.equal(features.embedding, expected.embedding)
    if expected.high_res is not None:
        assert torch.equal(features.high_res[1], expected.high_res[1])


@NETS
def test_only_adapters_learn_and_the_network_stays_as_it_was(name):
    net, images = net_of(name), padded_images((64, 40))
    before = copy.deepcopy(net.state_dict())
    adapted = with_in_encoder_adapters(net, 8)
    fill(adapted)

    adapted.encode(images).embedding.sin().sum().backward()

    own = adapter_parameters(adapted)
    assert own
    assert all(each.grad is not None and each.grad.any() for each in own.values())
    frozen = [each for key, each in adapted.named_parameters() if key not in own]
    assert len(frozen) == len(list(net.parameters()))
    assert all(each.grad is None for each in frozen)
    assert not adapted.training
    assert all(torch.equal(old, net.state_dict()[key]) for key, old in before.items())
    assert all(each.requires_grad for each in net.parameters())


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("edgeseg_tiny", [16, 24, 40, 80, 112]),  # the stages of EfficientNet-Lite0 to stride 16
        ("RepViT", [48, 96, 192, 384]),
    ],
)
def test_every_stage_of_a_convolutional_backbone_ends_in_an_adapter(name, channels):
    adapted = with_in_encoder_adapters(net_of(name), 8)

    adapters = [part for part in adapted.modules() if isinstance(part, BottleneckAdapter)]

    assert [adapter.reduce.in_channels for adapter in adapters] == channels
    # 8 down with bias, and up with bias, a stage
    count = sum(each.numel() for each in adapter_parameters(adapted).values())
    assert count == sum(8 * (width + 1) + 9 * width for width in channels)


@torch.no_grad()
def test_a_bottleneck_adds_what_passes_through_it():
    adapter = BottleneckAdapter(2, 1)
    adapter.reduce.weight.copy_(torch.tensor([[[[1.0]], [[2.0]]]]))
    adapter.reduce.bias.fill_(1.0)
    adapter.expand.weight.copy_(torch.tensor([[[[3.0]]], [[[0.0]]]]))
    adapter.expand.bias.copy_(torch.tensor([0.0, 5.0]))

    y = adapter(torch.tensor([[[[10.0, -10.0]], [[20.0, -20.0]]]]))

    # 10 + 2 * 20 + 1 = 51 passes GELU, -49 does not; 10 + 3 * 51 and 20 + 5.
    assert y.flatten().tolist() == [163.0, -10.0, 25.0, -15.0]


@torch.no_grad()
def test_the_vit_gets_something_at_its_input_and_after_each_block():
    net, images = tiny_net("vit_tiny"), padded_images((64, 40))
    encoder = net.image_encoder
    adapter = SamAdapterViT(copy.deepcopy(encoder), width=4)
    added = torch.linspace(-1, 1, 64)  # to every token, whatever the image
    adapter.expand.bias.copy_(added)
    tokens = encoder.patch_embed(images) + encoder.pos_embed + added
    for block in encoder.blocks:
        tokens = block(tokens) + added

    embedding = adapter(images).embedding

    torch.testing.assert_close(embedding, encoder.neck(tokens.permute(0, 3, 1, 2)))


@torch.no_grad()
def test_the_adapted_vit_sees_detail_and_no_edge_of_padding():
    adapter = SamAdapterViT(copy.deepcopy(tiny_net("vit_tiny").image_encoder), width=4)
    nn.init.zeros_(adapter.from_tokens.weight)  # detail alone
    nn.init.zeros_(adapter.from_tokens.bias)
    seen = []
    adapter.reduce[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = padded_images((64, 32))
    filled = images.clone()
    filled[..., 32:] = images[..., 31:32]
    smooth = torch.ones(1, 3, 64, 64)

    for each in (images, filled, smooth):
        adapter(each)

    assert torch.equal(seen[0], seen[1])
    bias = adapter.from_detail.bias.expand(1, 4, 4, 192)
    torch.testing.assert_close(seen[2], bias, rtol=0, atol=1e-4)
    assert (seen[0] - bias).abs().mean() > 0.01
    assert seen[0].shape == (1, 4, 4, 192)


def test_number_of_parameters_is_near_the_published():
    with torch.device("meta"):
        net = build_model("vit_b")
        adapter = SamAdapterViT(net.image_encoder)

    own = sum(each.numel() for each in adapter.parameters())
    own -= sum(each.numel() for each in net.image_encoder.parameters())

    # Tokens and patches of 3 * 16 * 16 to 192, thirteen times 192 to 32, 32 to 768; with biases.
    assert own == 2 * 769 * 192 + 13 * 193 * 32 + 33 * 768 == 400_928


def test_a_width_below_one_is_refused():
    with pytest.raises(ConfigError, match="width must be at least 1, got 0; 8 to 64"):
        with_in_encoder_adapters(tiny_net(), 0)


def test_other_encoders_are_refused():
    with pytest.raises(ConfigError, match="encoder ResNet18Encoder, which takes no adapters"):
        with_in_encoder_adapters(build_model("nanosam_form", 64))
