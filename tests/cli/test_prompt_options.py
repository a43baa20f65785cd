import pytest

from edgeseg.cli.prompt_options import parse_prompts
from edgeseg.errors import PromptError


def test_points_and_one_box_mean_one_object_together():
    (prompt,) = parse_prompts(["10,20", "30,40,0"], ["1,2,50,60"], each=False)

    assert prompt.points_xy.tolist() == [[10, 20], [30, 40]]
    assert prompt.point_labels.tolist() == [1, 0]
    assert prompt.box_xyxy.tolist() == [1, 2, 50, 60]


def test_several_boxes_are_several_objects():
    first, second = parse_prompts([], ["1,2,3,4", "5,6,7,8"], each=False)

    assert first.box_xyxy.tolist() == [1, 2, 3, 4]
    assert second.box_xyxy.tolist() == [5, 6, 7, 8]


def test_each_makes_every_point_and_box_an_object_of_its_own():
    prompts = parse_prompts(["1,2", "3,4,0"], ["5,6,7,8"], each=True)

    assert [len(prompt.points_xy) for prompt in prompts] == [1, 1, 0]
    assert prompts[1].point_labels.tolist() == [0]


@pytest.mark.parametrize(
    ("points", "boxes", "message"),
    [
        ([], [], "there is no prompt; give --point"),
        (["1"], [], "--point must be X,Y or X,Y,LABEL in pixels, got '1'"),
        (["a,b"], [], "--point must be X,Y or X,Y,LABEL in pixels, got 'a,b'"),
        ([], ["1,2,3"], "--box must be X0,Y0,X1,Y1 in pixels, got '1,2,3'"),
        ([], ["5,6,1,2"], "box_xyxy must be"),
        (["1,2,7"], [], "point_labels must be 1"),
        (["1,2"], ["1,2,3,4", "5,6,7,8"], "could belong to any of 2 boxes"),
    ],
)
def test_what_cannot_be_meant_is_refused(points, boxes, message):
    with pytest.raises(PromptError, match=message):
        parse_prompts(points, boxes, each=False)
