import math

import pytest
import torch
from random_networks import randomised

from edgeseg.errors import WeightsError
from edgeseg.modeling import ImageFeatures, build_model
from edgeseg.modeling.checkpoints import load_model, save_weights
from edgeseg.modeling.proposal_head import (
    ProposalHead,
    cells_at,
    level_cells,
    read_rows,
)
from edgeseg.modeling.reparam import fuse
from edgeseg.signature import ModelShape


def features(batch=1, side=4, width=32):
    generator = torch.Generator().manual_seed(batch)
    embedding = torch.randn(batch, width, side, side, generator=generator)
    stride8 = torch.randn(batch, width // 4, 2 * side, 2 * side, generator=generator)
    return embedding, stride8


def test_cells_are_counted_row_by_row_from_the_finest_level():
    centers_xy, strides = level_cells(64)

    assert centers_xy[:3].tolist() == [[4, 4], [12, 4], [20, 4]]  # 8 pixels a cell, x first
    assert centers_xy[8:10].tolist() == [[4, 12], [12, 12]]
    assert centers_xy[64:69].tolist() == [[8, 8], [24, 8], [40, 8], [56, 8], [8, 24]]  # then 16
    assert centers_xy[80:].tolist() == [[16, 16], [48, 16], [16, 48], [48, 48], [32, 32]]
    assert strides.flatten().tolist() == [8] * 64 + [16] * 16 + [32] * 4 + [64]


def test_edges_lie_at_their_distances_from_the_centre_in_strides():
    rows = torch.tensor([[[0, math.log(2), math.log(0.5), math.log(3), 0, math.log(3), 0.5]]])

    output = read_rows(rows, torch.tensor([[20.0, 12.0]]), torch.tensor([[8.0]]))

    # Left 8, top 16, right 4, bottom 24 pixels away; the chance is 1/2, the IoU 3/4.
    torch.testing.assert_close(output.boxes_xyxy, torch.tensor([[[12.0, -4.0, 24.0, 36.0]]]))
    assert output.scores.item() == pytest.approx(0.5 * 0.75)


def test_a_click_belongs_to_one_cell_of_each_level():
    cells = cells_at(torch.tensor([[20.0, 9.0], [0.0, 63.9], [70.0, -1.0]]), 64)

    # Levels of 8, 4, 2 and 1 cells a side begin at 0, 64, 80 and 84.
    assert cells.tolist() == [
        [1 * 8 + 2, 64 + 0 * 4 + 1, 80, 84],
        [7 * 8 + 0, 64 + 3 * 4 + 0, 82, 84],
        [7, 67, 81, 84],
    ]
    centers_xy, strides = level_cells(64)
    away = (centers_xy[cells[0]] - torch.tensor([20.0, 9.0])).abs().amax(dim=1)
    assert (away <= strides[cells[0], 0] / 2).all()


def test_boxes_stay_finite_in_half_precision():
    rows = torch.full((1, 1, 7), 60.0)

    output = read_rows(rows, torch.tensor([[32.0, 32.0]]), torch.tensor([[64.0]]))

    assert torch.isfinite(output.boxes_xyxy.half()).all()


def test_a_cell_answers_for_its_own_place():
    """A change of the features far away from a cell changes its answer less than one at it."""
    head = randomised(ProposalHead(32, 8)).eval()
    embedding, stride8 = features(side=16)
    changed = stride8.clone()
    changed[:, :, 3, 28] += 5.0  # row 3, column 28 of the finest level

    before, after = head(embedding, stride8), head(embedding, changed)

    difference = (after.center_logits - before.center_logits)[0].abs()[: 32 * 32]
    assert divmod(int(difference.argmax()), 32) == pytest.approx((3, 28), abs=2)
    centers_xy, _ = level_cells(256)
    assert centers_xy[3 * 32 + 28].tolist() == [28.5 * 8, 3.5 * 8]


def test_there_is_one_proposal_a_cell_and_few_parameters():
    head = ProposalHead(256, 64)
    with torch.inference_mode():
        output = head.eval()(*features(2, side=8, width=256))

    expected = ModelShape(128, 256, True).num_proposals
    assert output.boxes_xyxy.shape == (2, expected, 4)
    assert output.center_logits.shape == output.iou_logits.shape == (2, expected)
    assert sum(parameter.numel() for parameter in head.parameters()) < 500_000


def test_images_of_a_batch_do_not_touch_each_other():
    head = randomised(ProposalHead(32, 8)).eval()
    embedding, stride8 = features(batch=2)

    together = head(embedding, stride8)
    alone = head(embedding[1:], stride8[1:])

    torch.testing.assert_close(together.boxes_xyxy[1:], alone.boxes_xyxy)
    torch.testing.assert_close(together.scores[1:], alone.scores)


def test_folded_head_gives_the_same_answers():
    head = randomised(ProposalHead(32, 8)).eval()

    plain, folded = head(*features()), fuse(head)(*features())

    torch.testing.assert_close(folded.boxes_xyxy, plain.boxes_xyxy, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(folded.scores, plain.scores, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fuse(head).modules())


def test_before_learning_hardly_any_cell_claims_an_object():
    torch.manual_seed(0)
    output = ProposalHead(32, 8).eval()(*features())

    chances = output.center_logits.sigmoid()
    assert chances.min() > 0.005
    assert chances.max() < 0.02


@pytest.mark.parametrize("name", ["edgeseg_tiny", "vit_tiny"])
def test_models_with_and_without_high_resolution_features_propose(name):
    net = build_model(name).eval()
    net.add_proposal_head()
    images = torch.zeros(1, 3, net.image_size, net.image_size)

    with torch.inference_mode():
        output = net.eval().propose(net.encode(images))

    assert output.boxes_xyxy.shape[1] == sum((net.image_size // s) ** 2 for s in (8, 16, 32, 64))


def test_a_model_without_a_head_says_so():
    net = build_model("edgeseg_tiny")

    with pytest.raises(WeightsError, match=r"edgeseg_tiny has no proposal head; train one with"):
        net.propose(ImageFeatures(torch.zeros(1, 32, 4, 4)))


def test_weights_bring_their_head_along(tmp_path):
    net = build_model("edgeseg_tiny")
    bare = tmp_path / "bare.safetensors"
    save_weights(net, bare)
    net.add_proposal_head()
    randomised(net)
    save_weights(net, tmp_path / "full.safetensors")

    loaded = load_model(tmp_path / "full.safetensors")

    assert load_model(bare).proposal_head is None
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = net.eval().propose(net.encode(images))
        found = loaded.propose(loaded.encode(images))
    torch.testing.assert_close(found.boxes_xyxy, expected.boxes_xyxy, rtol=1e-4, atol=1e-3)
    assert loaded.num_parameters() == net.num_parameters() > load_model(bare).num_parameters()
