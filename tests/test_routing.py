"""The router: closed-form keys, the class of natural images, and the unknown."""

import numpy as np
import pytest

from edgeseg.errors import ConfigError
from edgeseg.routing import DomainVectors, Router


def cloud(name: str, center: tuple[float, ...], seed: int = 0, count: int = 12) -> DomainVectors:
    rng = np.random.default_rng([seed, *name.encode()])
    vectors = np.array(center) + 0.1 * rng.standard_normal((count, len(center)))
    return DomainVectors(name, vectors.astype(np.float32))


BASE = cloud("natural", (0.0, 0.0, 0.0))
ROADS = cloud("roads", (1.0, 0.0, 0.0))
CELLS = cloud("cells", (0.0, 1.0, 0.0))


def test_an_image_goes_to_the_domain_whose_images_it_resembles():
    router = Router(BASE, [ROADS, CELLS])

    assert router.names == ("base", "roads", "cells")
    assert router.choose(np.array([0.95, 0.05, 0.0])).name == "roads"
    assert router.choose(np.array([0.05, 1.05, 0.0])).name == "cells"


def test_a_natural_image_gets_no_pack_and_is_known():
    route = Router(BASE, [ROADS, CELLS]).choose(np.array([0.02, -0.03, 0.0]))

    assert route.name is None
    assert route.is_known
    assert route.shares[0] > 0.99


def test_what_resembles_nothing_gets_no_pack_and_is_unknown():
    route = Router(BASE, [ROADS, CELLS]).choose(np.array([6.0, 0.0, 0.0]))

    assert route.name is None  # the nearest class is roads
    assert not route.is_known
    assert route.shares[1] > 0.99


def test_slack_says_how_far_is_too_far():
    at = np.array([1.9, 0.0, 0.0])

    assert Router(BASE, [ROADS, CELLS], slack=100.0).choose(at).name == "roads"
    assert Router(BASE, [ROADS, CELLS], slack=0.5).choose(at).name is None


def test_keys_are_those_of_linear_discriminant_analysis():
    # Two classes in one dimension at 0 and 1 with equal spread: the border lies at 0.5.
    zero = DomainVectors("zero", np.array([[-0.1], [0.1]], np.float32))
    one = DomainVectors("one", np.array([[0.9], [1.1]], np.float32))
    router = Router(zero, [one], shrinkage=0.5, slack=1e3)

    shares = router.choose(np.array([0.5])).shares
    assert shares == pytest.approx((0.5, 0.5))
    # Within-class variance: four squares of 0.1 over 4 - 2 degrees of freedom = 0.02, in one
    # dimension whatever the shrinkage; log odds at x are (x - 0.5) / 0.02.
    shares = router.choose(np.array([0.52])).shares
    assert np.log(shares[1] / shares[0]) == pytest.approx(1.0, rel=1e-3)


def test_distance_is_in_standard_deviations():
    zero = DomainVectors("zero", np.array([[-0.1], [0.1]], np.float32))
    one = DomainVectors("one", np.array([[0.9], [1.1]], np.float32))

    route = Router(zero, [one]).choose(np.array([0.3]))

    assert route.distance == pytest.approx(0.3 / 0.02**0.5, rel=1e-3)
    assert not route.is_known  # its own vectors are 0.2 from the other one of their class


def test_the_limit_leaves_each_vector_out_of_its_own_mean():
    zero = DomainVectors("zero", np.array([[-0.1], [0.1]], np.float32))
    one = DomainVectors("one", np.array([[0.9], [1.1]], np.float32))
    router = Router(zero, [one], slack=1.0)

    assert router.choose(np.array([0.19])).is_known  # 0.1 is 0.2 from -0.1
    assert not router.choose(np.array([0.21])).is_known


def test_with_packs_added_or_in_another_order_the_answer_is_the_same():
    more = cloud("tiles", (0.0, 0.0, 3.0))
    features = np.random.default_rng(1).uniform(-0.2, 1.2, (50, 3))
    forward, backward = Router(BASE, [ROADS, CELLS, more]), Router(BASE, [more, CELLS, ROADS])

    for feature in features:
        assert forward.choose(feature).name == backward.choose(feature).name


def test_features_of_very_different_size_count_alike():
    scale = np.array([1e4, 1.0, 1e-3], np.float32)
    scaled = [DomainVectors(d.name, d.vectors * scale) for d in (BASE, ROADS, CELLS)]
    router = Router(scaled[0], scaled[1:])

    assert router.choose(np.array([0.0, 1.0, 0.0]) * scale).name == "cells"


def test_equal_vectors_do_not_make_it_fail():
    same = DomainVectors("same", np.ones((3, 2), np.float32))
    other = DomainVectors("other", np.zeros((3, 2), np.float32))

    assert Router(same, [other]).choose(np.zeros(2)).name == "other"


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((1, 3), np.float32), r"at least 2 images, got \(1, 3\); give more images"),
        (np.ones(3, np.float32), r"must be \(M, F\)"),
        (np.full((2, 3), np.nan, np.float32), "not finite; check the weights"),
    ],
)
def test_useless_vectors_are_refused(vectors, message):
    with pytest.raises(ConfigError, match=message):
        DomainVectors("roads", vectors)


@pytest.mark.parametrize(
    ("domains", "options", "message"),
    [
        ([ROADS, ROADS], {}, "a name of its own"),
        ([cloud("base", (1.0, 1.0, 1.0))], {}, "other than 'base'"),
        ([cloud("flat", (1.0, 1.0))], {}, "must have one width"),
        ([ROADS], {"shrinkage": 0.0}, "shrinkage must be above 0 and at most 1, got 0.0"),
        ([ROADS], {"slack": 0.0}, "slack must be above 0, got 0.0"),
    ],
)
def test_classes_that_do_not_fit_together_are_refused(domains, options, message):
    with pytest.raises(ConfigError, match=message):
        Router(BASE, domains, **options)


def test_a_feature_of_another_width_is_refused():
    with pytest.raises(ConfigError, match=r"must be \(3,\), got \(4,\); take it from the encoder"):
        Router(BASE, [ROADS]).choose(np.zeros(4))
