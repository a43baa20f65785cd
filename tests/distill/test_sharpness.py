import math

import pytest
import torch
from torch import nn

from edgeseg.distill.sharpness import measure_sharpness
from edgeseg.errors import ConfigError, DataError, DivergedError


def two_weights(start=(0.0, 0.0)):
    net = nn.ParameterList([nn.Parameter(torch.tensor([value])) for value in start])
    return net, (net[0], net[1])


def bits(net):
    return [p.detach().view(torch.int32).tolist() for p in net.parameters()]


def test_a_bowl_rises_by_half_its_curvature_in_every_direction():
    net, (x, y) = two_weights()

    report = measure_sharpness(net, {"a": [lambda: (3 * (x * x + y * y)).sum()]}, rho=0.5)["a"]

    assert report.loss == 0.0
    assert report.random_rise == pytest.approx(3 * 0.25, rel=1e-5)  # 3 rho^2
    assert report.random_spread == pytest.approx(0.0, abs=1e-6)
    assert report.ascent_rise == 0.0  # no slope to climb along


def test_a_plane_rises_along_its_slope_and_on_average_nowhere():
    net, (x, y) = two_weights((1.0, 1.0))

    report = measure_sharpness(
        net, {"a": [lambda: (3 * x + 4 * y).sum()]}, rho=0.1, num_directions=400
    )["a"]

    assert report.loss == 7.0
    assert report.ascent_rise == pytest.approx(0.5, rel=1e-5)  # 5 rho
    assert abs(report.random_rise) < 4 * report.random_spread / 20
    assert report.random_spread == pytest.approx(0.5 / math.sqrt(2), rel=0.1)  # of a cosine


def test_domains_are_measured_each_by_itself_in_the_same_directions():
    net, (x, y) = two_weights()
    narrow, wide = (lambda: (5 * x * x).sum()), (lambda: (x * x).sum())

    both = measure_sharpness(net, {"narrow": [narrow], "wide": [wide]}, rho=1.0)
    alone = measure_sharpness(net, {"wide": [wide]}, rho=1.0)

    assert both["narrow"].random_rise == pytest.approx(5 * both["wide"].random_rise, rel=1e-5)
    assert both["wide"] == alone["wide"]


def test_a_domain_of_several_batches_has_their_mean_loss_and_gradient():
    net, (x, y) = two_weights((1.0, 0.0))

    report = measure_sharpness(net, {"a": [lambda: 2 * x.sum(), lambda: 6 * y.sum()]}, rho=1.0)["a"]

    assert report.loss == 1.0
    assert report.ascent_rise == pytest.approx(math.hypot(1, 3))  # slope (2, 6) / 2


def test_the_seed_makes_the_directions():
    net, (x, y) = two_weights()
    losses = {"a": [lambda: (x * x).sum()]}

    first = measure_sharpness(net, losses, 1.0, num_directions=3, seed=1)
    torch.rand(7)

    assert measure_sharpness(net, losses, 1.0, num_directions=3, seed=1) == first
    assert measure_sharpness(net, losses, 1.0, num_directions=3, seed=2) != first


def test_a_single_direction_has_no_spread():
    net, (x, y) = two_weights()

    report = measure_sharpness(net, {"a": [lambda: (x * x).sum()]}, 1.0, num_directions=1)["a"]

    assert report.random_spread == 0.0
    assert 0 < report.random_rise < 1


def test_only_the_given_weights_move():
    net, (x, y) = two_weights()
    losses = {"a": [lambda: (x * x + 100 * y * y).sum()]}

    given = measure_sharpness(net, losses, 0.5, parameters=[x])["a"]
    y.requires_grad_(False)
    learning = measure_sharpness(net, losses, 0.5)["a"]

    assert given.random_rise == learning.random_rise == pytest.approx(0.25)


def test_nothing_is_left_behind():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net[0].weight.grad = torch.ones_like(net[0].weight)
    images = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    numbers = torch.get_rng_state()

    measure_sharpness(net, {"a": [lambda: net(images).pow(4).mean()]}, rho=0.3)

    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net[0].weight.grad.unique().tolist() == [1.0]
    assert net[1].weight.grad is None
    assert torch.equal(torch.get_rng_state(), numbers)
    assert net[1].track_running_stats


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3, 4])
def test_weights_come_back_bit_by_bit_even_when_a_loss_fails(fails_at):
    # The loss itself, two directions, the gradient, the ascent.
    net, (x, y) = two_weights((0.1, 1e8))
    before, calls = bits(net), []

    def loss():
        calls.append(x.item())
        if len(calls) > fails_at:
            raise KeyboardInterrupt
        return (3 * x + y).sum()

    with pytest.raises(KeyboardInterrupt):
        measure_sharpness(net, {"a": [loss]}, rho=0.7, num_directions=2)

    assert len(calls) == fails_at + 1
    assert bits(net) == before


def test_a_loss_that_is_not_finite_away_from_the_weights_is_refused():
    net, (x, y) = two_weights((0.1, 0.1))

    with pytest.raises(DivergedError, match="loss of a is nan .*; use a smaller rho"):
        measure_sharpness(net, {"a": [lambda: (0.2 - x.abs() - y.abs()).sqrt().sum()]}, rho=5.0)
    assert [x.item(), y.item()] == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rho": 0.0}, ConfigError, "distance rho above zero .*, got rho 0.0 and 10 directions"),
        ({"rho": math.inf}, ConfigError, "got rho inf"),
        ({"num_directions": 0}, ConfigError, "got rho 1.0 and 0 directions"),
        ({"parameters": []}, ConfigError, r"none of those given needs gradients; call requires_gr"),
        ({"losses": {}}, DataError, "got none for any domain; leave"),
        ({"losses": {"a": [], "b": []}}, DataError, "got none for a, b; leave such domains out"),
    ],
)
def test_measurements_that_mean_nothing_are_refused(changes, error, message):
    net, (x, y) = two_weights()
    arguments = {"losses": {"a": [lambda: x.sum()]}, "rho": 1.0, **changes}

    with pytest.raises(error, match=message):
        measure_sharpness(net, **arguments)
