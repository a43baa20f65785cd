import numpy as np
import pytest

from edgeseg.errors import PromptError
from edgeseg.prompts import ABSENT
from edgeseg.runtime.prompt_slots import EmptyMasks, fill_slots
from edgeseg.signature import PromptSlots

POINTS_XY = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
LABELS = np.array([[1, 0], [2, 3], [1, ABSENT]])
MASKS = np.arange(3, dtype=np.float32).repeat(4).reshape(3, 1, 2, 2)


def fill(slots, masks=None, has_mask=None, points_xy=POINTS_XY, labels=LABELS):
    empty = EmptyMasks(2, np.dtype(np.float32))
    return list(fill_slots(points_xy, labels, masks, has_mask, slots, empty))


def test_a_decoder_of_any_size_gets_everything_in_one_call():
    (call,) = fill(PromptSlots())

    np.testing.assert_array_equal(call.points_xy, POINTS_XY)
    np.testing.assert_array_equal(call.point_labels, LABELS)
    assert call.num_prompts == 3
    assert call.mask_logits.shape == (3, 1, 2, 2)
    assert call.has_mask.tolist() == [0, 0, 0]


def test_empty_slots_of_a_prompt_are_absent():
    (call,) = fill(PromptSlots(num_points=3))

    assert call.point_labels.tolist() == [[1, 0, -2], [2, 3, -2], [1, -2, -2]]
    assert call.points_xy[1].tolist() == [[4, 5], [6, 7], [0, 0]]


def test_rows_left_over_repeat_the_last_prompt_and_its_mask():
    first, second = fill(PromptSlots(num_prompts=2), MASKS, np.array([True, False, True]))

    assert (first.num_prompts, second.num_prompts) == (2, 1)
    assert first.point_labels.tolist() == [[1, 0], [2, 3]]
    assert second.point_labels.tolist() == [[1, -2], [1, -2]]
    assert second.points_xy.tolist() == [[[8, 9], [10, 11]]] * 2
    assert second.mask_logits[:, 0, 0, 0].tolist() == [2, 2]
    assert first.has_mask.tolist() == [1, 0]
    assert second.has_mask[0] == 1
    assert first.has_mask.dtype == np.float32


def test_points_without_a_slot_are_refused_unless_they_are_absent():
    (call,) = fill(PromptSlots(num_points=1), labels=np.array([[1, ABSENT]] * 3))
    assert call.points_xy.shape == (3, 1, 2)

    with pytest.raises(PromptError, match=r"at most 1 points and box corners a prompt, got 2; lea"):
        fill(PromptSlots(num_points=1))


def test_empty_masks_are_allocated_once_and_cannot_be_written():
    masks = EmptyMasks(4, np.dtype(np.float16))

    five = masks.rows(5)
    three, again = masks.rows(3), masks.rows(5)

    assert (five.shape, five.dtype) == ((5, 1, 4, 4), np.float16)
    assert not five.any()
    assert np.shares_memory(five, three)
    assert np.shares_memory(five, again)
    assert three.shape == (3, 1, 4, 4)
    with pytest.raises(ValueError, match="read-only"):
        three[0] = 1
