import numpy as np
import pytest

from edgeseg.errors import ConfigError
from edgeseg.geometry import ModelFrame
from edgeseg.proposals import (
    CellProposals,
    Proposals,
    cells_under,
    click_proposals,
    kept_boxes,
    read_proposals,
)

FRAME = ModelFrame((50, 100), 64)  # the content is 64 wide and 32 high: 0.64 model px a pixel


def cells(boxes, scores):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return CellProposals(boxes, np.float32(scores), np.zeros(len(boxes), np.float32))


def test_boxes_come_in_image_pixels_best_first_and_end_at_the_image():
    boxes = np.float32([[-6.4, 6.4, 32, 64], [0, 0, 64, 32]])

    proposals = read_proposals(cells(boxes, [0.25, 0.75]), FRAME)

    np.testing.assert_allclose(proposals.boxes_xyxy, [[0, 0, 100, 50], [0, 10, 50, 50]], rtol=1e-6)
    assert proposals.scores.tolist() == [0.75, 0.25]
    assert proposals.boxes_xyxy.dtype == np.float32


def test_boxes_in_the_padding_and_too_thin_ones_are_left_out():
    padding, thin, good = [10, 40, 20, 60], [10, 10, 10.5, 20], [10, 10, 11, 20]

    proposals = read_proposals(cells([padding, thin, good], [3, 2, 1]), FRAME)

    assert len(proposals) == 1
    assert proposals.boxes_xyxy[0, 2] == pytest.approx(11 / 0.64)


def test_only_the_most_confident_are_kept():
    boxes = np.tile(np.float32([[0, 0, 64, 32]]), (5, 1))

    proposals = read_proposals(cells(boxes, [0.1, 0.5, 0.3, 0.4, 0.2]), FRAME, 2)

    assert proposals.scores.tolist() == pytest.approx([0.5, 0.4])


def test_nothing_proposed_is_no_proposals():
    none = read_proposals(cells([], []), FRAME)

    assert len(none) == len(none.suppressed(0.5)) == 0
    assert none.boxes_xyxy.shape == (0, 4)


def test_suppression_keeps_the_best_of_those_that_overlap():
    # IoU of the first two: 8 / 10; of the second and third: 2 / 10.
    boxes = np.float32([[0, 0, 10, 1], [0, 0, 8, 1], [6, 0, 10, 1]])
    proposals = Proposals(boxes, np.float32([0.2, 0.9, 0.5]))

    assert proposals.suppressed(0.7).scores.tolist() == pytest.approx([0.9, 0.5])
    assert proposals.suppressed(0.85).scores.tolist() == pytest.approx([0.9, 0.5, 0.2])
    assert proposals.suppressed(0.1).scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize("max_iou", [-0.1, 1.1])
def test_an_iou_out_of_range_is_refused(max_iou):
    none = Proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

    with pytest.raises(ConfigError, match=r"max_iou must be in 0..1, got .*; 0.7 suits most"):
        none.suppressed(max_iou)


def test_scores_may_be_any_numbers_and_the_first_of_two_equal_ones_is_better():
    boxes = np.float32([[0, 0, 4, 4]] * 3 + [[9, 9, 12, 12]])

    assert kept_boxes(boxes, np.float64([-3, -1e-9, -1e-9, -7e9]), 0.5) == [1, 3]
    assert kept_boxes(boxes, np.float32([0, 0, 0, 0]), 0.5) == [0, 3]


def test_a_click_is_told_by_the_cells_that_hold_it():
    frame = ModelFrame((32, 64), 64)  # a pixel is a model pixel
    boxes, logits = np.zeros((85, 4), np.float32), np.full(85, 9.0, np.float32)
    under = [1 * 8 + 2, 64 + 0 * 4 + 1, 80 + 0 * 2 + 0, 84]  # of the point (20, 9)
    boxes[under] = [[16, 4, 24, 12], [10, 0, 30, 20], [0, 0, 40, 32], [-5, -5, 70, 70]]
    logits[under] = np.log([1, 4, 2, 3])

    found = click_proposals(CellProposals(boxes, np.zeros(85, np.float32), logits), (20, 9), frame)

    assert found.scores.tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    expected = [[10, 0, 30, 20], [0, 0, 64, 32], [0, 0, 40, 32], [16, 4, 24, 12]]
    assert found.boxes_xyxy.tolist() == expected


def test_a_box_that_misses_its_click_is_stretched_to_its_pixel():
    frame = ModelFrame((32, 64), 64)
    boxes = np.tile(np.float32([[40, 20, 50, 30]]), (85, 1))
    nothing = np.zeros(85, np.float32)

    found = click_proposals(CellProposals(boxes, nothing, nothing), (20.5, 9.5), frame)

    assert found.boxes_xyxy[0].tolist() == [20, 9, 50, 30]


@pytest.mark.parametrize("point", [(0, 0), (63.9, 0), (20, 9), (-3, 80), (31.9, 32)])
def test_the_cells_of_a_click_are_those_it_was_trained_with(point):
    torch = pytest.importorskip("torch")
    from edgeseg.modeling.proposal_head import cells_at

    expected = cells_at(torch.tensor([point], dtype=torch.float32), 64)[0]

    assert cells_under(np.float32(point), 64).tolist() == expected.tolist()
