"""A sharpness-aware step as the loop takes it: domains, counts, precisions, norms, errors."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision.amp import MixedPrecision
from scripted_nets import prompts_on
from torch import nn

from edgeseg.distill.config import parse_config
from edgeseg.distill.flat_minima import SharpnessAware, domain_order
from edgeseg.distill.flat_step import (
    DomainBatch,
    sharpness_aware_of,
    split_by_domain,
    take_flat_step,
)
from edgeseg.distill.losses import Mean
from edgeseg.distill.stage_config import PromptStageConfig
from edgeseg.distill.stages import PromptStage
from edgeseg.distill.step import take_step
from edgeseg.distill.step_random import StepRandom
from edgeseg.errors import DataError, DivergedError
from edgeseg.modeling.registry import build_model

METHODS = ("gradual", "pooled", "per_domain")


class Bowls:
    """A stage with two weights; domain "a" minimises w0^2 an object, domain "b" w1^2.

    Remembers the weights, domains and positions of every visit.
    """

    name = "prompt"
    extra = None

    def __init__(self, start=(3.0, 4.0), max_grad_norm=1e9):
        self.weight = nn.Parameter(torch.tensor(start))
        self.student = nn.Identity()
        self.weights = {"mask": 0.5}
        self.config = SimpleNamespace(max_grad_norm=max_grad_norm)
        self.visits = []

    def losses(self, batch, random):
        self.visits.append((self.weight.tolist(), batch.domains, random._positions))
        if not sum(batch.counts):
            return {}
        totals = [
            count * self.of_domain(domain)
            for domain, count in zip(batch.domains, batch.counts, strict=True)
        ]
        return {"mask": Mean(sum(totals), torch.tensor(float(sum(batch.counts))))}

    def of_domain(self, domain):
        return self.weight["ab".index(domain)].square()


def batch_of(domains="abab", counts=(1, 3, 1, 3)):
    total = sum(counts)
    batch = prompts_on(
        [(30, 40)] * len(counts), counts, [True] * total, [[1, 1, 9, 9]] * total, [[5, 5]] * total
    )
    return replace(batch, domains=tuple(domains))


@pytest.fixture(scope="module")
def fabric():
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return fabric


def take(fabric, stage, method="gradual", rho=1.0, batch=None, step=0, stop=False, **options):
    optimizer = torch.optim.SGD([stage.weight], lr=1.0)
    aware = SharpnessAware(optimizer, stage.student, rho, method, **options)
    batch = batch_of() if batch is None else batch
    random = StepRandom(0, range(8, 8 + len(batch.counts)), batch.counts)
    return take_flat_step(fabric, stage, batch, aware, random, step, stop)


# Arithmetic.


def test_gradual_climbs_along_domains_and_descends_along_their_mean(fabric):
    stage = Bowls()

    report = take(fabric, stage, fixed_order=True, rho=0.5)

    places = [weights for weights, _, _ in stage.visits]
    assert places == [[3.0, 4.0], [3.5, 4.0], [3.5, 4.5]]
    # 0.5 w^2 an object: slopes 3 and 3.5 along w0, 4 along w1, over three gradients.
    assert stage.weight.tolist() == pytest.approx([3 - 6.5 / 3, 4 - 4 / 3])
    assert report.grad_norm == pytest.approx(math.hypot(6.5 / 3, 4 / 3))


def test_per_domain_weighs_domains_equally_whatever_their_numbers_of_objects(fabric):
    stage = Bowls()

    take(fabric, stage, "per_domain", rho=0.5)

    # Slopes 3.5 and 4.5, each of a mean over the domain's own objects; half of each.
    assert stage.weight.tolist() == pytest.approx([3 - 3.5 / 2, 4 - 4.5 / 2])


def test_pooled_weighs_objects_equally_as_plain_steps_do(fabric):
    stage, plain = Bowls(), Bowls()

    take(fabric, stage, "pooled", rho=0.0)
    optimizer = torch.optim.SGD([plain.weight], lr=1.0)
    take_step(fabric, plain, batch_of(), optimizer, StepRandom(0, range(8, 12), (1, 3, 1, 3)))

    assert [domains for _, domains, _ in stage.visits] == [("a", "b", "a", "b")] * 2
    # 2 of 8 objects are of domain a, 6 of b: slopes 3 / 4 and 4 * 3 / 4.
    assert stage.weight.tolist() == plain.weight.tolist() == [2.25, 1.0]


@pytest.mark.parametrize(
    ("method", "num_passes"), [("gradual", 3), ("pooled", 2), ("per_domain", 4)]
)
def test_every_pass_sees_one_domain_with_the_random_numbers_of_its_images(
    fabric, method, num_passes
):
    stage = Bowls()

    take(fabric, stage, method)

    seen = {(domains, positions) for _, domains, positions in stage.visits}
    assert len(stage.visits) == num_passes
    if method == "pooled":
        assert seen == {(("a", "b", "a", "b"), (8, 9, 10, 11))}
    else:
        assert seen == {(("a", "a"), (8, 10)), (("b", "b"), (9, 11))}


def test_the_step_gives_the_order(fabric):
    for step in range(8):
        stage = Bowls()
        take(fabric, stage, step=step, seed=5)
        visited = ["ab".index(domains[0]) for _, domains, _ in stage.visits]
        assert visited[:2] == domain_order(2, 5, step)


def test_gradients_are_clipped_after_they_are_gathered(fabric):
    stage = Bowls(max_grad_norm=0.5)

    report = take(fabric, stage, "per_domain", rho=0.0)

    assert report.grad_norm == 2.5  # (3, 4) / 2
    assert stage.weight.tolist() == pytest.approx([3 - 0.3, 4 - 0.4], abs=1e-5)


# What is reported.


def test_losses_are_means_over_all_objects_at_the_unmoved_weights(fabric):
    for method in ("pooled", "per_domain"):
        report = take(fabric, Bowls(), method)
        assert report.losses["mask"] == (2 * 9 + 6 * 16) / 8
        assert report.losses["total"] == 0.5 * report.losses["mask"]


def test_sharpness_is_the_rise_of_the_loss_from_first_to_second_visits(fabric):
    per_domain = take(fabric, Bowls(), "per_domain", rho=1.0)
    gradual = take(fabric, Bowls(), "gradual", rho=1.0, fixed_order=True)

    # Half of 4^2 - 3^2 and of 5^2 - 4^2; gradual comes back to the first domain alone.
    assert per_domain.losses["sharpness"] == (3.5 + 4.5) / 2
    assert gradual.losses["sharpness"] == 3.5


def test_a_wish_to_stop_is_reported(fabric):
    assert take(fabric, Bowls(), stop=True).stop
    assert not take(fabric, Bowls(), stop=False).stop


# Domains without objects.


@pytest.mark.parametrize("method", ["gradual", "per_domain"])
def test_a_domain_without_objects_has_no_say(fabric, method):
    stage = Bowls()

    take(fabric, stage, method, rho=0.0, batch=batch_of(counts=(0, 1, 0, 2)))

    assert stage.weight.tolist() == [3.0, 0.0]  # w1 - slope of 0.5 w1^2, not halved


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_without_objects_changes_nothing(fabric, method):
    stage = Bowls()

    report = take(fabric, stage, method, batch=batch_of(counts=(0, 0, 0, 0)), stop=True)

    assert stage.weight.tolist() == [3.0, 4.0]
    assert report.losses == {"mask": 0.0, "total": 0.0, "sharpness": 0.0}
    assert report.grad_norm == 0.0
    assert report.stop


# Mixed batches.


def test_a_sub_batch_of_several_domains_is_refused():
    batch = batch_of()

    with pytest.raises(DataError, match="a batch of one domain is wanted, got 2 of a, 2 of b"):
        DomainBatch(batch, StepRandom(0, range(4), batch.counts))


@pytest.mark.parametrize("method", ["gradual", "per_domain"])
def test_a_batch_that_domains_do_not_share_evenly_is_refused(fabric, method):
    with pytest.raises(DataError, match=r"got 3 of a, 1 of b; draw them with data.balance_dom"):
        take(fabric, Bowls(), method, batch=batch_of("abaa"))


def test_a_batch_is_split_by_domain_with_its_random_numbers():
    batch = batch_of("baba")

    first, second = split_by_domain(batch, StepRandom(0, range(4), batch.counts, progress=0.25))

    assert (first.batch.domains, first.batch.names) == (("a", "a"), ("i1", "i3"))
    assert (second.batch.domains, second.batch.names) == (("b", "b"), ("i0", "i2"))
    assert first.random.counts == first.batch.counts == (3, 3)
    assert first.random.progress == 0.25


# Precision.


def scaled_fabric(fabric, scale):
    """Return a process whose precision scales losses, as fp16 does."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    return SimpleNamespace(
        autocast=fabric.autocast,
        device=fabric.device,
        world_size=1,
        strategy=SimpleNamespace(precision=precision),
        backward=lambda loss: precision.backward(loss, None),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1024.0, 2.0**-10])
def test_a_scaled_loss_gives_the_same_step(fabric, method, scale):
    plain, scaled = Bowls(), Bowls()

    expected = take(fabric, plain, method)
    report = take(scaled_fabric(fabric, scale), scaled, method)

    assert [place for place, *_ in scaled.visits] == [place for place, *_ in plain.visits]
    assert torch.equal(scaled.weight, plain.weight)
    assert report == expected


@pytest.mark.parametrize("method", METHODS)
def test_an_overflow_under_loss_scaling_skips_the_step_and_lowers_the_scale(fabric, method):
    stage, process = Bowls((3.0, 1e9)), scaled_fabric(fabric, 1e30)

    take(process, stage, method)

    assert stage.weight.tolist() == [3.0, 1e9]
    assert process.strategy.precision.scaler.get_scale() == pytest.approx(0.5e30)


def test_bfloat16_takes_its_second_gradient_at_the_moved_weights():
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    fabric.launch()
    stage = Bowls((1.0, 1.0))
    stage.of_domain = lambda domain: (
        nn.functional.linear(torch.ones(1, 1), stage.weight["ab".index(domain)].reshape(1, 1))
        .float()
        .square()
        .sum()
    )

    take(fabric, stage, "per_domain", rho=1.0)

    assert stage.weight.tolist() == [0.0, 0.0]  # 1 - slope 2 of 0.5 w^2 at 2, halved


# Divergence.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_diverges_away_from_the_weights_leaves_them_as_they_were(fabric, method, what):
    stage = Bowls((0.1, 0.1))

    def root(domain):  # fine at 0.1; beyond 0.3 no number, or zero with a slope that is none
        left = 0.3 - stage.weight["ab".index(domain)]
        return -(left if what == "loss" else left * (left > 0).detach()).sqrt()

    stage.of_domain = root

    with pytest.raises(DivergedError, match=r"lower prompt_stage.* or lower flat_minima.rho, whi"):
        take(fabric, stage, method, rho=1.0)

    assert torch.equal(stage.weight, torch.tensor([0.1, 0.1]))


# On a network.


def small_stage(learning_norms):
    torch.manual_seed(0)
    student = build_model("edgeseg_tiny").train(learning_norms)
    student.prompt_encoder.requires_grad_(False)
    config = PromptStageConfig(
        steps=1, max_grad_norm=5.0, targets={"teacher": 0, "ground_truth": 1}, refinement_rounds=0
    )
    return PromptStage(student, None, config)


def learning(stage):
    return [p for p in stage.student.parameters() if p.requires_grad]


def small_batch():
    generator = torch.Generator().manual_seed(3)
    batch = batch_of(counts=(1, 2, 1, 2))
    return replace(
        batch,
        student_images=torch.randn(4, 3, 64, 64, generator=generator),
        masks=torch.rand(6, 16, 16, generator=generator) > 0.5,
    )


def step_on_network(fabric, stage, method=None, rho=0.0):
    optimizer = torch.optim.AdamW(learning(stage), lr=1e-3)
    batch = small_batch()
    random = StepRandom(0, range(4), batch.counts)
    if method is None:
        return take_step(fabric, stage, batch, optimizer, random)
    aware = SharpnessAware(optimizer, stage.student, rho, method)
    return take_flat_step(fabric, stage, batch, aware, random, 0)


@pytest.mark.parametrize("learning_norms", [False, True])
def test_pooled_at_distance_zero_is_the_plain_step_bit_by_bit_statistics_included(
    fabric, learning_norms
):
    plain, flat = small_stage(learning_norms), small_stage(learning_norms)

    expected = step_on_network(fabric, plain)
    report = step_on_network(fabric, flat, "pooled")

    assert report.losses == expected.losses | {"sharpness": 0.0}
    assert report.grad_norm == expected.grad_norm
    wanted = plain.student.state_dict()
    assert all(torch.equal(t, wanted[name]) for name, t in flat.student.state_dict().items())


def buffers(stage):
    return {name: buffer.clone() for name, buffer in stage.student.named_buffers()}


@pytest.mark.parametrize("method", METHODS)
def test_norms_that_learn_see_the_joint_batch_once_and_at_the_unmoved_weights(fabric, method):
    plain, flat = small_stage(True), small_stage(True)

    step_on_network(fabric, plain)
    step_on_network(fabric, flat, method, rho=0.5)

    wanted = buffers(plain)
    assert all(torch.equal(buffer, wanted[name]) for name, buffer in buffers(flat).items())


@pytest.mark.parametrize("method", METHODS)
def test_frozen_norms_stay_frozen(fabric, method):
    stage = small_stage(False)
    before = buffers(stage)

    step_on_network(fabric, stage, method, rho=0.5)

    assert all(torch.equal(buffer, before[name]) for name, buffer in buffers(stage).items())


# Settings.


def parse(**flat):
    return parse_config(
        {
            "seed": 9,
            "student": {"model": "edgeseg_tiny"},
            "data": {"train": [{"format": "sa1b", "path": "photos"}], "balance_domains": True},
            "prompt_stage": {"steps": 1, "targets": {"teacher": 0, "ground_truth": 1}},
            "flat_minima": flat,
        },
        "test",
    )


def test_settings_reach_the_optimiser():
    net = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)

    aware = sharpness_aware_of(parse(rho=0.2, drop_first=True, fixed_order=True), optimizer, net)
    other = sharpness_aware_of(parse(method="per_domain"), optimizer, net)

    assert (aware.optimizer, aware.net, aware.seed) == (optimizer, net, 9)
    assert (aware.method, aware.rho) == ("gradual", 0.2)
    assert (aware.drop_first, aware.fixed_order) == (True, True)
    assert (other.method, other.rho) == ("per_domain", 0.05)
    assert (other.drop_first, other.fixed_order) == (False, False)
    plain = parse().model_copy(update={"flat_minima": None})
    assert sharpness_aware_of(plain, optimizer, net) is None
