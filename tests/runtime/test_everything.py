import numpy as np
import pytest
from cell_backend import CellBackend

from edgeseg.errors import ConfigError, ImageError, WeightsError
from edgeseg.proposals import CellProposals
from edgeseg.run_lengths import decode_rle
from edgeseg.runtime import EverythingSettings, Segmenter

IMAGE = np.zeros((12, 16, 3), np.uint8)  # a cell is a pixel: 4 model pixels
SETTINGS = {"min_stability": 0.0}  # the backend's logits are 1 and -1, which is not stable


class ProposingCells(CellBackend):
    """Proposes the boxes it is given, in pixels of the image; token 0 has the given scores."""

    def __init__(self, boxes, scores, **options):
        super().__init__(**options)
        self.boxes, self.proposal_scores = boxes, scores

    def propose(self, features):
        assert len(features) == 2
        boxes = 4 * np.array(self.boxes, np.float32).reshape(-1, 4)
        scores = np.array(self.proposal_scores, np.float32)
        return CellProposals(boxes, scores, np.zeros(len(scores), np.float32))


def search(boxes, scores, image=IMAGE, max_prompts_a_call=64, **settings):
    segmenter = Segmenter(ProposingCells(boxes, scores), max_prompts_a_call)
    found = segmenter.segment_everything(image, EverythingSettings(**SETTINGS | settings))
    return found, segmenter.backend


def test_every_proposal_becomes_a_mask():
    found, backend = search([[1, 2, 5, 4], [8, 6, 14, 12]], [0.3, 0.9])

    assert found.num_prompts == 2
    assert found.masks.boxes_xyxy.tolist() == [[8, 6, 14, 12], [1, 2, 5, 4]]
    assert found.masks.areas_px.tolist() == [36, 8]
    assert found.points_xy.tolist() == [[11, 9], [3, 3]]  # the middles of the boxes
    assert found.windows_xywh.tolist() == [[0, 0, 16, 12]] * 2
    assert len(backend.calls) == 1  # all prompts at once


def test_unlikely_and_equal_proposals_are_not_decoded():
    boxes = [[1, 2, 5, 4], [1, 2, 5, 4], [8, 6, 14, 12], [0, 0, 2, 2]]

    found, _ = search(boxes, [0.3, 0.8, 0.9, 0.01])

    assert found.num_prompts == 2
    assert len(found) == 2


def test_the_most_confident_are_tried_first():
    found, _ = search([[1, 2, 5, 4], [8, 6, 14, 12], [0, 6, 3, 9]], [0.3, 0.9, 0.5], max_prompts=2)

    assert found.num_prompts == 2
    assert found.masks.boxes_xyxy[:, 0].tolist() == [8, 0]


def test_few_prompts_are_decoded_at_a_time():
    boxes = [[x, 0, x + 2, 2] for x in range(0, 14, 2)]

    found, backend = search(boxes, [0.5] * 7, max_prompts_a_call=3)

    assert [len(points) for points, *_ in backend.calls] == [3, 3, 1]
    assert len(found) == 7


def test_of_two_masks_that_are_nearly_equal_one_stays():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9]]

    found, _ = search(boxes, [0.5, 0.6], max_box_iou=1.0, max_mask_iou=0.8)
    both, _ = search(boxes, [0.5, 0.6], max_box_iou=1.0, max_mask_iou=0.95)

    assert (found.num_prompts, len(found), len(both)) == (2, 1, 2)


def test_masks_the_model_does_not_believe_in_are_left_out():
    found, _ = search([[1, 2, 5, 4]], [0.9], min_score=0.95)  # token 0 has the score 0.9

    assert (found.num_prompts, len(found)) == (1, 0)


def test_points_are_asked_only_where_nothing_was_found():
    # The grid's points are at x 4 and 12, y 3 and 9; the left half of the image is taken.
    wanted = {"fill_points_per_side": 2, "max_mask_iou": 1.0, "min_score": 0.5}
    found, backend = search([[0, 0, 8, 12]], [0.9], **wanted)

    assert found.num_prompts == 3
    points = backend.calls[1][0][:, 0] / 4
    assert points.tolist() == [[12, 3], [12, 9]]
    # Tokens 1 to 3 mark 2, 3 and 4 cells; the scores of 0.5 and more stay: of tokens 2 and 3.
    assert sorted(found.masks.areas_px.tolist()) == [3, 3, 4, 4, 96]


def test_annotations_are_laid_out_as_in_sams_generator():
    found, _ = search([[1, 2, 5, 4], [8, 6, 14, 12]], [0.9, 0.3])

    rows = found.to_sam()

    assert [row["area"] for row in rows] == [36, 8]  # largest first
    large = rows[0]
    assert large["bbox"] == [8, 6, 6, 6]
    assert large["predicted_iou"] == pytest.approx(0.9)
    assert large["point_coords"] == [[11, 9]]
    assert large["crop_box"] == [0, 0, 16, 12]
    assert large["stability_score"] == 0
    pixels = found.to_sam(with_pixels=True)[0]["segmentation"]
    np.testing.assert_array_equal(decode_rle(large["segmentation"]), pixels)
    assert pixels[6:12, 8:14].all()
    assert pixels.sum() == 36


def test_an_image_in_which_nothing_is_proposed_has_no_masks():
    found, backend = search([], [])

    assert (len(found), found.num_prompts) == (0, 0)
    assert backend.calls == []
    assert found.to_sam() == []
    assert found.masks.masks.shape == (0, 12, 16)
    np.testing.assert_array_equal(found.masks.overlay(IMAGE), IMAGE)


def test_the_summary_says_how_many_prompts_ran_and_where_the_time_went():
    found, _ = search([[1, 2, 5, 4]], [0.9])

    assert found.summary().startswith("1 masks from 1 prompts: encode 0.")
    assert list(found.seconds) == ["encode", "propose", "decode", "filter", "upsample"]


def test_masks_can_be_taken_in_any_order():
    found, _ = search([[1, 2, 5, 4], [8, 6, 14, 12]], [0.9, 0.3])

    turned = found.take([1, 0])

    assert turned.masks.areas_px.tolist() == found.masks.areas_px[::-1].tolist()
    assert turned.points_xy.tolist() == found.points_xy[::-1].tolist()
    assert len(found.take([])) == 0


def test_proposals_come_in_image_pixels():
    segmenter = Segmenter(ProposingCells([[1, 2, 5, 4], [8, 6, 40, 12]], [0.3, 0.9]))

    proposals = segmenter.propose(segmenter.encode(IMAGE))

    assert proposals.boxes_xyxy.tolist() == [[8, 6, 16, 12], [1, 2, 5, 4]]
    assert proposals.scores.tolist() == pytest.approx([0.9, 0.3])


def test_a_model_without_proposals_says_what_to_do():
    segmenter = Segmenter(CellBackend())

    with pytest.raises(WeightsError, match=r"cells proposes nothing; load one that was exported w"):
        segmenter.segment_everything(IMAGE)


def test_an_image_of_another_model_is_refused():
    segmenter = Segmenter(ProposingCells([], [], name="ours"))
    encoded = Segmenter(CellBackend(name="theirs")).encode(IMAGE)

    with pytest.raises(ImageError, match="the image was encoded by theirs"):
        segmenter.propose(encoded)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_score": 1.1}, r"min_score must be in 0\.\.1, got 1.1"),
        ({"max_mask_iou": -1}, r"max_mask_iou must be in 0\.\.1, got -1"),
        (
            {"max_prompts": -1},
            "max_prompts and fill_points_per_side must be 0 or more, got -1 and 0",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        EverythingSettings(**settings)
