import numpy as np
import pytest

from edgeseg.errors import PromptError
from edgeseg.geometry import ModelFrame
from edgeseg.prompt_packing import pack_prompts
from edgeseg.prompts import Prompt

FRAME = ModelFrame((32, 64), 128)  # two model pixels a pixel along x and y
UNEVEN = ModelFrame((3, 128), 64)  # content 2 x 64: 2/3 along y, 1/2 along x


def test_points_come_first_then_the_corners_of_the_box_then_absent_slots():
    prompts = [
        Prompt(points_xy=[(10, 20)]),
        Prompt(points_xy=[(1, 2), (3, 4)], point_labels=[0, 1], box_xyxy=[5, 6, 7, 8]),
        Prompt(box_xyxy=[5, 6, 7, 8]),
    ]

    packed = pack_prompts(prompts, FRAME)

    assert packed.point_labels.tolist() == [[1, -2, -2, -2], [0, 1, 2, 3], [2, 3, -2, -2]]
    assert packed.points_xy.tolist() == [
        [[20, 40], [0, 0], [0, 0], [0, 0]],
        [[2, 4], [6, 8], [10, 12], [14, 16]],
        [[10, 12], [14, 16], [0, 0], [0, 0]],
    ]
    assert packed.points_xy.dtype == np.float32
    assert packed.point_labels.dtype == np.int64
    assert packed.mask_logits is None
    assert packed.has_mask is None
    assert len(packed) == 3


def test_x_and_y_are_scaled_each_by_its_own_factor():
    packed = pack_prompts([Prompt(points_xy=[(60, 1.5)], box_xyxy=[0, 0, 128, 3])], UNEVEN)

    np.testing.assert_allclose(packed.points_xy[0], [[30, 1], [0, 0], [64, 2]], rtol=1e-6)


def test_mask_prompts_are_marked_and_the_others_are_zero():
    mask_logits = np.arange(32 * 32, dtype=np.float32).reshape(32, 32)
    point = Prompt(points_xy=[(1, 1)])
    prompts = [point, Prompt(mask_logits=mask_logits), point]

    packed = pack_prompts(prompts, FRAME)

    assert packed.mask_logits.shape == (3, 1, 32, 32)
    assert packed.mask_logits.dtype == np.float32
    assert packed.has_mask.tolist() == [False, True, False]
    assert not packed.mask_logits[[0, 2]].any()
    np.testing.assert_array_equal(packed.mask_logits[1, 0], mask_logits)
    assert packed.point_labels.tolist() == [[1], [-2], [1]]


def test_only_a_mask_or_no_prompt_at_all_still_has_one_slot():
    packed = pack_prompts([Prompt(mask_logits=np.zeros((32, 32)))], FRAME)
    nothing = pack_prompts([], FRAME)

    assert packed.points_xy.shape == (1, 1, 2)
    assert nothing.points_xy.shape == (0, 1, 2)
    assert nothing.point_labels.shape == (0, 1)
    assert nothing.mask_logits is None


def test_a_mask_prompt_of_another_model_is_refused():
    prompt = Prompt(mask_logits=np.zeros((64, 64)))

    with pytest.raises(PromptError, match=r"must be \(32, 32\) for a model with 128 .* \(64, 64\)"):
        pack_prompts([prompt], FRAME)


@pytest.mark.parametrize("point_xy", [(20, 40), (-1, 3), (65, 3), (3, -0.5)])
def test_a_point_beside_the_image_is_refused(point_xy):
    with pytest.raises(PromptError, match="image, 64 wide and 32 high, got .*; give x before y"):
        pack_prompts([Prompt(points_xy=[(1, 1), point_xy])], FRAME)


def test_the_outer_edges_of_the_image_belong_to_it():
    packed = pack_prompts([Prompt(points_xy=[(0, 0), (64, 32)])], FRAME)

    assert packed.points_xy.tolist() == [[[0, 0], [128, 64]]]


@pytest.mark.parametrize("box", [[64, 0, 70, 9], [0, 32, 9, 40], [-9, 0, 0, 9], [0, -9, 9, 0]])
def test_a_box_beside_the_image_is_refused(box):
    with pytest.raises(PromptError, match="must overlap the image, 64 wide and 32 high"):
        pack_prompts([Prompt(box_xyxy=box)], FRAME)


def test_a_box_may_reach_over_the_border():
    packed = pack_prompts([Prompt(box_xyxy=[-2, 30, 9, 40])], FRAME)

    assert packed.points_xy.tolist() == [[[-4, 60], [18, 80]]]
