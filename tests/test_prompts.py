import numpy as np
import pytest

from edgeseg.errors import EdgesegError, PromptError
from edgeseg.prompts import Prompt


def test_points_are_positive_unless_labels_say_otherwise():
    prompt = Prompt(points_xy=[(1, 2), (3, 4)])

    assert prompt.points_xy.tolist() == [[1, 2], [3, 4]]
    assert prompt.points_xy.dtype == np.float32
    assert prompt.point_labels.tolist() == [1, 1]
    assert prompt.point_labels.dtype == np.int64


def test_a_box_alone_has_no_points():
    prompt = Prompt(box_xyxy=(1, 2, 3, 4))

    assert prompt.points_xy.shape == (0, 2)
    assert prompt.point_labels.shape == (0,)
    assert prompt.box_xyxy.tolist() == [1, 2, 3, 4]
    assert prompt.box_xyxy.dtype == np.float32


def test_a_prompt_does_not_follow_later_changes_of_the_callers_arrays():
    points_xy, labels = np.ones((1, 2), np.float32), np.ones(1, np.int64)
    box, mask = np.array([1, 2, 3, 4], np.float32), np.zeros((2, 2), np.float32)
    prompt = Prompt(points_xy, labels, box, mask)

    for array in (points_xy, labels, box, mask):
        array[:] = 0.25

    assert prompt.points_xy.tolist() == [[1, 1]]
    assert prompt.point_labels.tolist() == [1]
    assert prompt.box_xyxy.tolist() == [1, 2, 3, 4]
    assert not prompt.mask_logits.any()


def test_a_further_click_keeps_everything_else():
    mask = np.full((2, 2), 3.0)
    prompt = Prompt([(1, 2)], [0], [0, 0, 9, 9], mask).with_point((4, 5), 1)

    assert prompt.points_xy.tolist() == [[1, 2], [4, 5]]
    assert prompt.point_labels.tolist() == [0, 1]
    assert prompt.box_xyxy.tolist() == [0, 0, 9, 9]
    np.testing.assert_array_equal(prompt.mask_logits, mask)


def test_a_further_click_is_checked_too():
    with pytest.raises(PromptError, match=r"must be 1 \(object\) or 0"):
        Prompt(points_xy=[(1, 2)]).with_point((4, 5), 2)


def test_labels_may_be_truth_values():
    assert Prompt([(1, 2), (3, 4)], [True, False]).point_labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "the prompt is empty; give points_xy, box_xyxy or mask_logits"),
        ({"points_xy": []}, "the prompt is empty"),
        (
            {"points_xy": (1, 2)},
            r"\(P, 2\), x then y, got shape \(2,\); write \[\(x, y\)\]",
        ),
        ({"points_xy": [(1, 2, 3)]}, r"must be \(P, 2\), x then y, got shape \(1, 3\)"),
        ({"points_xy": [[(1, 2)]]}, r"must be \(P, 2\), x then y, got shape \(1, 1, 2\)"),
        ({"points_xy": [("a", 2)]}, r"points_xy must be numbers .*got \[\('a', 2\)\]; give a list"),
        ({"points_xy": [(1, 2), (3,)]}, "points_xy must be numbers in rows of one length"),
        ({"points_xy": [(1, np.nan)]}, "points_xy must be finite, got nan; check how"),
        ({"points_xy": [(1, 1e39)]}, "points_xy must be finite, got inf"),
        (
            {"points_xy": [(1, 2)], "point_labels": [1, 0]},
            r"one label a point, got 2 for 1 points; give 1 \(object\) or 0",
        ),
        (
            {"box_xyxy": [0, 0, 1, 1], "point_labels": [1]},
            "one label a point, got 1 for 0 points",
        ),
        (
            {"points_xy": [(1, 2)], "point_labels": [-1]},
            r"must be 1 \(object\) or 0 \(not object\), got \[-1.0\]",
        ),
        ({"points_xy": [(1, 2)], "point_labels": [0.9]}, r"must be 1 .*got \[0.89"),
        (
            {"box_xyxy": [0, 0, 1]},
            r"\(4,\) with x0 < x1 and y0 < y1, got \[0.0, 0.0, 1.0\]",
        ),
        ({"box_xyxy": [[0, 0, 1, 1]]}, r"got \[\[.*\]\]; give two opposite corners, x before y"),
        ({"box_xyxy": [3, 0, 3, 1]}, r"must be \(4,\) with x0 < x1"),
        ({"box_xyxy": [0, 5, 3, 1]}, r"must be \(4,\) with x0 < x1"),
        ({"box_xyxy": [0, 0, np.inf, 1]}, "box_xyxy must be finite, got inf"),
        (
            {"mask_logits": np.zeros((2, 3))},
            r"must be square \(S/4, S/4\) .*got shape \(2, 3\); pass the low_res_logits",
        ),
        ({"mask_logits": np.zeros((1, 2, 2))}, r"must be square .*got shape \(1, 2, 2\)"),
        ({"mask_logits": np.full((2, 2), np.nan)}, "mask_logits must be finite, got nan"),
    ],
)
def test_a_prompt_that_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(PromptError, match=message):
        Prompt(**arguments)


def test_a_bad_prompt_can_be_caught_as_a_value_error():
    with pytest.raises(ValueError, match="empty"):
        Prompt()
    with pytest.raises(EdgesegError, match="empty"):
        Prompt()
