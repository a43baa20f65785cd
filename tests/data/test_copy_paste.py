import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError
from tiny_data_sets import rectangle, sa1b_json

from edgeseg.data.copy_paste import Paste, PasteConfig, sample_paste
from edgeseg.data.mask_patches import MaskPatch
from edgeseg.data.records import ByteRange, ImageRecord
from edgeseg.errors import DataError, ImageError

HW = (30, 40)
GREY = np.full((*HW, 3), 90, np.uint8)
EXACT = {
    "min_scale": 1, "max_scale": 1, "horizontal_flip": 0, "min_area_share": 0, "max_area_share": 1,
    "edge_px": 0,
}  # fmt: skip
"""Objects are pasted as they are, at a random place."""


def donor_of(folder, masks, image_hw=HW, image=None):
    """Write an image whose column is in its red channel and whose row is in its blue one."""
    if image is None:
        rows, cols = np.indices(image_hw)
        image = np.stack([cols + 150, np.full(image_hw, 200), rows + 150], axis=2)
    stem = Path(folder) / "donor"
    assert cv2.imwrite(f"{stem}.png", image.astype(np.uint8)[..., ::-1])
    Path(f"{stem}.json").write_text(json.dumps(sa1b_json(masks, image_hw)))
    return ImageRecord("pets/donor", "pets", ByteRange(f"{stem}.png"), ByteRange(f"{stem}.json"))


def paste_of(donor, seed=0, image=GREY, student_size=160, **config):
    rng = np.random.default_rng(seed)
    return sample_paste(donor, PasteConfig(**EXACT | config), image, student_size, rng)


def patch_of(*box_xyxy):
    return MaskPatch.of_mask(rectangle(HW, *box_xyxy))


def test_an_object_comes_with_its_colours_and_its_mask(tmp_path):
    donor = donor_of(tmp_path, [rectangle(HW, 10, 8, 20, 14)])
    places = set()
    for seed in range(20):
        paste = paste_of(donor, seed)

        (patch,) = paste.objects()
        mask = patch.to_mask()
        assert patch.pixels.shape == (6, 10)
        assert np.array_equal((paste.image != GREY).any(axis=2), mask)
        columns = paste.image[patch.top, patch.left : patch.left + 10, 0]
        assert columns.tolist() == list(range(160, 170))
        places.add((patch.left, patch.top))

    assert len(places) > 15
    assert (GREY == 90).all()


def test_flipped_objects_are_mirrored(tmp_path):
    donor = donor_of(tmp_path, [rectangle(HW, 10, 8, 20, 14)])

    def first_columns(share):
        pastes = [paste_of(donor, seed, horizontal_flip=share) for seed in range(40)]
        patches = [(paste.image, paste.objects()[0]) for paste in pastes]
        return [int(image[patch.top, patch.left, 0]) for image, patch in patches]

    assert set(first_columns(1)) == {169}
    assert 10 < first_columns(0.5).count(160) < 30


def test_at_scale_one_an_object_keeps_its_share_of_the_longest_side(tmp_path):
    donor = donor_of(tmp_path, [rectangle((60, 80), 20, 16, 40, 28)], (60, 80))

    assert paste_of(donor).objects()[0].pixels.shape == (6, 10)
    larger = np.full((100, 160, 3), 90, np.uint8)
    assert paste_of(donor, image=larger).objects()[0].pixels.shape == (24, 40)


def test_scales_are_drawn_between_the_two(tmp_path):
    donor = donor_of(tmp_path, [rectangle(HW, 10, 8, 20, 13)])
    pastes = [paste_of(donor, seed, min_scale=0.5, max_scale=2) for seed in range(80)]
    widths = [paste.objects()[0].pixels.shape[1] for paste in pastes]

    assert min(widths) in (5, 6)
    assert max(widths) in (19, 20)
    assert 25 < sum(width < 10 for width in widths) < 55  # the logarithm is uniform


def test_a_large_object_is_made_smaller(tmp_path):
    donor = donor_of(tmp_path, [rectangle(HW, 5, 5, 25, 25)])

    paste = paste_of(donor, max_area_share=100 / 1200)

    assert paste.objects()[0].pixels.shape == (10, 10)


@pytest.mark.parametrize(
    ("box_xyxy", "image_hw", "expected_hw"),
    [
        ((2, 2, 38, 8), (60, 20), (3, 20)),  # 36 x 6 px times 20 / 36
        ((2, 2, 8, 28), (20, 60), (20, 5)),  # 6 x 26 px times 20 / 26
    ],
)
def test_an_object_larger_than_the_image_is_made_to_fit(tmp_path, box_xyxy, image_hw, expected_hw):
    donor = donor_of(tmp_path, [rectangle(HW, *box_xyxy)])

    paste = paste_of(donor, image=np.full((*image_hw, 3), 90, np.uint8))

    # A margin is scaled with it, to whole pixels.
    assert np.abs(np.subtract(paste.objects()[0].pixels.shape, expected_hw)).max() <= 1


def test_a_small_object_is_not_pasted(tmp_path):
    donor = donor_of(tmp_path, [rectangle(HW, 10, 8, 20, 14)])  # 60 of 1200 px

    assert paste_of(donor, min_area_share=0.05) is not None
    assert paste_of(donor, min_area_share=0.051) is None
    assert paste_of(donor, min_area_share=0.05, min_scale=0.5, max_scale=0.9) is None


def test_the_number_of_objects_varies_up_to_the_most(tmp_path):
    masks = [rectangle(HW, x, 5, x + 4, 10) for x in range(2, 38, 5)]
    donor = donor_of(tmp_path, masks)
    counts = [len(paste_of(donor, seed, max_objects=3).covered) for seed in range(60)]

    assert {1, 2, 3} == set(counts)
    assert all(10 < counts.count(number) < 30 for number in (1, 2, 3))


def test_background_from_edge_to_edge_is_not_pasted(tmp_path):
    for box in [(0, 20, 40, 30), (5, 0, 9, 30)]:
        donor = donor_of(tmp_path, [rectangle(HW, *box)])
        assert paste_of(donor, max_border=100) is None


def test_background_along_an_edge_is_not_pasted(tmp_path):
    donor = donor_of(tmp_path, [rectangle(HW, 5, 20, 25, 30)])  # 20 px of 1.41 sides

    assert paste_of(donor, max_border=1.41) is None
    assert paste_of(donor, max_border=1.42).objects()[0].top == 20


def test_wholes_are_pasted_and_their_parts_are_not(tmp_path):
    masks = [rectangle(HW, 4, 4, 20, 20), rectangle(HW, 6, 6, 12, 12), rectangle(HW, 24, 4, 30, 10)]
    donor = donor_of(tmp_path, masks)
    shapes = {
        patch.pixels.shape for seed in range(20) for patch in paste_of(donor, seed).covered
    }  # fmt: skip

    assert shapes == {(16, 16), (6, 6)}
    assert all(len(paste_of(donor, seed).covered) <= 2 for seed in range(20))


def test_an_object_in_pieces_is_not_pasted(tmp_path):
    donor = donor_of(tmp_path, [rectangle(HW, 4, 4, 10, 10) | rectangle(HW, 20, 4, 26, 10)])

    assert paste_of(donor) is None


def test_what_could_hardly_be_seen_is_not_pasted(tmp_path):
    donor = donor_of(tmp_path, [rectangle(HW, 10, 8, 20, 14)], image=GREY + 10)

    assert paste_of(donor, min_contrast=10) is not None
    assert paste_of(donor, min_contrast=10.1) is None


def test_an_object_too_thin_for_its_low_res_mask_is_not_pasted(tmp_path):
    donor = donor_of(tmp_path, [rectangle(HW, 4, 8, 30, 9)])

    assert paste_of(donor, student_size=160) is not None  # a cell is one pixel
    assert paste_of(donor, student_size=40) is None  # a cell is 4 x 4 pixels


def test_an_image_without_masks_gives_nothing(tmp_path):
    assert paste_of(donor_of(tmp_path, [])) is None


def test_grey_donors_and_one_pixel_images_work(tmp_path):
    donor = donor_of(tmp_path, [rectangle(HW, 10, 8, 20, 14)])
    assert cv2.imwrite(str(donor.image.path), np.full(HW, 200, np.uint8))

    assert (paste_of(donor).image.max(axis=(0, 1)) == 200).all()
    paste_of(donor, image=np.full((1, 1, 3), 90, np.uint8))


def test_a_donor_that_cannot_be_read_is_an_error(tmp_path):
    donor = donor_of(tmp_path, [rectangle(HW, 10, 8, 20, 14)])
    (tmp_path / "donor.json").write_text("{")
    with pytest.raises(DataError, match=r"donor\.json .*not valid JSON"):
        paste_of(donor)
    (tmp_path / "donor.png").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"donor\.png"):
        paste_of(donor)


def test_covered_pixels_are_lost():
    paste = Paste(GREY, (patch_of(10, 10, 20, 20), patch_of(0, 0, 4, 4)), max_lost_share=0.5)

    left = paste.under(patch_of(15, 12, 30, 22))

    expected = rectangle(HW, 15, 12, 30, 22) & ~rectangle(HW, 10, 10, 20, 20)
    assert np.array_equal(left.to_mask(), expected.astype(bool))
    assert left.box_xyxy.tolist() == [15, 12, 30, 22]
    tight = paste.under(patch_of(18, 12, 25, 18))
    assert tight.box_xyxy.tolist() == [20, 12, 25, 18]
    assert tight.image_hw == HW
    assert paste.under(patch_of(12, 18, 18, 25)).box_xyxy.tolist() == [12, 20, 18, 25]


def test_a_mask_that_is_not_covered_stays_the_same():
    paste = Paste(GREY, (patch_of(10, 10, 20, 20),), max_lost_share=0.5)
    beside = patch_of(20, 10, 30, 20)
    around = MaskPatch.of_mask(rectangle(HW, 5, 5, 25, 25) & ~rectangle(HW, 8, 8, 22, 22))

    assert paste.under(beside) is beside
    assert paste.under(around) is around


def test_a_mask_that_loses_more_than_its_share_is_dropped():
    mask = patch_of(10, 10, 20, 20)

    def left_of(width, share):
        return Paste(GREY, (patch_of(10, 10, 10 + width, 20),), share).under(mask)

    assert left_of(4, 0.4).area_px == 60
    assert left_of(5, 0.4) is None
    assert left_of(9, 0.9).area_px == 10
    assert left_of(10, 0.9999999) is None


def test_losses_to_several_objects_add_up():
    mask = patch_of(10, 10, 20, 20)
    paste = Paste(GREY, (patch_of(10, 10, 13, 20), patch_of(17, 10, 20, 20)), max_lost_share=0.6)

    assert paste.under(mask).box_xyxy.tolist() == [13, 10, 17, 20]


def test_later_objects_lie_on_top():
    lower, upper = patch_of(10, 10, 20, 20), patch_of(16, 10, 26, 20)
    paste = Paste(GREY, (lower, upper), max_lost_share=0.5)

    first, second = paste.objects()

    assert first.box_xyxy.tolist() == [10, 10, 16, 20]
    assert second is upper
    assert Paste(GREY, (lower, upper), max_lost_share=0.3).objects() == [upper]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"min_scale": 2.0, "max_scale": 1.5}, "min_scale = 2.0 is above max_scale = 1.5"),
        ({"min_area_share": 0.3}, "min_area_share = 0.3 is above max_area_share = 0.25; lower it"),
        ({"min_scale": 0}, "min_scale"),
        ({"max_lost_share": 1}, "max_lost_share"),
        ({"scale": 1}, "scale"),
    ],
)
def test_impossible_limits_are_refused(wrong, reason):
    with pytest.raises(ValidationError, match=reason):
        PasteConfig(**wrong)
