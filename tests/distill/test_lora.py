import copy

import pytest
import torch
from scripted_nets import prompts_on, ramps
from torch import nn

from edgeseg.distill.lora import LowRankUpdate, add_lora, merge_lora
from edgeseg.distill.stage_config import LoraConfig
from edgeseg.modeling.checkpoints import load_strict
from edgeseg.modeling.prompt_batch import box_or_point_prompts
from edgeseg.modeling.registry import build_model

BOTH = LoraConfig(parts=("prompt_encoder", "mask_decoder"), rank=2, alpha=4.0)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build_model("edgeseg_tiny").eval()


def answer(net):
    batch = prompts_on([(64, 64)], [2], [True, False], [[4, 4, 30, 40]] * 2, [[9, 20]] * 2)
    prompts = box_or_point_prompts(batch.boxes_xyxy, batch.points_xy, batch.use_box, batch.counts)
    with torch.no_grad():
        masks = torch.linspace(-9, 9, 16).expand(2, 1, 16, 16)
        return net(ramps(1, 64), prompts.with_masks(masks)).low_res_logits


def move_updates(net):
    """Give every low-rank update a value, as training would."""
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, LowRankUpdate):
            nn.init.normal_(module.up, std=0.1)


def test_update_is_the_scaled_product():
    update = LowRankUpdate(out_features=2, in_features=3, rank=1, alpha=4.0)
    update.down.data = torch.tensor([[1.0, 2.0, 3.0]])
    update.up.data = torch.tensor([[1.0], [-1.0]])

    changed = update(torch.ones(2, 3))

    assert changed.tolist() == [[5.0, 9.0, 13.0], [-3.0, -7.0, -11.0]]  # 1 +- 4 * (1, 2, 3)


def test_update_of_rank_two_is_scaled_by_alpha_over_rank():
    update = LowRankUpdate(2, 2, rank=2, alpha=1.0)
    update.down.data = torch.eye(2)
    update.up.data = torch.eye(2)

    assert update(torch.zeros(2, 2)).tolist() == [[0.5, 0.0], [0.0, 0.5]]


def test_an_update_changes_nothing_at_first(net):
    before = answer(net)

    add_lora(net, BOTH)

    assert torch.equal(answer(net), before)


@pytest.mark.parametrize("part", ["prompt_encoder", "mask_decoder"])
def test_every_linear_layer_and_convolution_of_a_part_gets_an_update(net, part):
    layers = [m for m in getattr(net, part).modules() if isinstance(m, nn.Linear | nn.Conv2d)]

    assert add_lora(net, LoraConfig(parts=(part,))) == len(layers) > 0
    updates = [name for name, m in net.named_modules() if isinstance(m, LowRankUpdate)]
    assert len(updates) == len(layers)
    assert all(name.startswith(part) for name in updates)


def test_the_updated_part_is_frozen_but_for_its_updates(net):
    add_lora(net, BOTH)

    learning = {name for name, p in net.prompt_encoder.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.endswith((".down", ".up")) for name in learning)


def test_merging_keeps_the_answers_and_leaves_a_plain_network(net):
    plain_names = list(net.state_dict())
    before = answer(net)
    add_lora(net, BOTH)
    move_updates(net)
    updated = answer(net)

    merge_lora(net)

    assert not torch.equal(updated, before)
    assert torch.equal(answer(net), updated)
    assert sorted(net.state_dict()) == sorted(plain_names)
    fresh = build_model("edgeseg_tiny").eval()
    load_strict(fresh, copy.deepcopy(net.state_dict()), "merged")
    assert torch.equal(answer(fresh), updated)


def test_merging_a_network_without_updates_does_nothing(net):
    before = answer(net)

    merge_lora(net)

    assert torch.equal(answer(net), before)
