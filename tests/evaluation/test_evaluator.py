import json

import numpy as np
import pytest
from known_answers import KnownRecord, KnownSegmenter, rectangle

from edgeseg.data.records import ByteRange, ImageRecord
from edgeseg.errors import ConfigError, DataError, ImageError
from edgeseg.evaluation import EvaluationConfig, GrabCutConfig, evaluate
from edgeseg.prompts import Prompt
from edgeseg.run_lengths import encode_rle
from edgeseg.runtime import Segmenter

# An object 8 wide and 6 high: 48 px, box 4 2 12 8, centre point between the middle pixels.
TALL, WIDE = rectangle(20, 3, 23, 21), rectangle(2, 12, 13, 19)
TRUTH = rectangle(4, 2, 12, 8)
TRUTH_BOX = (4.0, 2.0, 12.0, 8.0)
EMPTY = np.zeros_like(TRUTH)


def config(*prompt_sets, **settings):
    return EvaluationConfig(prompt_sets=prompt_sets, **{"grabcut": None, **settings})


def iou_of(report, name):
    return report.row(name).mean.iou


def test_each_click_brings_the_answer_written_for_it():
    half, most = rectangle(4, 2, 8, 8), rectangle(4, 2, 10, 8)  # 24 and 36 of 48 px
    segmenter = KnownSegmenter({TRUTH_BOX: [half, most, TRUTH]})

    report = evaluate(segmenter, [KnownRecord("one", [TRUTH])], config("box", "box+1", "box+2"))

    assert [iou_of(report, name) for name in ("box", "box+1", "box+2")] == [0.5, 0.75, 1.0]


def test_clicks_go_to_the_middle_of_the_error_in_pixels_of_the_image():
    half = rectangle(4, 2, 9, 8)  # missing: columns 9 to 11, rows 2 to 7; farthest is column 10
    too_much = rectangle(4, 2, 12, 8) | rectangle(20, 10, 27, 13)  # surplus: centre at 23.5, 11.5
    segmenter = KnownSegmenter({TRUTH_BOX: [half, too_much, TRUTH]})

    evaluate(segmenter, [KnownRecord("one", [TRUTH])], config("box+2"))

    last = segmenter.calls[-1][0]
    assert last.points_xy[0, 0] == 10.5
    assert last.points_xy[0, 1] in (4.5, 5.5)  # rows 4 and 5 are equally far from the border
    assert last.points_xy[1].tolist() == [23.5, 11.5]
    assert last.point_labels.tolist() == [1, 0]
    assert last.box_xyxy.tolist() == list(TRUTH_BOX)


def test_a_right_answer_gets_no_click_and_keeps_its_figure():
    segmenter = KnownSegmenter({TRUTH_BOX: [TRUTH, EMPTY]})  # a click would spoil it

    report = evaluate(segmenter, [KnownRecord("one", [TRUTH])], config("box", "box+1", "box+2"))

    assert iou_of(report, "box+2") == 1.0
    assert len(segmenter.calls) == 1


def test_only_rounds_that_are_asked_for_are_reported():
    segmenter = KnownSegmenter({TRUTH_BOX: [EMPTY, TRUTH]})

    report = evaluate(segmenter, [KnownRecord("one", [TRUTH])], config("box+1"))

    assert [row.name for row in report.rows] == ["box+1", "filled box"]
    assert iou_of(report, "box+1") == 1.0


def test_single_point_takes_the_best_scored_multimask_token_and_more_points_token_0():
    point = (22.5, 12.5)  # a mask 5 wide and 5 high around it has its centre there
    truth = rectangle(20, 10, 25, 15)  # 25 px
    tokens = [
        truth,  # IoU 1, the best
        rectangle(20, 10, 25, 11),  # IoU 0.2, best score of all
        rectangle(20, 10, 25, 13),  # IoU 0.6
        rectangle(20, 10, 25, 14),  # IoU 0.8
    ]
    later = [rectangle(20, 10, 25, 12), truth, truth, truth]  # token 0: IoU 0.4
    segmenter = KnownSegmenter({point: [tokens, later]}, scores=(0.3, 0.9, 0.4, 0.5))

    report = evaluate(segmenter, [KnownRecord("one", [truth])], config("center", "center+1"))

    assert iou_of(report, "center") == pytest.approx(0.2)
    assert iou_of(report, "center+1") == pytest.approx(0.4)
    assert report.row("center").mean.score_error == pytest.approx(0.9 - 0.2)
    assert report.row("center+1").mean.score_error == pytest.approx(0.4 - 0.3)
    assert iou_of(report, "center:best") == 1.0
    assert iou_of(report, "center:top-score") == pytest.approx(0.2)
    assert report.ranking_gaps() == {"center": pytest.approx(0.8)}


class ClickingSegmenter(KnownSegmenter):
    """Proposes the true box for every click but one."""

    def click_prompt(self, encoded, point_xy):
        alone = point_xy[0] > 16
        return Prompt(points_xy=[point_xy], box_xyxy=None if alone else TRUTH_BOX)


def test_a_click_goes_along_with_the_box_that_the_model_proposes():
    first = [rectangle(4, 2, 8, 8), EMPTY, TRUTH, EMPTY]  # token 0, which answers a box: IoU 0.5
    second = [EMPTY, EMPTY, TALL, EMPTY]  # a point alone is answered by the best of the others
    scores = (0.1, 0.2, 0.9, 0.3)
    answers = {TRUTH_BOX: [EMPTY, first], (21.5, 11.5): [second]}
    segmenter = ClickingSegmenter(answers, scores=scores)

    report = evaluate(segmenter, [KnownRecord("one", [TRUTH, TALL])], config("click"))

    assert iou_of(report, "click") == pytest.approx((0.5 + 1.0) / 2)
    boxes = [prompt.box_xyxy is not None for prompt in segmenter.calls[0]]
    assert boxes == [True, False]


def test_clicks_with_boxes_need_a_model_that_proposes_them():
    segmenter = KnownSegmenter({TRUTH_BOX: [TRUTH]})

    with pytest.raises(ConfigError, match=r'"click" needs a model with proposals, got KnownSegm'):
        evaluate(segmenter, [KnownRecord("one", [TRUTH])], config("click"))


def test_top_score_may_be_token_0():
    tokens = [rectangle(4, 2, 8, 8), EMPTY, TRUTH, EMPTY]  # IoU 0.5, 0, 1, 0
    segmenter = KnownSegmenter({TRUTH_BOX: [tokens]}, scores=(0.9, 0.2, 0.8, 0.3))

    report = evaluate(segmenter, [KnownRecord("one", [TRUTH])], config("box"))

    assert iou_of(report, "box:top-score") == 0.5
    assert report.ranking_gaps() == {"box": 0.5}


def test_box_takes_token_0_whatever_its_score():
    tokens = [rectangle(4, 2, 8, 8), EMPTY, TRUTH, EMPTY]  # IoU 0.5, 0, 1, 0
    segmenter = KnownSegmenter({TRUTH_BOX: [tokens]}, scores=(0.1, 0.2, 0.9, 0.3))

    report = evaluate(segmenter, [KnownRecord("one", [TRUTH])], config("box"))

    assert iou_of(report, "box") == 0.5
    assert iou_of(report, "box:top-score") == iou_of(report, "box:best") == 1.0
    assert report.row("box").mean.score_error == pytest.approx(abs(0.1 - 0.5))
    assert report.row("box:top-score").mean.score_error == pytest.approx(abs(0.9 - 1.0))
    assert report.row("filled box").mean.score_error is None


def test_mean_is_over_objects_in_a_domain_and_then_over_domains():
    segmenter = KnownSegmenter(
        {
            TRUTH_BOX: [TRUTH],
            (20.0, 3.0, 23.0, 21.0): [EMPTY],
            (2.0, 12.0, 13.0, 19.0): [WIDE],
        }
    )
    records = [
        KnownRecord("one", [TRUTH, TALL, WIDE], "a"),
        KnownRecord("two", [TRUTH], "a"),
        KnownRecord("three", [TALL], "b"),
    ]

    report = evaluate(segmenter, records, config("box"))

    row = report.row("box")
    assert row.domains["a"].iou == 3 / 4  # IoU 1, 0, 1 and 1
    assert row.domains["b"].iou == 0
    assert row.mean.iou == 3 / 8
    assert row.mean.num_objects == 5
    assert (report.domains["a"].num_images, report.domains["a"].num_objects) == (2, 4)
    assert (report.domains["b"].num_images, report.domains["b"].num_objects) == (1, 1)


def test_boundary_iou_by_hand():
    shifted = rectangle(5, 2, 13, 8)  # TRUTH moved by one; the boundary is 1 px wide
    segmenter = KnownSegmenter({TRUTH_BOX: [shifted]})
    # Rings of 48 - 6 * 4 = 24 px; they share 7 px of the upper and of the lower row.

    report = evaluate(segmenter, [KnownRecord("one", [TRUTH])], config("box"))
    without = evaluate(segmenter, [KnownRecord("one", [TRUTH])], config("box", boundary=False))

    assert report.row("box").mean.boundary_iou == pytest.approx(14 / (24 + 24 - 14))
    assert without.row("box").mean.boundary_iou is None
    assert without.row("box").mean.iou == report.row("box").mean.iou == pytest.approx(42 / 54)


def test_teacher_like_the_student_agrees_completely():
    half = rectangle(4, 2, 8, 8)
    answers = {TRUTH_BOX: [half, TRUTH], (7.5, 4.5): [half], (8.5, 5.5): [half]}
    answers |= {(8.5, 4.5): [half], (7.5, 5.5): [half]}
    student, teacher = KnownSegmenter(answers), KnownSegmenter(answers)

    report = evaluate(
        student,
        [KnownRecord("one", [TRUTH])],
        config("box", "box+1", "center", "center+1"),
        teacher=teacher,
    )

    names = ("box", "box+1", "center", "center+1")
    assert [report.row(name).mean.agreement for name in names] == [1.0] * 4
    assert report.row("filled box").mean.agreement is None


def test_teacher_with_another_input_size_gets_the_clicks_of_the_student():
    quarter, half = rectangle(4, 2, 6, 8), rectangle(4, 2, 8, 8)
    student = KnownSegmenter({TRUTH_BOX: [quarter, half]})
    teacher = KnownSegmenter({TRUTH_BOX: [half, TRUTH]}, image_size=256)

    report = evaluate(
        student, [KnownRecord("one", [TRUTH])], config("box", "box+1"), teacher=teacher
    )

    # The teacher's 2 x 2 cells a pixel are blurred by less than half a pixel at the edges.
    assert report.row("box").mean.agreement == pytest.approx(12 / 24)
    assert report.row("box+1").mean.agreement == pytest.approx(24 / 48)
    asked = [[prompt.points_xy.tolist() for prompt in call] for call in student.calls]
    assert asked == [[prompt.points_xy.tolist() for prompt in call] for call in teacher.calls]
    assert len(asked[1][0]) == 1


def test_teachers_mask_is_chosen_by_its_own_scores():
    point, truth = (22.5, 12.5), rectangle(20, 10, 25, 15)
    student = KnownSegmenter({point: [truth]})
    tokens = [truth, EMPTY, EMPTY, rectangle(20, 10, 25, 12)]  # token 3: 10 of 25 px
    teacher = KnownSegmenter({point: [tokens]}, scores=(0.9, 0.1, 0.2, 0.3))

    report = evaluate(student, [KnownRecord("a", [truth])], config("center"), teacher=teacher)

    assert report.row("center").mean.agreement == pytest.approx(10 / 25)


def test_teacher_is_not_asked_again_where_the_student_is_right():
    answers = {TRUTH_BOX: [TRUTH], (2.0, 12.0, 13.0, 19.0): [EMPTY, WIDE]}
    student, teacher = KnownSegmenter(answers), KnownSegmenter(answers)

    evaluate(student, [KnownRecord("a", [TRUTH, WIDE])], config("box+1"), teacher=teacher)

    assert [len(call) for call in teacher.calls] == [len(call) for call in student.calls] == [2, 1]


def test_fed_masks_are_each_models_own_chosen_logits():
    half = rectangle(4, 2, 8, 8)
    student = KnownSegmenter({TRUTH_BOX: [[half, TRUTH, TRUTH, TRUTH], TRUTH]})
    teacher = KnownSegmenter({TRUTH_BOX: [TALL, TRUTH]})

    evaluate(
        student,
        [KnownRecord("one", [TRUTH])],
        config("box+1", feed_mask=True),
        teacher=teacher,
    )

    assert student.calls[0][0].mask_logits is None
    np.testing.assert_array_equal(student.calls[1][0].mask_logits[:24] > 0, half)
    np.testing.assert_array_equal(teacher.calls[1][0].mask_logits[:24] > 0, TALL)


def test_masks_are_not_fed_back_by_default():
    segmenter = KnownSegmenter({TRUTH_BOX: [EMPTY, TRUTH]})

    evaluate(segmenter, [KnownRecord("one", [TRUTH])], config("box+1"))

    assert segmenter.calls[1][0].mask_logits is None


def test_objects_of_an_image_are_prompted_together_and_at_most_64_a_call():
    masks = [rectangle(x, y, x + 2, y + 1) for x in range(0, 30, 3) for y in range(0, 24, 3)]
    answers = {(x, y, x + 2.0, y + 1.0): [EMPTY] for x in range(30) for y in range(24)}
    segmenter = KnownSegmenter(answers)

    report = evaluate(segmenter, [KnownRecord("many", masks)], config("box", "box+1"))

    assert [len(call) for call in segmenter.calls] == [64, 16, 64, 16]  # 80 objects, two rounds
    assert report.row("box+1").mean.num_objects == 80


def test_records_that_cannot_be_read_are_counted_with_their_reason():
    other_size = KnownRecord("sized", [rectangle(0, 0, 3, 3, (9, 9))])
    records = [
        KnownRecord("broken", [], error=ImageError("cannot decode broken.jpg")),
        KnownRecord("gone", [], "else", error=FileNotFoundError("no such file")),
        other_size,
        KnownRecord("good", [TRUTH]),
    ]
    segmenter = KnownSegmenter({TRUTH_BOX: [TRUTH]})

    report = evaluate(segmenter, records, config("box"))

    reasons = {record.name: record.message for record in report.bad_records}
    assert reasons["broken"] == "cannot decode broken.jpg"
    assert reasons["gone"] == "no such file"
    assert "a mask of sized is (9, 9) (height, width) but its image is (24, 32)" in reasons["sized"]
    assert len(reasons) == 3
    assert iou_of(report, "box") == 1.0
    assert list(report.domains) == ["shapes"]


def test_a_failing_segmenter_is_not_taken_for_a_bad_record():
    with pytest.raises(KeyError):
        evaluate(KnownSegmenter({}), [KnownRecord("good", [TRUTH])], config("box"))


def test_nothing_to_measure_is_an_error_that_says_why():
    broken = KnownRecord("broken", [], error=DataError("half a file"))

    with pytest.raises(
        DataError, match=r"no object to measure: 1 records .*; first .* half a file"
    ):
        evaluate(KnownSegmenter({}), [broken, KnownRecord("bare", [])], config("box"))
    with pytest.raises(DataError, match=r"no object to measure: 0 records .* mask of 49 pixels"):
        evaluate(KnownSegmenter({}), [KnownRecord("a", [TRUTH])], config("box", min_area_px=49))


def test_an_image_without_objects_is_not_counted():
    segmenter = KnownSegmenter({TRUTH_BOX: [TRUTH]})
    records = [KnownRecord("one", [TRUTH]), KnownRecord("bare", []), KnownRecord("b", [], "bare")]

    report = evaluate(segmenter, records, config("box"))

    assert report.domains["shapes"].num_images == 1
    assert "bare" not in report.domains


def test_progress_is_told_after_each_image():
    told = []
    segmenter = KnownSegmenter({TRUTH_BOX: [TRUTH]})
    records = [KnownRecord("a", [TRUTH]), KnownRecord("b", [], error=ImageError("x"))]

    evaluate(segmenter, records, config("box"), progress=lambda *counts: told.append(counts))

    assert told == [(1, 2), (2, 2)]


def test_floors_are_measured_on_the_same_objects():
    triangle = rectangle(4, 2, 12, 8)
    triangle[2:5, 8:12] = False  # 12 of 48 px are missing, the box stays
    segmenter = KnownSegmenter({TRUTH_BOX: [EMPTY]})

    report = evaluate(segmenter, [KnownRecord("one", [triangle])], config("box"))

    floor = report.row("filled box")
    assert floor.kind == "floor"
    assert floor.mean.iou == 36 / 48
    assert floor.mean.boundary_iou is not None


def test_grabcut_is_limited_by_image_and_by_domain():
    answers = {
        TRUTH_BOX: [EMPTY],
        (20.0, 3.0, 23.0, 21.0): [EMPTY],
        (2.0, 12.0, 13.0, 19.0): [EMPTY],
    }
    records = [KnownRecord(f"{n}", [TRUTH, TALL, WIDE], "ab"[n % 2]) for n in range(6)]
    limits = GrabCutConfig(max_objects_a_domain=3, max_objects_an_image=2, iterations=1)

    report = evaluate(KnownSegmenter(answers), records, config("box", grabcut=limits))

    domains = report.row("GrabCut").domains
    assert {name: figures.num_objects for name, figures in domains.items()} == {"a": 3, "b": 3}
    assert report.row("GrabCut").mean.boundary_iou is not None


class CornerBackend:
    """Answers a box with its cells and a point with nothing; for the real segmenter and records."""

    name, image_size = "corners", 128

    def encode(self, pixels):
        return (pixels,)

    def decode(self, features, points_xy, point_labels, mask_logits, has_mask):
        logits = np.full((len(points_xy), 4, 32, 32), -1, np.float32)
        for row, (points, labels) in enumerate(zip(points_xy, point_labels, strict=True)):
            if 2 in labels:
                x0, y0 = (points[labels == 2][0] / 4).astype(int)
                x1, y1 = (points[labels == 3][0] / 4).astype(int)
                logits[row, :, y0:y1, x0:x1] = 1
        return logits, np.ones((len(points_xy), 4), np.float32)


def test_real_segmenter_on_real_records(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((24, 32, 3), np.uint8))
    annotations = {
        "image": {"height": 24, "width": 32},
        "annotations": [{"segmentation": encode_rle(mask)} for mask in (TRUTH, WIDE)],
    }
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    record = ImageRecord(
        "a", "shapes", ByteRange(tmp_path / "a.png"), ByteRange(tmp_path / "a.json")
    )

    report = evaluate(Segmenter(CornerBackend()), [record], config("box", "center", "center+2"))

    assert iou_of(report, "box") == 1.0
    assert report.row("box").mean.score_error == 0.0
    assert iou_of(report, "center+2") == 0.0
    assert report.row("box").mean.num_objects == 2


def test_the_first_prompts_are_the_box_and_the_centre():
    truth = rectangle(20, 10, 25, 13)
    segmenter = KnownSegmenter({(20.0, 10.0, 25.0, 13.0): [truth], (22.5, 11.5): [truth]})

    evaluate(segmenter, [KnownRecord("one", [truth])], config("box", "center"))

    (box,), (center,) = segmenter.calls
    assert isinstance(box, Prompt)
    assert len(box.points_xy) == 0
    assert center.box_xyxy is None
    assert center.point_labels.tolist() == [1]
