import numpy as np
import pytest
from cell_backend import CellBackend

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.proposals import CellProposals, Proposals
from edgeseg.runtime import Segmenter
from edgeseg.runtime.granularity import GranularitySettings, box_ious, click_boxes

IMAGE = np.zeros((12, 16, 3), np.uint8)  # a cell is a pixel: 4 model pixels


class ClickedCells(CellBackend):
    """All cells of a level propose the same box, in pixels of the image, with the same chance."""

    def __init__(self, boxes, chances):
        super().__init__()
        self.boxes, self.chances = boxes, chances

    def propose(self, features):
        counts = [64, 16, 4, 1]  # of a 64 pixel input
        boxes = np.repeat(4 * np.float32(self.boxes), counts, axis=0)
        logits = np.repeat(np.log(np.float32(self.chances)), counts)
        return CellProposals(boxes, np.zeros(85, np.float32), logits)


PART, THING, GROUP, WHOLE = [4, 3, 7, 5], [3, 2, 9, 8], [1, 1, 12, 9], [0, 0, 16, 12]


def clicked(chances=(0.1, 0.6, 0.25, 0.05)):
    segmenter = Segmenter(ClickedCells([PART, THING, GROUP, WHOLE], chances))
    return segmenter, segmenter.encode(IMAGE)


def boxes_of(boxes, chances, **settings):
    proposals = Proposals(np.float32(boxes).reshape(-1, 4), np.float32(chances))
    found = click_boxes(proposals, GranularitySettings(**settings))
    return [(box.box_xyxy.tolist(), box.chance) for box in found]


def test_boxes_that_agree_are_merged_by_their_chances():
    found = boxes_of([[0, 0, 10, 10], [0, 0, 10, 8]], [0.6, 0.2])  # IoU 80 / 100

    # 0.6 / 0.8 of 10 and 0.2 / 0.8 of 8; the chance is that of the likelier one.
    assert found == [([0, 0, 10, 9.5], pytest.approx(0.6))]


def test_the_power_of_the_chances_says_how_much_the_likelier_one_counts():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 8]]

    assert boxes_of(boxes, [0.3, 0.1], weight_power=0)[0][0][3] == 9
    squared = boxes_of(boxes, [0.3, 0.1], weight_power=2)[0][0][3]
    assert squared == pytest.approx(0.9 * 10 + 0.1 * 8)


def test_no_more_than_k_are_merged_and_the_others_stay_boxes_of_their_own():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8]]

    found = boxes_of(boxes, [0.5, 0.25, 0.25], num_merged=2, weight_power=0)

    assert [box for box, _ in found] == [[0, 0, 10, 9.5], [0, 0, 10, 8]]


def test_boxes_that_mean_other_objects_are_not_merged():
    found = boxes_of([THING, GROUP], [0.6, 0.4], min_iou=0.5)  # IoU 36 / 88

    assert found == [(THING, pytest.approx(0.6)), (GROUP, pytest.approx(0.4))]


def test_unlikely_boxes_are_left_out():
    assert boxes_of([THING, PART], [0.9, 0.1], min_chance=0.2) == [(THING, pytest.approx(0.9))]
    assert boxes_of([THING], [0.1], min_chance=0.2) == []
    assert boxes_of([], []) == []


def test_a_click_goes_along_with_its_box_where_that_promises_more():
    # The backend predicts 0.9 for a box and at best 0.8 for a point: 0.9 * 0.95 > 0.8 > 0.9 * 0.85.
    segmenter, encoded = clicked((0.02, 0.95, 0.02, 0.01))
    unsure, encoded_too = clicked((0.05, 0.85, 0.05, 0.05))

    prompt = segmenter.click_prompt(encoded, (5.5, 4.5))

    assert prompt.points_xy.tolist() == [[5.5, 4.5]]
    assert prompt.box_xyxy.tolist() == THING
    assert unsure.click_prompt(encoded_too, (5.5, 4.5)).box_xyxy is None
    only_sure = GranularitySettings(min_chance=0.96)
    assert segmenter.click_prompt(encoded, (5.5, 4.5), only_sure).box_xyxy is None


def test_the_boxes_of_a_click_come_the_likeliest_first():
    segmenter, encoded = clicked()

    found = segmenter.propose_for_click(encoded, (5.5, 4.5))

    assert found.boxes_xyxy.tolist() == [THING, GROUP, PART, WHOLE]
    assert found.scores.tolist() == pytest.approx([0.6, 0.25, 0.1, 0.05])


def test_a_click_may_mean_several_things():
    # Boxes are answered by what is in them, worth 0.9 times their chance, a point alone by 2, 3 or
    # 4 cells from it on, worth 0.3, 0.8 and 0.5.
    segmenter, encoded = clicked((0.02, 0.95, 0.02, 0.01))

    masks = segmenter.segment_click(encoded, (5.5, 4.5))

    assert masks.areas_px.tolist() == [36, 3, 4]
    assert masks.scores.tolist() == pytest.approx([0.9, 0.8, 0.5])
    assert masks.prompt_indices.tolist() == [0, 0, 0]
    best = segmenter.segment_click(encoded, (5.5, 4.5), max_masks=1)
    assert best.areas_px.tolist() == [36]


def test_an_uncertain_click_is_answered_by_the_point_first():
    segmenter, encoded = clicked((0.3, 0.4, 0.2, 0.1))

    masks = segmenter.segment_click(encoded, (5.5, 4.5))

    assert masks.areas_px.tolist() == [3, 4, 36]  # 0.8, 0.5, 0.9 * 0.4


def test_a_model_without_proposals_says_so():
    segmenter = Segmenter(CellBackend())

    with pytest.raises(WeightsError, match="proposes nothing"):
        segmenter.click_prompt(segmenter.encode(IMAGE), (6, 4))


def test_iou_of_one_box_with_many():
    others = np.float32([[0, 0, 4, 4], [2, 0, 6, 4], [4, 4, 8, 8]])

    ious = box_ious(np.float32([0, 0, 4, 4]), others)

    np.testing.assert_allclose(ious, [1, 8 / 24, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_merged": 0}, "num_merged must be 1 or more, got 0; 2 suits most"),
        ({"min_iou": 2}, r"min_iou must be in 0\.\.1, got 2"),
        ({"weight_power": -1}, "weight_power must be 0 or more, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        GranularitySettings(**settings)


def test_at_least_one_mask_must_be_wanted():
    segmenter, encoded = clicked()

    with pytest.raises(ConfigError, match="max_masks must be 1 or more, got 0"):
        segmenter.segment_click(encoded, (6, 4), max_masks=0)
