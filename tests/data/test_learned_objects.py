import pytest
from tiny_data_sets import rectangle

from edgeseg.data.learned_objects import LearnedObject
from edgeseg.data.mask_patches import MaskPatch

HW = (30, 40)


def learned(*box_xyxy):
    return LearnedObject.of_patch(MaskPatch.of_mask(rectangle(HW, *box_xyxy)), student_size=80)


def test_the_low_res_mask_lies_in_the_students_frame():
    # 40 px are 80 model px and 20 cells, so a cell covers 2 x 2 px.
    assert (learned(4, 6, 30, 16).mask == rectangle((20, 20), 2, 3, 15, 8)).all()


def test_an_object_below_half_a_cell_leaves_no_trace():
    assert not learned(4, 6, 5, 8).leaves_trace
    assert learned(4, 6, 6, 8).leaves_trace


@pytest.mark.parametrize(
    ("box_xyxy", "share"),
    [
        ((4, 6, 30, 16), 1.0),
        ((4, 6, 30, 7), 0.0),
        ((4, 6, 30, 9), 2 / 3),  # two rows of cells: the second is covered by half, not by more
    ],
)
def test_the_kept_share_compares_areas(box_xyxy, share):
    assert learned(*box_xyxy).kept_share == pytest.approx(share)
