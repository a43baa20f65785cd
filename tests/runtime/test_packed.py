"""Packs beside a base model: found out or told, and remembered in the features."""

import numpy as np
import pytest

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.prompts import Prompt
from edgeseg.proposals import CellProposals
from edgeseg.routing import AdaptableImage, DomainVectors, Router
from edgeseg.runtime.packed import PackedBackend
from edgeseg.runtime.segmenter import Segmenter

SIZE = 64
GRID = SIZE // 16


def vectors(name: str, x: float, y: float) -> DomainVectors:
    spread = np.array([[-0.1, 0.05], [0.1, -0.05], [0.0, 0.1], [0.0, -0.1]])
    return DomainVectors(name, (spread + [x, y]).astype(np.float32))


ROUTER = Router(
    vectors("natural", 0.0, 0.0), [vectors("red", 1.0, 0.0), vectors("green", 0.0, 1.0)]
)


class Base:
    """Its embedding is the image's mean red and green, its answer the embedding's mean."""

    name = "known"
    image_size = SIZE

    def __init__(self):
        self.num_encoded = 0

    def encode(self, pixels):
        return self.encode_adaptable(pixels).features

    def encode_adaptable(self, pixels):
        self.num_encoded += 1
        red_green = pixels[0, :2].mean(axis=(1, 2))
        embedding = np.full((1, 2, GRID, GRID), red_green[:, None, None], np.float32)
        return AdaptableImage((embedding, np.zeros(3)), embedding + 100, red_green)

    def decode(self, features, points_xy, point_labels, mask_logits, has_mask):
        embedding, high_res = features
        assert high_res.shape == (3,)
        logits = np.full((len(points_xy), 4, SIZE // 4, SIZE // 4), embedding.mean(), np.float32)
        return logits, np.zeros((len(points_xy), 4), np.float32)


class ProposingBase(Base):
    def propose(self, features):
        embedding, _ = features
        return CellProposals(np.full((1, 4), embedding.mean()), np.ones(1), np.ones(1))


class Shift:
    """Adds a number to the embedding."""

    def __init__(self, by, decoder=None):
        self.by = by
        self.decoder = decoder

    def adapt(self, pixels, image):
        assert pixels.shape == (1, 3, SIZE, SIZE)
        assert image.neck_input.mean() > 99
        return image.features[0] + self.by


class Sevens:
    def decode(self, features, points_xy, point_labels, mask_logits, has_mask):
        logits = np.full((len(points_xy), 4, SIZE // 4, SIZE // 4), -7, np.float32)
        return logits, np.zeros((len(points_xy), 4), np.float32)


def image(red: float, green: float) -> np.ndarray:
    pixels = np.zeros((1, 3, SIZE, SIZE), np.float32)
    pixels[0, 0], pixels[0, 1] = red, green
    return pixels


def packed(told=None, router=ROUTER, **packs) -> PackedBackend:
    return PackedBackend(Base(), packs or {"red": Shift(10), "green": Shift(20)}, router, told)


def answer(backend: PackedBackend, features) -> float:
    logits, _ = backend.decode(features, np.zeros((1, 1, 2)), np.ones((1, 1)), None, None)
    return float(logits[0, 0, 0, 0])


@pytest.mark.parametrize(
    ("pixels", "pack", "mean"),
    [
        (image(1.0, 0.0), "red", 10.5),
        (image(0.0, 1.0), "green", 20.5),
        (image(0.0, 0.0), None, 0.0),
        (image(9.0, 0.0), None, 4.5),  # red beyond all that is known: better no pack
    ],
)
def test_each_image_gets_the_pack_it_needs(pixels, pack, mean):
    backend = packed()

    features = backend.encode(pixels)

    assert backend.pack_of(features) == pack
    assert answer(backend, features) == mean
    assert backend.route(pixels).name == pack


def test_answers_belong_to_their_image_whatever_was_encoded_since():
    backend = packed()

    first, second = backend.encode(image(1.0, 0.0)), backend.encode(image(0.0, 1.0))

    assert [answer(backend, first), answer(backend, second)] == [10.5, 20.5]


@pytest.mark.parametrize(
    ("told", "router", "mean"),
    [("green", ROUTER, 20.5), ("base", ROUTER, 0.5), ("green", None, 20.5)],
)
def test_a_pack_that_is_told_is_used_for_every_image(told, router, mean):
    backend = packed(told, router)

    assert answer(backend, backend.encode(image(1.0, 0.0))) == mean  # a router would say red


def test_the_base_runs_once_an_image():
    backend = packed()

    backend.encode(image(1.0, 0.0))

    assert backend.base.num_encoded == 1


def test_a_pack_with_a_decoder_answers_itself():
    backend = packed(red=Shift(10, Sevens()), green=Shift(20))

    assert answer(backend, backend.encode(image(1.0, 0.0))) == -7
    assert answer(backend, backend.encode(image(0.0, 1.0))) == 20.5


def test_proposals_see_the_adapted_embedding():
    backend = PackedBackend(ProposingBase(), {"red": Shift(10), "green": Shift(20)}, ROUTER)

    assert backend.propose(backend.encode(image(1.0, 0.0))).boxes_xyxy[0, 0] == 10.5
    with pytest.raises(WeightsError, match="proposes nothing"):
        packed().propose(packed().encode(image(1.0, 0.0)))


def test_a_segmenter_takes_it_like_any_backend():
    segmenter = Segmenter(packed("red"))
    encoded = segmenter.encode(np.full((SIZE, SIZE, 3), 128, np.uint8))

    masks = segmenter.segment(encoded, Prompt(points_xy=[(5, 5)]))

    assert masks.masks.all()  # logits near 10


@pytest.mark.parametrize(
    ("told", "router", "message"),
    [
        ("blue", ROUTER, "there is no pack 'blue'; choose one of base, red, green"),
        (None, None, "without a router choose nothing"),
        (None, Router(vectors("n", 0, 0), [vectors("red", 1, 0)]), "the router knows red, but"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(told, router, message):
    with pytest.raises(ConfigError, match=message):
        packed(told, router)


def test_without_a_router_nothing_is_routed():
    with pytest.raises(ConfigError, match="there is no router"):
        packed("red", None).route(image(1.0, 0.0))
