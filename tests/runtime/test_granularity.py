import numpy as np
import pytest
from cell_backend import CellBackend
from test_everything import ProposingCells

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.proposals import Proposals
from edgeseg.runtime import Segmenter
from edgeseg.runtime.granularity import GranularitySettings, box_ious, click_boxes

IMAGE = np.zeros((12, 16, 3), np.uint8)  # a cell is a pixel


def boxes_of(point, boxes, scores, **settings):
    proposals = Proposals(np.float32(boxes).reshape(-1, 4), np.float32(scores))
    found = click_boxes(np.float32(point), proposals, GranularitySettings(**settings))
    return [(box.box_xyxy.tolist(), box.confidence) for box in found]


def test_boxes_that_agree_are_merged_by_their_weights():
    # Both hold the point in their middle in x and y to a like share; IoU 80 / 100.
    boxes = [[0, 0, 10, 10], [0, 0, 10, 8]]

    found = boxes_of((5, 4), boxes, [0.3, 0.1], sharpness=0)

    # 0.3 / 0.4 of 10 and 0.1 / 0.4 of 8.
    assert found == [([0, 0, 10, 9.5], pytest.approx(0.3))]


def test_the_power_of_the_weights_says_how_much_the_likelier_one_counts():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 8]]

    assert boxes_of((5, 4), boxes, [0.3, 0.1], sharpness=0, weight_power=0)[0][0][3] == 9
    squared = boxes_of((5, 4), boxes, [0.3, 0.1], sharpness=0, weight_power=2)[0][0][3]
    assert squared == pytest.approx(0.9 * 10 + 0.1 * 8)


def test_no_more_than_k_are_merged_the_likeliest():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8]]

    found = boxes_of((5, 4), boxes, [0.2, 0.1, 0.2], sharpness=0, num_merged=2)

    assert found == [([0, 0, 10, 9], pytest.approx(0.2))]


def test_boxes_beside_the_point_do_not_count():
    assert boxes_of((20, 4), [[0, 0, 10, 10]], [0.9]) == []
    assert boxes_of((5, 20), [[0, 0, 10, 10]], [0.9]) == []
    assert boxes_of((5, 5), [], []) == []


def test_a_box_whose_middle_is_nearer_wins_over_a_likelier_one():
    off, on = [4, 0, 16, 10], [0, 0, 10, 10]  # the point is at an edge's fifth, and in the middle

    assert boxes_of((5, 5), [off, on], [0.5, 0.4])[0][0] == on
    assert boxes_of((5, 5), [off, on], [0.5, 0.4], sharpness=0)[0][0] == off


def test_confidence_falls_with_the_distance_measured_in_the_boxs_own_size():
    ((_, near),) = boxes_of((60, 50), [[0, 0, 100, 100]], [0.8], sharpness=2)

    assert near == pytest.approx(0.8 * np.exp(-2 * 0.2**2))  # 10 of 50 px off the middle


def test_different_sizes_come_one_after_another():
    part, thing, group = [4, 4, 6, 6], [2, 2, 8, 8], [0, 0, 10, 10]

    found = boxes_of((5, 5), [group, part, thing], [0.2, 0.9, 0.5])

    assert [box for box, _ in found] == [part, thing, group]
    assert [weight for _, weight in found] == pytest.approx([0.9, 0.5, 0.2])


def test_unlikely_boxes_leave_the_click_alone():
    assert boxes_of((5, 5), [[0, 0, 10, 10]], [0.1], min_confidence=0.2) == []
    assert boxes_of((5, 5), [[0, 0, 10, 10]], [0.0]) == []


def test_a_click_goes_along_with_its_box():
    segmenter = Segmenter(ProposingCells([[1, 2, 7, 8]], [0.9]))
    encoded = segmenter.encode(IMAGE)

    prompt = segmenter.click_prompt(encoded, (3, 4))
    alone = segmenter.click_prompt(encoded, (12, 4))

    assert prompt.points_xy.tolist() == [[3, 4]]
    assert prompt.box_xyxy.tolist() == [1, 2, 7, 8]
    assert alone.points_xy.tolist() == [[12, 4]]
    assert alone.box_xyxy is None


def test_a_click_may_mean_several_things():
    # Boxes are answered by what is in them, a point alone by 2, 3 or 4 cells from it on.
    boxes = [[2, 2, 14, 10], [4, 3, 8, 6]]
    segmenter = Segmenter(ProposingCells(boxes, [0.4, 0.8]))
    encoded = segmenter.encode(IMAGE)

    masks = segmenter.segment_click(encoded, (6, 4))

    assert len(masks) == 3
    areas = masks.areas_px.tolist()
    assert {12, 96} <= set(areas)  # the two boxes
    assert masks.prompt_indices.tolist() == [0, 0, 0]
    assert (np.diff(masks.scores) <= 0).all()
    assert len(segmenter.segment_click(encoded, (6, 4), max_masks=1)) == 1


def test_a_click_where_nothing_is_proposed_is_answered_as_a_point():
    segmenter = Segmenter(ProposingCells([], []))

    masks = segmenter.segment_click(segmenter.encode(IMAGE), (6, 4))

    assert sorted(masks.areas_px.tolist()) == [2, 3, 4]


def test_a_model_without_proposals_says_so():
    segmenter = Segmenter(CellBackend())

    with pytest.raises(WeightsError, match="proposes nothing"):
        segmenter.click_prompt(segmenter.encode(IMAGE), (6, 4))


def test_iou_of_one_box_with_many():
    ious = box_ious(
        np.float32([0, 0, 4, 4]), np.float32([[0, 0, 4, 4], [2, 0, 6, 4], [4, 4, 8, 8]])
    )

    np.testing.assert_allclose(ious, [1, 8 / 24, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_merged": 0}, "num_merged must be 1 or more, got 0; 5 suits most"),
        ({"min_iou": 2}, r"min_iou must be in 0\.\.1, got 2"),
        ({"sharpness": -1}, "weight_power and sharpness must be 0 or more, got 1.0 and -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        GranularitySettings(**settings)


def test_at_least_one_mask_must_be_wanted():
    segmenter = Segmenter(ProposingCells([], []))

    with pytest.raises(ConfigError, match="max_masks must be 1 or more, got 0"):
        segmenter.segment_click(segmenter.encode(IMAGE), (6, 4), max_masks=0)
