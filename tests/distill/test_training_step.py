from types import SimpleNamespace

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision.amp import MixedPrecision
from torch import nn

from edgeseg.distill.losses import Mean
from edgeseg.distill.step import take_step
from edgeseg.errors import DivergedError


class Slope:
    """A stage whose loss is a number times its only weight."""

    name = "prompt"
    extra = None

    def __init__(self, slope=3.0, count=2.0, max_grad_norm=100.0, parts=None):
        self.weight = nn.Parameter(torch.tensor([1.0]))
        self.weights = {"mask": 2.0, "score": 0.5}
        self.config = SimpleNamespace(max_grad_norm=max_grad_norm)
        self.slope, self.count = slope, torch.tensor(count)
        self.parts = parts

    def losses(self, batch, random):
        if self.parts is not None:
            return self.parts
        total = self.slope * self.weight.sum()
        return {"mask": Mean(total, self.count), "score": Mean(4 * total, 2 * self.count)}


@pytest.fixture(scope="module")
def fabric():
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return fabric


def step(fabric, stage, stop=False, learning_rate=0.1):
    optimizer = torch.optim.SGD([stage.weight], lr=learning_rate)
    return take_step(fabric, stage, None, optimizer, None, stop)


def test_step_descends_the_weighted_means(fabric):
    stage = Slope()

    report = step(fabric, stage)

    # mask 3 w / 2, score 12 w / 4; the loss is 2 * 1.5 w + 0.5 * 3 w = 4.5 w.
    assert report.losses == {"mask": 1.5, "score": 3.0, "total": 4.5}
    assert report.grad_norm == 4.5
    assert stage.weight.item() == pytest.approx(1 - 0.1 * 4.5)


def test_gradient_is_clipped_and_its_norm_before_that_is_reported(fabric):
    stage = Slope(max_grad_norm=0.9)

    report = step(fabric, stage)

    assert report.grad_norm == 4.5
    assert stage.weight.item() == pytest.approx(1 - 0.1 * 0.9, abs=1e-6)


def test_gradient_of_the_step_before_is_forgotten(fabric):
    stage = Slope()
    stage.weight.grad = torch.tensor([1000.0])

    assert step(fabric, stage).grad_norm == 4.5


def test_a_wish_to_stop_is_reported(fabric):
    assert step(fabric, Slope(), stop=True).stop
    assert not step(fabric, Slope(), stop=False).stop


@pytest.mark.parametrize("slope", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(fabric, slope):
    stage = Slope(slope)

    with pytest.raises(DivergedError, match=r"prompt loss is .*; lower prompt_stage.learning_rate"):
        step(fabric, stage)

    assert stage.weight.item() == 1.0


def test_a_diverged_part_without_weight_stops_as_well(fabric):
    stage = Slope()
    stage.weights = {"mask": 1.0, "score": 0.0}
    nan = torch.tensor(float("nan"))
    stage.parts = {"mask": Mean(stage.weight.sum(), stage.count), "score": Mean(nan, stage.count)}

    with pytest.raises(DivergedError, match="prompt loss is nan"):
        step(fabric, stage)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_touched(fabric):
    stage = Slope()
    root = (stage.weight - 1).sqrt().sum()  # zero, with an infinite slope
    stage.parts = {"mask": Mean(root, stage.count)}

    with pytest.raises(DivergedError, match="gradient of the prompt loss is not finite; lower"):
        step(fabric, stage)

    assert stage.weight.item() == 1.0


def test_a_batch_without_prompts_changes_nothing(fabric):
    stage = Slope(parts={})
    optimizer = torch.optim.AdamW([stage.weight], lr=0.1, weight_decay=0.5)
    stage.parts = None
    take_step(fabric, stage, None, optimizer, None)  # so that there is momentum
    before = stage.weight.item()
    stage.parts = {}

    report = take_step(fabric, stage, None, optimizer, None, stop=True)

    assert stage.weight.item() == before
    assert report.losses == {"mask": 0.0, "score": 0.0, "total": 0.0}
    assert report.grad_norm == 0.0
    assert report.stop


def test_a_part_that_is_absent_counts_as_zero(fabric):
    stage = Slope()
    stage.parts = {"score": Mean(6 * stage.weight.sum(), stage.count)}

    report = step(fabric, stage)

    assert report.losses == {"mask": 0.0, "score": 3.0, "total": 1.5}
    assert report.grad_norm == 1.5


def scaled_fabric(fabric, scale):
    """Return a process whose precision scales losses, as fp16 does."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    precision = MixedPrecision("16-mixed", "cpu", scaler)

    def backward(loss):
        precision.backward(loss, None)

    return SimpleNamespace(
        autocast=fabric.autocast,
        device=fabric.device,
        world_size=1,
        strategy=SimpleNamespace(precision=precision),
        backward=backward,
    )


def test_a_scaled_loss_gives_the_same_step(fabric):
    stage = Slope()

    report = step(scaled_fabric(fabric, 1024.0), stage)

    assert report.grad_norm == 4.5
    assert stage.weight.item() == pytest.approx(1 - 0.1 * 4.5)


def test_an_overflow_under_loss_scaling_skips_the_step_and_lowers_the_scale(fabric):
    stage, process = Slope(slope=1e20), scaled_fabric(fabric, 1e30)

    step(process, stage)

    assert stage.weight.item() == 1.0
    assert process.strategy.precision.scaler.get_scale() == pytest.approx(0.5e30)


def test_a_process_without_prompts_of_its_own_keeps_the_common_scale(fabric, monkeypatch):
    # Another process has 2 prompts and a gradient of 8 after scaling by 4; here there are none.
    stage, process = Slope(parts={}), scaled_fabric(fabric, 4.0)
    others = torch.tensor([6.0, 0.0, 2.0, 0.0, 0.0])  # totals of mask and score, counts, stop
    monkeypatch.setattr("edgeseg.distill.step.sum_over_ranks", lambda _, local: local + others)

    def receive(_, parameters):
        parameters[0].grad = torch.tensor([8.0])

    monkeypatch.setattr("edgeseg.distill.step.sum_gradients", receive)

    report = step(process, stage)

    assert report.losses["mask"] == 3.0
    assert report.grad_norm == 2.0
    assert stage.weight.item() == pytest.approx(1 - 0.1 * 2.0)
