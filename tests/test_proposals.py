import numpy as np
import pytest

from edgeseg.errors import ConfigError
from edgeseg.geometry import ModelFrame
from edgeseg.proposals import Proposals, kept_boxes, read_proposals

FRAME = ModelFrame((50, 100), 64)  # the content is 64 wide and 32 high: 0.64 model px a pixel


def test_boxes_come_in_image_pixels_best_first_and_end_at_the_image():
    boxes = np.float32([[-6.4, 6.4, 32, 64], [0, 0, 64, 32]])

    proposals = read_proposals(boxes, np.float32([0.25, 0.75]), FRAME)

    np.testing.assert_allclose(proposals.boxes_xyxy, [[0, 0, 100, 50], [0, 10, 50, 50]], rtol=1e-6)
    assert proposals.scores.tolist() == [0.75, 0.25]
    assert proposals.boxes_xyxy.dtype == np.float32


def test_boxes_in_the_padding_and_too_thin_ones_are_left_out():
    padding, thin, good = [10, 40, 20, 60], [10, 10, 10.5, 20], [10, 10, 11, 20]

    proposals = read_proposals(np.float32([padding, thin, good]), np.float32([3, 2, 1]), FRAME)

    assert len(proposals) == 1
    assert proposals.boxes_xyxy[0, 2] == pytest.approx(11 / 0.64)


def test_only_the_most_confident_are_kept():
    boxes = np.tile(np.float32([[0, 0, 64, 32]]), (5, 1))

    proposals = read_proposals(boxes, np.float32([0.1, 0.5, 0.3, 0.4, 0.2]), FRAME, 2)

    assert proposals.scores.tolist() == pytest.approx([0.5, 0.4])


def test_nothing_proposed_is_no_proposals():
    none = read_proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), FRAME)

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
