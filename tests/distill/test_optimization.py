import math

import pytest
import torch
from torch import nn

from edgeseg.distill.optimization import (
    WeightAverage,
    build_optimizer,
    freeze_norms,
    learning_rate_at,
    set_learning_rate,
)
from edgeseg.distill.stage_config import ScheduleConfig
from edgeseg.modeling.registry import build_model


def schedule(**settings):
    defaults = {
        "steps": 11,
        "batch_size": 2,
        "learning_rate": 1.0,
        "final_learning_rate": 0.1,
        "max_grad_norm": 1.0,
    }
    return ScheduleConfig(**defaults | settings)


def test_learning_rate_warms_up_and_follows_a_cosine_to_the_final_rate():
    rates = [learning_rate_at(step, 11, schedule(warmup_steps=4)) for step in range(11)]

    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    # Six steps from 4 to 10: a cosine from 1 to 0.1, half way at step 7.
    assert rates[7] == pytest.approx(0.55)
    assert rates[5] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 6)) / 2)
    assert rates[10] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_learning_rate_without_warm_up_starts_at_its_height():
    rates = [learning_rate_at(step, 3, schedule()) for step in range(3)]

    assert rates == [1.0, pytest.approx(0.55), pytest.approx(0.1)]


def test_a_single_step_has_the_full_rate():
    assert learning_rate_at(0, 1, schedule()) == 1.0


def test_learning_rate_stays_within_bounds_when_warm_up_is_the_whole_stage():
    rates = [learning_rate_at(step, 4, schedule(warmup_steps=4)) for step in range(4)]

    assert rates == [0.25, 0.5, 0.75, 1.0]


def test_every_group_learns_at_its_factor():
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "factor": f} for f in (1.0, 0.25)])

    set_learning_rate(optimizer, 0.8)

    assert [group["lr"] for group in optimizer.param_groups] == [0.8, 0.2]


def groups_by_parameter(net, optimizer):
    names = {parameter: name for name, parameter in net.named_parameters()}
    return {
        names[parameter]: (group["factor"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_matrices_and_kernels_decay_and_norms_biases_and_embeddings_do_not():
    net = build_model("edgeseg_tiny")

    found = groups_by_parameter(net, build_optimizer(net, schedule(weight_decay=0.3)))

    assert found.keys() == {name for name, _ in net.named_parameters()}
    decays = {name: decay for name, (_, decay) in found.items()}
    assert decays["mask_decoder.transformer.layers.0.mlp.lin1.weight"] == 0.3
    assert decays["mask_decoder.output_upscaling.0.weight"] == 0.3
    assert decays["image_encoder.backbone.conv_stem.weight"] == 0.3
    assert decays["mask_decoder.transformer.layers.0.mlp.lin1.bias"] == 0.0
    assert decays["mask_decoder.transformer.layers.0.norm1.weight"] == 0.0
    assert decays["image_encoder.backbone.bn1.weight"] == 0.0
    assert decays["mask_decoder.iou_token.weight"] == 0.0
    assert decays["prompt_encoder.point_embeddings.0.weight"] == 0.0


@pytest.mark.parametrize(
    ("model", "backbone"),
    [("edgeseg_tiny", "image_encoder.backbone."), ("edgesam", "image_encoder.features.")],
)
def test_the_backbone_has_its_own_learning_rate_factor(model, backbone):
    with torch.device("meta"):
        net = build_model(model)

    settings = schedule(backbone_learning_rate_factor=0.1)
    found = groups_by_parameter(net, build_optimizer(net, settings))

    slow = {name for name, (factor, _) in found.items() if factor == 0.1}
    assert slow == {name for name in found if name.startswith(backbone)}
    assert slow


def test_only_what_learns_is_optimised_and_extra_layers_are():
    net = build_model("edgeseg_tiny").requires_grad_(False)
    net.mask_decoder.iou_token.requires_grad_(True)
    extra = nn.Conv2d(2, 3, 1)

    optimizer = build_optimizer(net, schedule(weight_decay=0.3), extra.parameters())

    optimised = {p for group in optimizer.param_groups for p in group["params"]}
    assert optimised == {net.mask_decoder.iou_token.weight, extra.weight, extra.bias}


def test_frozen_norms_keep_their_statistics_and_let_the_rest_train():
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(), nn.SyncBatchNorm(1), nn.LayerNorm(1))
    net.train()

    freeze_norms(net)

    assert [layer.training for layer in net] == [False, True, False, True]


class Two(nn.Module):
    """A weight and a counter."""

    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("count", torch.tensor(0))


def test_weight_average_by_hand():
    net = Two(0.0)
    average = WeightAverage(net, decay=0.15)
    net.weight.data.fill_(1.0)
    net.count.fill_(7)

    average.update(net)
    first = average.state["weight"].item()
    average.update(net)

    # The decay starts at (1 + 0) / (10 + 0) = 0.1; then (1 + 1) / (10 + 1) = 0.18 exceeds 0.15.
    assert first == pytest.approx(0.9)
    assert average.state["weight"].item() == pytest.approx(0.15 * 0.9 + 0.85 * 1.0)
    assert average.state["count"].item() == 7  # numbers that count are taken over
    assert average.num_updates == 2


def test_weight_average_leaves_alone_what_does_not_move():
    torch.manual_seed(0)
    net = nn.Linear(7, 5)
    average = WeightAverage(net, decay=0.3)
    before = {name: tensor.clone() for name, tensor in average.state.items()}

    for _ in range(9):
        average.update(net)

    assert all(torch.equal(average.state[name], tensor) for name, tensor in before.items())


def test_weight_average_does_not_change_the_network():
    net = Two(0.0)
    average = WeightAverage(net, decay=0.5)
    net.weight.data.fill_(4.0)

    average.update(net)

    assert net.weight.item() == 4.0


def test_a_loaded_average_continues_where_it_was():
    net = Two(1.0)
    whole, resumed = WeightAverage(net, 0.9), WeightAverage(Two(5.0), 0.9)
    for value in (2.0, 3.0):
        net.weight.data.fill_(value)
        whole.update(net)

    resumed.load(whole.state, whole.num_updates)
    net.weight.data.fill_(9.0)
    for average in (whole, resumed):
        average.update(net)

    assert torch.equal(resumed.state["weight"], whole.state["weight"])
    assert resumed.num_updates == 3
