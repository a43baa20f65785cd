"""Packages with one fault each; the proof must find it in what the saved file computes.

The other half of each pair is computed by PyTorch, so that nothing else can differ.
"""

import numpy as np
import pytest
import torch
from coreml_networks import FACTS, SIDE, plain_net, prove, target, torch_pair
from torch import nn

from edgeseg.exporter.coreml_answers import MilGraph
from edgeseg.exporter.coreml_files import CoreMLPart, coreml_parts, export_coreml
from edgeseg.exporter.coreml_geometry import SlotReading
from edgeseg.exporter.proof import PairAnswerer
from edgeseg.exporter.targets import ToleranceConfig
from edgeseg.prompts import Prompt
from edgeseg.runtime.segmenter import Segmenter

SETTINGS = target(num_prompts=2, precision="float32")  # whatever differs is a fault
TOLERANCE = ToleranceConfig(max_logit_difference=1e-3, min_mask_iou=0.99)
IMAGE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)


class SwappedAxes(nn.Module):
    """A decoder that takes y before x."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, embedding, points_xy, labels, mask_logits, has_mask):
        return self.inner(embedding, points_xy.flip(2), labels, mask_logits, has_mask)


class WithoutPaddingPoint(SlotReading):
    """A decoder that forgets the point that SAM's predictor adds."""

    def forward(self, point_labels):
        slots = super().forward(point_labels)
        kinds = torch.cat([slots.kinds[..., :-1], 0 * slots.kinds[..., -1:]], dim=3)
        return slots._replace(kinds=kinds, absent=1 - kinds.sum(dim=1, keepdim=True))


def swap_axes(decoder):
    return SwappedAxes(decoder)


def drop_padding_point(decoder):
    decoder.slots = WithoutPaddingPoint()
    return decoder


def shift_mean(encoder):
    encoder.normalisation.padding[0, 2] += 2  # the mean of blue, by 2 of 255 steps
    return encoder


def transpose_weight(encoder):
    mix = encoder.net.image_encoder.mix  # 32 channels to 32
    mix.weight = nn.Parameter(mix.weight.transpose(0, 1).contiguous(), requires_grad=False)
    return encoder


def segmenter_with(role, mutate, folder):
    """Export one half with a fault, and put it together with PyTorch's other half."""
    net, path = plain_net(), folder / f"{role}.mlpackage"
    parts = {part.role: part for part in coreml_parts(net, SETTINGS)}
    faulty = CoreMLPart(role, mutate(parts[role].graph), parts[role].spec)
    export_coreml(faulty, path, SETTINGS, FACTS)
    return Segmenter(torch_pair(net, SETTINGS, **{role: MilGraph(path)}))


def logits_of(segmenter, **prompt):
    (logits,), _ = segmenter.predict_logits(segmenter.encode(IMAGE), [Prompt(**prompt)])
    return logits


def proof_of(segmenter):
    answerer = PairAnswerer(segmenter)
    return prove(plain_net(), answerer, ("image_embedding",), tolerance=TOLERANCE)


def assert_proof_fails(segmenter):
    report = proof_of(segmenter)

    assert any(failure.startswith("low_res_logits") for failure in report.failures)


@pytest.fixture(scope="module")
def sound():
    return Segmenter(torch_pair(plain_net(), SETTINGS))


def test_swapped_axes_are_found(sound, tmp_path):
    swapped = segmenter_with("decoder", swap_axes, tmp_path)

    assert_proof_fails(swapped)
    on_diagonal = {"points_xy": [(20, 20)], "point_labels": [1]}  # where the fault cannot show
    same = logits_of(sound, **on_diagonal)
    np.testing.assert_allclose(logits_of(swapped, **on_diagonal), same, atol=1e-3)


def test_dropped_padding_point_is_found(sound, tmp_path):
    without = segmenter_with("decoder", drop_padding_point, tmp_path)

    assert_proof_fails(without)
    box = {"box_xyxy": (5, 20, 50, 40)}  # SAM adds no padding point to a box
    np.testing.assert_allclose(logits_of(without, **box), logits_of(sound, **box), atol=1e-3)


def test_shifted_mean_is_found(tmp_path):
    assert_proof_fails(segmenter_with("encoder", shift_mean, tmp_path))


def test_transposed_weight_is_found(tmp_path):
    assert_proof_fails(segmenter_with("encoder", transpose_weight, tmp_path))
