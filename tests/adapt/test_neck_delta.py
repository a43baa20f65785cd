import copy
from dataclasses import replace

import pytest
import torch
from adapted_networks import NECKS, padded_images, randomised, tiny_net
from torch import nn

from edgeseg.adapt.neck_delta import NeckDelta, neck_of
from edgeseg.errors import ConfigError, WeightsError
from edgeseg.modeling.encoders.neck import build_neck
from edgeseg.modeling.registry import build_model

NETS = pytest.mark.parametrize("name", ["edgeseg_tiny", "vit_tiny"])


def merged_features(channels=10):
    return torch.randn(2, channels, 4, 6, generator=torch.Generator().manual_seed(0))


def trained_delta(neck, rank=4, seed=1, **settings):
    """A delta whose updates all have values, as after training."""
    return randomised(NeckDelta(neck, rank, **settings), seed)


@pytest.mark.parametrize("form", NECKS)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_an_untrained_delta_changes_no_bit(form, memory):
    neck = randomised(NECKS[form]()).to(memory_format=memory)

    embedding = NeckDelta(neck)(merged_features())

    assert torch.equal(embedding, neck(merged_features()))


@torch.no_grad()
def test_an_updated_kernel_is_the_old_one_and_the_scaled_product():
    neck = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Identity(), nn.GroupNorm(1, 2))
    neck[0].weight.copy_(torch.tensor([[10.0, 20.0], [30.0, 40.0]]).view(2, 2, 1, 1))
    delta = NeckDelta(neck, rank=2, alpha=6.0)
    delta.updates["0"].down.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    delta.updates["0"].up.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    delta.gain.copy_(torch.tensor([0.5, -0.5]))
    delta.bias.copy_(torch.tensor([7.0, 8.0]))

    changed = delta.differences()

    # 6 / 2 times [[1, 0], [0, -1]] @ [[1, 2], [0, 1]] = 3 * [[1, 2], [0, -1]]
    assert changed["0.weight"].flatten().tolist() == [3.0, 6.0, 0.0, -3.0]
    assert changed["2.weight"].tolist() == [0.5, -0.5]
    assert changed["2.bias"].tolist() == [7.0, 8.0]
    expected = copy.deepcopy(neck)
    expected[0].weight.copy_(torch.tensor([[13.0, 26.0], [30.0, 37.0]]).view(2, 2, 1, 1))
    expected[2].weight.copy_(torch.tensor([1.5, 0.5]))
    expected[2].bias.copy_(torch.tensor([7.0, 8.0]))
    x = merged_features(2)
    assert torch.equal(delta(x), expected(x))
    assert neck[0].weight.flatten().tolist() == [10.0, 20.0, 30.0, 40.0]


@pytest.mark.parametrize(
    ("form", "kernels"),
    [
        ("one 3x3 convolution", ["0.weight", "2.weight"]),
        ("separable", ["0.weight", "2.0.weight", "2.1.weight"]),
        ("SAM's", ["0.weight", "2.weight"]),
    ],
)
def test_every_convolution_and_the_last_norm_are_updated(form, kernels):
    neck = NECKS[form]()

    differences = trained_delta(neck).differences()

    assert sorted(differences) == [*kernels, "3.bias", "3.weight"]
    parameters = dict(neck.named_parameters())
    for name, difference in differences.items():
        assert difference.shape == parameters[name].shape
        assert difference.abs().min() > 0


@NETS
@torch.no_grad()
def test_merged_weights_give_the_embedding_of_the_delta(name):
    net, images = tiny_net(name), padded_images((64, 40), (24, 64))
    before = copy.deepcopy(net.state_dict())
    delta = trained_delta(neck_of(net))
    features = net.image_encoder.before_neck(images)
    adapted = net.image_features(features.through(delta))

    merged = delta.merge_into(net)

    answer = merged.encode(images)
    assert (adapted.embedding - net.encode(images).embedding).abs().mean() > 0.1
    torch.testing.assert_close(answer.embedding, adapted.embedding, rtol=0, atol=1e-5)
    assert merged.state_dict().keys() == before.keys()
    changed = {key for key, old in before.items() if not torch.equal(merged.state_dict()[key], old)}
    assert changed == {f"image_encoder.neck.{key}" for key in delta.differences()}
    assert all(torch.equal(old, net.state_dict()[key]) for key, old in before.items())


@NETS
@torch.no_grad()
def test_without_a_delta_every_bit_is_as_before(name):
    net = tiny_net(name)
    delta = trained_delta(neck_of(net))
    merged = delta.merge_into(net)

    restored = delta.without(merged)

    assert all(
        torch.equal(old, new)
        for old, new in zip(net.state_dict().values(), restored.state_dict().values(), strict=True)
    )
    images = padded_images((64, 40))
    assert not torch.equal(merged.encode(images).embedding, net.encode(images).embedding)


@torch.no_grad()
def test_mixed_differences_are_a_delta_again():
    neck = NECKS["separable"]()
    one, other = (trained_delta(neck, seed=seed).differences() for seed in (1, 2))
    mixture = NeckDelta(neck, rank=8)
    for name in ("0.weight", "2.0.weight", "2.1.weight"):
        update = mixture.updates[name.removesuffix(".weight").replace(".", "_")]
        for half, delta in ((slice(0, 4), one), (slice(4, 8), other)):
            u, s, v = torch.linalg.svd(delta[name].flatten(1))
            update.up[:, half], update.down[half] = u[:, :4] * s[:4], v[:4]

    mixed = mixture.differences()

    for name in ("0.weight", "2.0.weight", "2.1.weight"):
        torch.testing.assert_close(mixed[name], one[name] + other[name])


def test_gradients_reach_the_delta_alone():
    net, images = copy.deepcopy(tiny_net()), padded_images((64, 40))
    delta = trained_delta(neck_of(net))
    features = net.image_encoder.before_neck(images)
    features = replace(features, merged=features.merged.detach())

    net.image_features(features.through(delta)).embedding.square().sum().backward()

    assert all(each.grad is None for each in neck_of(net).parameters())
    assert all(each.grad.abs().max() > 0 for each in delta.parameters())
    assert {name.split(".")[0] for name in delta.state_dict()} == {"updates", "gain", "bias"}


def test_the_first_step_moves_what_starts_at_zero():
    delta = NeckDelta(NECKS["separable"](), rank=2)

    (delta(merged_features()) * merged_features(8)).sum().backward()

    moved = {name.split(".")[-1] for name, each in delta.named_parameters() if each.grad.any()}
    assert moved == {"up", "gain", "bias"}


def test_updates_have_the_rank_asked_for_or_what_the_kernel_has():
    neck = build_neck(10, 32, separable=True)

    delta = trained_delta(neck, rank=12, alpha=6.0)

    ranks = {key: update.up.shape[1] for key, update in delta.updates.items()}
    assert ranks == {"0": 10, "2_0": 9, "2_1": 12}  # ten channels; nine numbers a kernel
    assert {update.scale for update in delta.updates.values()} == {0.5}  # 6 / 12 for all


def test_number_of_parameters_of_a_small_models_pack():
    neck = build_neck(256, 256, separable=True)

    count = sum(each.numel() for each in NeckDelta(neck, rank=8).parameters())

    # Two 256 x 256 kernels, one 256 x 9, gain and bias: 43 kB in single precision.
    assert count == 2 * 8 * (256 + 256) + 8 * (256 + 9) + 2 * 256 == 10_824


def test_a_rank_below_one_is_refused():
    with pytest.raises(ConfigError, match="rank must be at least 1, got 0; 4 to 16"):
        NeckDelta(NECKS["separable"](), rank=0)


def test_a_neck_that_ends_in_no_norm_is_refused():
    with pytest.raises(ConfigError, match="got 1 convolutions and Conv2d; give net.image_encoder"):
        NeckDelta(nn.Sequential(nn.Conv2d(2, 2, 1)))
    with pytest.raises(ConfigError, match="got 0 convolutions and LayerNorm"):
        NeckDelta(nn.Sequential(nn.Identity(), nn.LayerNorm(4)))


def test_another_models_neck_is_refused():
    delta = NeckDelta(neck_of(tiny_net("vit_tiny")))

    with pytest.raises(WeightsError, match="edgeseg_tiny has .*; use the model it was trained for"):
        delta.merge_into(tiny_net())
    with pytest.raises(WeightsError, match="use the model it was trained for"):
        delta.without(tiny_net())


def test_an_encoder_in_one_piece_is_refused():
    net = build_model("nanosam_form", 64)

    with pytest.raises(ConfigError, match="encoder ResNet18Encoder, which is not split .*; adapt"):
        neck_of(net)
