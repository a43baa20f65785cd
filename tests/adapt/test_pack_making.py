"""From annotated images to a pack that an application could load."""

import numpy as np
import pytest
import torch
from adapted_networks import randomised
from tiny_domain import records_of, write_domain

from edgeseg.adapt.adapted import AdaptedNet
from edgeseg.adapt.cached_views import CachedViews, cache_views
from edgeseg.adapt.config import AdaptConfig
from edgeseg.adapt.making import Domain, fit, make_pack, scores_of, usable_views
from edgeseg.adapt.settings import parse_settings
from edgeseg.adapt.stage import AdaptStage
from edgeseg.adapt.torch_packs import image_vectors, packed_backend, router_of
from edgeseg.data.batches import collate
from edgeseg.data.samples import SampleSettings
from edgeseg.distill.step_random import StepRandom
from edgeseg.errors import ConfigError
from edgeseg.evaluation.paired import gain
from edgeseg.modeling.registry import build_model
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.packs import read_adapter, read_pack, read_vectors
from edgeseg.prompts import Prompt
from edgeseg.routing import DomainVectors
from edgeseg.runtime.segmenter import Segmenter

PACKS = {
    "convolutional": {"kind": "convolutional", "width": 8},
    "neck_delta": {"kind": "neck_delta", "rank": 4},
    "memory": {"kind": "memory", "num_heads": 2, "head_width": 8, "num_prototypes": 4},
    "decoder": {"kind": "decoder", "decoder": "full"},
}


def settings(kind="neck_delta", steps=12, learning_rate=5e-3) -> AdaptConfig:
    training = {"learning_rate": learning_rate, "warmup_steps": 2, "box_share": 1.0}
    tables = {
        "pack": PACKS[kind],
        "views": 2,
        "training": {"steps": steps, **training},
        "evaluation": {"prompt_sets": ("box",)},
        "workers": 0,
    }
    return AdaptConfig.model_validate(tables)


def base_net():
    torch.manual_seed(3)
    return build_model("edgeseg_tiny").eval()


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domain")
    write_domain(folder / "train", 8)
    write_domain(folder / "val", 4, seed=1)
    parts = records_of(folder / "train"), records_of(folder / "val")
    return Domain("discs", *parts, "eight images of discs", "free")


def test_a_pack_tells_what_it_is_and_answers_as_it_was_judged(domain, tmp_path):
    base, config = base_net(), settings()
    messages = []

    made = make_pack(base, domain, config, tmp_path / "discs", tmp_path / "cache", messages.append)

    assert read_pack(tmp_path / "discs") == made
    assert (made.num_images, made.num_objects, made.kind) == (8, 16, "neck_delta")
    assert made.base.model == "edgeseg_tiny"
    assert read_vectors(tmp_path / "discs").vectors.shape == (8, 32)
    assert any("step 12 of 12" in text for text in messages)
    again = AdaptedNet(base_net(), parse_settings(made.settings, "test"))
    again.load_pack_state(read_adapter(tmp_path / "discs"), "test")
    before = scores_of(base_net(), domain.validation, config)
    found = gain(before, scores_of(again, domain.validation, config), "box")
    figures = made.figures[0]
    assert (figures.base, figures.adapted) == pytest.approx((found.before, found.after), abs=1e-6)
    assert figures.gain_interval == pytest.approx((found.low, found.high), abs=1e-6)


def train(net, domain, config, cache):
    fit(net, usable_views(net, domain.training, config), config, cache)


def loss_of(net, views, lookup):
    """The loss of one batch, always the same."""
    samples = CachedViews(views, SampleSettings(student_size=64, box_share=1.0), 9, lookup)
    batch = collate([samples[position] for position in range(4)])
    with torch.no_grad():
        parts = AdaptStage(net, settings().training).losses(
            batch, StepRandom(9, range(4), batch.counts)
        )
    return float(parts["truth_mask"].total / parts["truth_mask"].count)


@pytest.mark.parametrize("kind", PACKS)
def test_every_kind_learns(kind, domain, tmp_path):
    config = settings(kind, steps=30, learning_rate=3e-2)
    net = AdaptedNet(randomised(base_net(), 1), config.pack).eval()
    views = usable_views(net, domain.training, config)
    lookup = cache_views(tmp_path / "cache", net, views)
    before = loss_of(net, views, lookup)

    fit(net, views, config, tmp_path / "cache")

    assert loss_of(net, views, lookup) < 0.95 * before


def test_the_same_seed_makes_the_same_pack(domain, tmp_path):
    states = []
    for run in ("a", "b"):
        net = AdaptedNet(base_net(), settings().pack)
        train(net, domain, settings(steps=4), tmp_path / run)
        states.append(net.pack_state())

    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_a_memory_leaves_no_row_of_an_image_in_the_pack(domain, tmp_path):
    config = settings("memory", steps=4)
    net = AdaptedNet(base_net(), config.pack)

    train(net, domain, config, tmp_path / "cache")

    state = net.pack_state()
    assert {name.split(".")[1] for name in state} <= {"keys", "values", "log_counts", "reader"}
    assert state["adapter.keys"].shape == (4, 16)
    assert not net.adapter._memory


def test_an_image_that_cannot_be_read_is_told_and_does_not_stop_the_rest(domain, tmp_path):
    write_domain(tmp_path / "bad", 2, seed=7)
    (tmp_path / "bad" / "i0.png").write_bytes(b"no image")
    images = [*records_of(tmp_path / "bad"), *domain.training[:3]]
    messages = []

    made = make_pack(
        base_net(),
        Domain("discs", images, [], "", ""),
        settings(steps=2),
        tmp_path / "discs",
        tmp_path / "cache",
        messages.append,
    )

    assert (made.num_images, made.num_objects, made.figures) == (4, 8, ())
    assert read_vectors(tmp_path / "discs").vectors.shape == (4, 32)
    assert sum(text.startswith("left out: ") for text in messages) == 1


def test_too_few_images_are_refused_before_the_long_work(domain, tmp_path):
    messages = []
    one = Domain("discs", domain.training[:1], [], "", "")

    with pytest.raises(ConfigError, match="at least 2 images"):
        make_pack(base_net(), one, settings(), tmp_path / "discs", tmp_path, messages.append)

    assert messages == []


@pytest.mark.parametrize("name", ["base", "../discs", "Discs", "discs\n", ""])
def test_a_name_that_is_no_folder_or_means_no_pack_is_refused(name):
    with pytest.raises(ConfigError, match="must be small letters"):
        Domain(name, [], [], "", "")


def test_images_may_not_be_learned_from_and_judged_by(domain):
    with pytest.raises(ConfigError, match=r"1 images of discs are both .* such as .*i0\.png"):
        Domain("discs", domain.training, domain.training[:1], "", "")


def test_a_router_of_vectors_tells_discs_from_other_images(domain, tmp_path):
    base = base_net()
    write_domain(tmp_path / "more", 60, seed=5)
    write_domain(tmp_path / "other", 64, seed=9, colour=(30, 30, 30))
    more, other = records_of(tmp_path / "more"), records_of(tmp_path / "other")
    vectors = DomainVectors("discs", image_vectors(base, more))
    router = router_of(image_vectors(base, other[:60]), [vectors])
    net = AdaptedNet(base, settings().pack)
    backend = packed_backend(base, {"discs": net}, router)
    segmenter = Segmenter(backend)

    chosen = [
        backend.pack_of(segmenter.encode(record.read_image()).features)
        for record in [*domain.validation, *other[60:]]
    ]

    assert chosen == ["discs"] * 4 + [None] * 4


def test_packs_of_every_kind_answer_as_their_networks_do(domain, tmp_path):
    base = base_net()
    image = domain.validation[0].read_image()
    for kind in PACKS:
        config = settings(kind, steps=2)
        net = AdaptedNet(base, config.pack)
        train(net, domain, config, tmp_path / kind)
        packed = Segmenter(packed_backend(base, {"discs": net}, None, "discs"))
        alone = Segmenter(TorchBackend(net))
        prompt = [Prompt(box_xyxy=(4, 4, 30, 40))]
        ours, _ = packed.predict_logits(packed.encode(image), prompt)
        its, _ = alone.predict_logits(alone.encode(image), prompt)
        np.testing.assert_allclose(ours, its, atol=1e-4)
