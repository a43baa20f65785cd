import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pydantic import ValidationError
from tiny_data_sets import rectangle

from edgeseg.data.mask_patches import MaskPatch
from edgeseg.data.region_unions import RegionUnions, UnionConfig, join_regions

HW = (40, 60)
SQUARE = (10, 10, 20, 20)
ANY = {
    "min_contact": 0, "max_overlap": 1, "min_fill": 0, "min_member_share": 0, "max_area_share": 1,
    "max_box_iou": 1,
}  # fmt: skip
"""No limit but that regions touch."""


def patch_of(box_xyxy):
    return MaskPatch.of_mask(rectangle(HW, *box_xyxy))


def join(first, second, gap_px=2, **limits):
    return join_regions(patch_of(first), patch_of(second), UnionConfig(**ANY | limits), gap_px)


def unions_of(boxes, seed=0, hidden=(), asked=None, **config):
    """Return the unions of rectangles; `asked` collects the numbers that are decoded."""
    masks = [rectangle(HW, *box) for box in boxes]
    rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]

    def seen(number):
        if asked is not None:
            asked.append(number)
        return None if number in hidden else MaskPatch.of_mask(masks[number])

    rng = np.random.default_rng(seed)
    return RegionUnions(rles, seen, UnionConfig(**{"probability": 1, **config}), rng)


def test_a_union_has_the_pixels_of_both_regions():
    expected = rectangle(HW, 10, 10, 20, 20) | rectangle(HW, 20, 5, 26, 18)

    for boxes in [(SQUARE, (20, 5, 26, 18)), ((20, 5, 26, 18), SQUARE)]:
        union = join(*boxes)
        assert np.array_equal(union.to_mask(), expected.astype(bool))
        assert union.box_xyxy.tolist() == [10, 5, 26, 20]
        assert union.image_hw == HW


@pytest.mark.parametrize(
    ("second", "contact"),
    [
        ((20, 14, 30, 24), 0.8),  # rows 14 to 19, and 2 px more within reach, of 10 px
        ((20, 16, 30, 26), 0.6),
        ((21, 10, 31, 20), 0.5),  # one of the two columns within reach
        ((20, 20, 30, 30), 0.2),  # corners touch: 2 x 2 px within reach over a gap of 2 px
        ((10, 21, 20, 31), 0.5),
    ],
)
def test_regions_must_touch_along_a_border(second, contact):
    for first, other in [(SQUARE, second), (second, SQUARE)]:
        assert join(first, other, min_contact=contact) is not None
        assert join(first, other, min_contact=contact + 0.01) is None


def test_contact_is_measured_against_the_smaller_region():
    # 4 px of border between 10 x 10 px and 4 x 4 px; the gap reaches no further beside them.
    small = (20, 13, 24, 17)

    assert join(SQUARE, small, min_contact=1.0) is not None
    assert join(small, SQUARE, gap_px=1, min_contact=1.0) is not None


def test_regions_apart_are_no_union_without_any_limit():
    assert join(SQUARE, (22, 10, 32, 20)) is None
    assert join(SQUARE, (22, 10, 32, 20), gap_px=3) is not None
    assert join(SQUARE, (10, 22, 20, 32)) is None


@pytest.mark.parametrize(
    ("second", "limit", "value"),
    [
        # 10 of 100 px lie in both.
        ((19, 10, 29, 20), "max_overlap", 0.1),
        # 200 px in a box of 20 x 20.
        ((20, 20, 30, 30), "min_fill", 0.5),
        # 20 of 120 px are the smaller one's.
        ((20, 10, 22, 20), "min_member_share", 1 / 6),
        # 20 of its 40 px lie in the square, so it adds 20 to 100.
        ((18, 10, 22, 20), "min_member_share", 1 / 6),
        # 200 of 40 x 60 px.
        ((20, 10, 30, 20), "max_area_share", 200 / 2400),
        # Boxes of 10 x 10 and 10 x 15.
        ((20, 10, 25, 20), "max_box_iou", 10 / 15),
    ],
)
def test_each_limit_is_kept_in_either_order(second, limit, value):
    tighter = 0.001 if limit.startswith("min") else -0.001
    for first, other in [(SQUARE, second), (second, SQUARE)]:
        assert join(first, other, **{limit: value - tighter}) is not None
        assert join(first, other, **{limit: value + tighter}) is None


def test_a_whole_and_its_part_are_no_union():
    whole, part = (10, 10, 40, 30), (12, 12, 20, 28)

    assert join(whole, part, max_overlap=0.9) is None
    assert join(part, whole, max_overlap=0.9) is None


def test_the_gap_is_a_share_of_the_longest_side_and_at_least_a_pixel():
    config = UnionConfig(max_gap=0.01)

    assert config.gap_px((30, 300)) == config.gap_px((300, 30)) == 3
    assert config.gap_px((30, 40)) == 1


def test_no_union_is_looked_for_without_its_chance():
    unions = unions_of([SQUARE, (20, 10, 30, 20)], probability=0)
    patch = patch_of(SQUARE)

    assert all(unions.vary(0, patch) is patch for _ in range(20))


def test_a_union_comes_once():
    boxes = [SQUARE, (20, 10, 30, 20)]
    unions = unions_of(boxes)
    second = patch_of(boxes[1])

    assert unions.vary(0, patch_of(SQUARE)).box_xyxy.tolist() == [10, 10, 30, 20]
    assert unions.vary(1, second) is second


def test_the_number_of_members_varies_up_to_the_most():
    row = [(x, 10, x + 6, 16) for x in range(10, 46, 6)]

    def widths(max_members):
        return {
            unions_of(row, seed, max_members=max_members).vary(2, patch_of(row[2])).pixels.shape[1]
            for seed in range(40)
        }

    assert widths(2) == {12}
    assert widths(3) == {12, 18}


def test_neighbours_are_drawn_at_random():
    row = [(10, 10, 16, 16), (16, 10, 22, 16), (22, 10, 28, 16)]
    starts = {
        unions_of(row, seed, max_members=2).vary(1, patch_of(row[1])).left for seed in range(20)
    }

    assert starts == {10, 16}


def test_hidden_masks_do_not_join():
    patch = patch_of(SQUARE)

    assert unions_of([SQUARE, (20, 10, 30, 20)], hidden={1}).vary(0, patch) is patch


def test_only_masks_that_may_join_are_decoded():
    asked = []
    boxes = [SQUARE, (20, 10, 30, 20), (40, 10, 50, 20), (12, 12, 18, 18), (20, 20, 22, 22)]
    unions = unions_of(boxes, asked=asked)  # one touches, one is far, one inside, one a speck

    unions.vary(0, patch_of(SQUARE))

    assert asked == [1]


@pytest.mark.parametrize(
    ("background", "thing"),
    [
        ((0, 10, 10, 30), (10, 10, 25, 30)),
        ((20, 0, 40, 10), (20, 10, 40, 25)),
        ((50, 10, 60, 30), (35, 10, 50, 30)),
        ((20, 30, 40, 40), (20, 15, 40, 30)),
    ],
    ids=["left", "top", "right", "bottom"],
)
def test_background_stays_alone(background, thing):
    # 20 px on the image's edge are 1.41 sides of a square of 200 px.
    for boxes in ([background, thing], [thing, background]):
        patch = patch_of(boxes[0])
        assert unions_of(boxes, max_border=1.41).vary(0, patch) is patch
        assert unions_of(boxes, max_border=1.42).vary(0, patch) is not patch


def test_unknown_fields_and_impossible_limits_are_refused():
    with pytest.raises(ValidationError, match="max_gap_px"):
        UnionConfig(max_gap_px=3)
    with pytest.raises(ValidationError, match="max_members"):
        UnionConfig(max_members=1)
