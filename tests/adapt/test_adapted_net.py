"""A base and its pack as one network."""

import copy

import numpy as np
import pytest
import torch
from adapted_networks import padded_images, randomised

from edgeseg.adapt.adapted import AdaptedNet
from edgeseg.adapt.settings import (
    ConvolutionalSettings,
    DecoderSettings,
    MemorySettings,
    NeckDeltaSettings,
    parse_settings,
)
from edgeseg.errors import ConfigError, WeightsError
from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.registry import build_model

SETTINGS = {
    "convolutional": ConvolutionalSettings(width=4),
    "neck_delta": NeckDeltaSettings(rank=2),
    "memory": MemorySettings(num_heads=2, head_width=4, num_prototypes=3),
    "decoder": DecoderSettings(decoder_rank=2),
}
SIZES = (48, 64), (64, 30)
KINDS = pytest.mark.parametrize("kind", SETTINGS)
PROMPTS = PromptBatch(torch.tensor([[[20.0, 9.0]], [[5.0, 40.0]]]), torch.ones(2, 1).long(), (1, 1))


def base_net():
    torch.manual_seed(3)
    return build_model("edgeseg_tiny").eval()


def trained(kind, base=None):
    """A pack whose parts all have values, as after training."""
    net = AdaptedNet(base or base_net(), SETTINGS[kind]).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        kept = net.adapter.prototypes if kind == "memory" else net.adapter
        own = [] if kept is None else list(kept.parameters())
        for parameter in [*own, *net.learning_parameters().values()]:
            parameter.normal_(0, 0.3, generator=generator)
    return net


def answers(net, images):
    with torch.no_grad():
        features = net.encode(images)
        return features.embedding, net.decode(features, PROMPTS).low_res_logits


@KINDS
def test_an_untrained_pack_is_the_base(kind):
    base, images = base_net(), padded_images(*SIZES)
    before = answers(base, images)

    after = answers(AdaptedNet(base, SETTINGS[kind]).eval(), images)

    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@KINDS
def test_a_trained_pack_answers_otherwise_and_leaves_the_base(kind):
    base, images = base_net(), padded_images(*SIZES)
    before = answers(base, images)

    after = answers(trained(kind, base), images)

    assert not torch.allclose(after[1], before[1])
    assert all(torch.equal(a, b) for a, b in zip(answers(base, images), before, strict=True))


@KINDS
def test_kept_features_give_what_the_encoder_gives(kind):
    net, images = trained(kind), padded_images(*SIZES)
    shapes = net.read_shapes()

    with torch.no_grad():
        row = shapes.pack(net.read(images))
        adapted = net.adapt(images, shapes.unpack(row))

    assert row.shape == (2, shapes.length)
    assert torch.equal(adapted.embedding, net.encode(images).embedding)
    assert torch.equal(adapted.high_res[1], net.encode(images).high_res[1])


@KINDS
def test_gradients_reach_the_pack_alone(kind):
    net, images = trained(kind), padded_images(*SIZES)
    if kind == "memory":
        net.adapter.remember(["a", "b"])
        net.adapter.write(["a", "b"], net.read(images).embedding)

    features = net.adapt(images, net.read(images), ["a", "b"])
    net.decode(features, PROMPTS).low_res_logits.square().sum().backward()

    learned = net.learning_parameters()
    assert learned
    assert {name for name, p in net.named_parameters() if p.grad is not None} <= set(learned)
    assert any(p.grad.abs().max() > 0 for p in learned.values() if p.grad is not None)


@KINDS
def test_a_pack_is_loaded_with_the_numbers_it_was_saved_with(kind):
    net, images = trained(kind), padded_images(*SIZES)
    state = net.pack_state()
    other = AdaptedNet(base_net(), SETTINGS[kind]).eval()

    other.load_pack_state(state, "test")

    pairs = zip(answers(other, images), answers(net, images), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert state.keys() == other.pack_state().keys()
    size = sum(value.nbytes for value in state.values())
    assert size < 0.2 * sum(p.nbytes for p in net.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("adapter.gain"), "adapter.gain differ; make the pack again"),
        (lambda s: s.update(more=np.zeros(1)), "more differ"),
        (lambda s: s.update({"adapter.gain": np.zeros(3)}), "adapter.gain differ"),
        (lambda s: s["adapter.gain"].fill(np.nan), "not finite in adapter.gain"),
    ],
)
def test_a_pack_that_does_not_fit_changes_nothing(change, message):
    net = AdaptedNet(base_net(), SETTINGS["neck_delta"])
    state = trained("neck_delta").pack_state()
    change(state)

    with pytest.raises(WeightsError, match=message):
        net.load_pack_state(state, "test")

    assert not net.adapter.gain.any()


@KINDS
def test_a_folded_copy_answers_alike(kind):
    net, images = trained(kind), padded_images(*SIZES)
    randomised(net.image_encoder)  # norms that fold into something

    folded = net.folded()

    for ours, its in zip(answers(folded, images), answers(net, images), strict=True):
        torch.testing.assert_close(ours, its, rtol=1e-3, atol=1e-3)
    assert type(folded) is AdaptedNet


def test_two_packs_share_one_base():
    base = base_net()

    red, green = trained("neck_delta", base), trained("convolutional", base)

    assert red.image_encoder is green.image_encoder is base.image_encoder
    assert red.mask_decoder is base.mask_decoder


def test_a_decoder_that_learns_is_a_copy():
    base = base_net()
    weights = copy.deepcopy(base.mask_decoder.state_dict())

    net = AdaptedNet(base, DecoderSettings(decoder="full"))

    assert net.mask_decoder is not base.mask_decoder
    assert all(p.requires_grad for p in net.mask_decoder.parameters())
    assert not any(p.requires_grad for p in base.parameters())
    assert all(torch.equal(t, weights[n]) for n, t in base.mask_decoder.state_dict().items())


def test_settings_return_as_the_kind_they_were():
    for settings in SETTINGS.values():
        assert parse_settings(settings.model_dump(mode="json"), "test") == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "magic"}, "pack.json: .*'magic'"),
        ({"kind": "neck_delta", "rank": 0}, "neck_delta.rank: .*greater than or equal to 1"),
        ({"kind": "neck_delta", "width": 3}, "neck_delta.width: Extra inputs"),
        ({"kind": "decoder", "decoder": "frozen"}, "decoder.decoder"),
    ],
)
def test_settings_of_strangers_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        parse_settings(values, "pack.json")
