import numpy as np
import pytest
from pycocotools import mask as coco_mask
from tiny_data_sets import rectangle

from edgeseg.data.donors import DonorPool, border_share, is_one_piece, is_part
from edgeseg.data.mask_patches import MaskPatch
from edgeseg.data.records import ByteRange, ImageRecord

HW = (30, 40)


def record(name, with_masks=True):
    annotations = ByteRange(f"{name}.json") if with_masks else None
    return ImageRecord(name, name.split("/")[0], ByteRange(f"{name}.jpg"), annotations)


def drawn(records, receiver, count=60):
    pool, rng = DonorPool(records), np.random.default_rng(0)
    donors = [pool.sample(receiver, rng) for _ in range(count)]
    return {donor and donor.name for donor in donors}


def test_donors_are_the_other_annotated_images_of_the_domain():
    records = [record("cats/1"), record("dogs/1"), record("cats/2"), record("cats/3", False)]
    records += [record("cats/4")]

    assert drawn(records, records[0]) == {"cats/2", "cats/4"}
    assert drawn(records, records[4]) == {"cats/1", "cats/2"}
    assert drawn(records, record("cats/new")) == {"cats/1", "cats/2", "cats/4"}


def test_an_image_alone_in_its_domain_has_no_donor():
    records = [record("cats/1"), record("dogs/1"), record("dogs/2", with_masks=False)]

    assert drawn(records, records[1]) == {None}
    assert drawn(records, record("birds/1")) == {None}


@pytest.mark.parametrize(("width", "expected"), [(8, False), (9, True)])
def test_a_part_lies_in_another_mask_with_more_than_four_fifths(width, expected):
    boxes = [(10, 10, 20, 20), (30, 2, 39, 29), (20 - width, 5, 38, 29)]
    rles = [coco_mask.encode(np.asfortranarray(rectangle(HW, *box))) for box in boxes]

    assert is_part(rles[0], rles[1:]) is expected
    assert not is_part(rles[0], rles[1:2])
    assert not is_part(rles[0], [])


def test_an_object_in_one_piece_has_nine_tenths_of_it_connected():
    nine = rectangle(HW, 10, 10, 19, 11)  # 9 px, connected

    assert is_one_piece(MaskPatch.of_mask(nine | rectangle(HW, 25, 10, 26, 11)))
    assert not is_one_piece(MaskPatch.of_mask(nine | rectangle(HW, 25, 10, 27, 11)))
    assert is_one_piece(MaskPatch.of_mask(np.eye(30, 40, dtype=np.uint8)))  # by corners


def test_the_share_of_the_border_counts_pixels_on_every_edge():
    # Squares of 100 px, whose side is 10 px.
    corners = [(0, 0, 10, 10), (30, 0, 40, 10), (0, 20, 10, 30), (30, 20, 40, 30)]
    edges = [(0, 5, 10, 15), (5, 0, 15, 10), (30, 5, 40, 15), (5, 20, 15, 30)]

    def share(box):
        return border_share(MaskPatch.of_mask(rectangle(HW, *box)))

    assert [share(box) for box in corners] == [2.0] * 4
    assert [share(box) for box in edges] == [1.0] * 4
    assert share((5, 5, 15, 15)) == 0
    # One pixel of the diagonal touches the left edge and the top, another one the bottom.
    assert border_share(MaskPatch.of_mask(np.eye(30, 40, dtype=np.uint8))) == 3 / np.sqrt(30)
