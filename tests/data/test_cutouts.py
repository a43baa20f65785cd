import numpy as np
import pytest
from tiny_data_sets import rectangle

from edgeseg.data.cutouts import Cutout, PlacedCutout
from edgeseg.data.mask_patches import MaskPatch

HW = (30, 40)
IMAGE = np.random.default_rng(0).integers(0, 256, (*HW, 3), np.uint8)


def cutout_of(box_xyxy, margin_px=0, image=IMAGE):
    return Cutout.of_image(image, MaskPatch.of_mask(rectangle(HW, *box_xyxy)), margin_px)


def plain(value, rows, cols):
    return np.full((rows, cols, 3), value, np.uint8)


def placed_of(box_xyxy, colors, image_hw=HW):
    """Return an opaque rectangle in its place."""
    patch = MaskPatch.of_mask(rectangle(image_hw, *box_xyxy))
    return PlacedCutout(patch, colors, 255 * patch.pixels, patch.left, patch.top)


def test_a_cutout_is_the_object_with_a_margin_where_the_image_has_one():
    cutout = cutout_of((0, 5, 10, 12), margin_px=3)

    assert np.array_equal(cutout.colors, IMAGE[2:15, 0:13])
    assert np.array_equal(cutout.mask, 255 * rectangle((13, 13), 0, 3, 10, 10))


@pytest.mark.parametrize(
    ("box_xyxy", "cut_off"),
    [
        ((1, 1, 39, 29), [[False, False], [False, False]]),
        ((0, 1, 9, 9), [[True, False], [False, False]]),
        ((30, 1, 40, 9), [[False, True], [False, False]]),
        ((1, 0, 9, 9), [[False, False], [True, False]]),
        ((1, 20, 9, 30), [[False, False], [False, True]]),
    ],
)
def test_a_cutout_knows_which_edges_cut_it_off(box_xyxy, cut_off):
    assert cutout_of(box_xyxy).cut_off.tolist() == cut_off
    flipped = cutout_of(box_xyxy).flipped_x()
    assert flipped.cut_off.tolist() == [cut_off[0][::-1], cut_off[1]]


def test_a_flipped_cutout_is_mirrored():
    cutout = cutout_of((0, 5, 10, 12), margin_px=3)
    flipped = cutout.flipped_x()

    assert np.array_equal(flipped.colors, np.fliplr(IMAGE[2:15, 0:13]))
    assert np.array_equal(flipped.mask, 255 * rectangle((13, 13), 3, 3, 13, 10))


def test_scaling_keeps_the_mask_binary_and_in_place():
    cutout = cutout_of((10, 8, 18, 12), margin_px=4)  # 16 wide, 12 high with the margin

    larger, smaller = cutout.scaled(2.0), cutout.scaled(0.5)

    assert larger.mask.shape == larger.colors.shape[:2] == (24, 32)
    assert np.array_equal(larger.mask, 255 * rectangle((24, 32), 8, 8, 24, 16))
    assert np.array_equal(smaller.mask, 255 * rectangle((6, 8), 2, 2, 6, 4))
    # Areas are averaged: a pixel is the mean of 2 x 2.
    mean = IMAGE[4:6, 6:8].reshape(4, 3).mean(axis=0)
    assert abs(smaller.colors[0, 0] - mean).max() <= 0.5


def test_a_pixel_belongs_to_the_object_when_half_of_it_does():
    assert cutout_of((10, 8, 11, 12)).scaled(0.5).mask.tolist() == [[255], [255]]
    # One of three columns.
    assert not cutout_of((11, 8, 12, 11), margin_px=1).scaled(1 / 3).mask.any()


def test_an_object_lies_in_the_image_anywhere():
    cutout = cutout_of((10, 8, 13, 10), margin_px=2)  # 3 wide, 2 high
    rng = np.random.default_rng(0)
    corners = set()
    for _ in range(200):
        placed = cutout.placed_at_random((4, 6), 0.0, rng)
        patch = placed.patch
        corners.add((patch.left, patch.top))
        assert patch.image_hw == (4, 6)
        assert patch.pixels.tolist() == [[1, 1, 1], [1, 1, 1]]

    assert corners == {(x, y) for x in range(4) for y in range(3)}


@pytest.mark.parametrize(
    ("box_xyxy", "place"),
    [
        ((0, 10, 9, 20), {"left": 0}),
        ((31, 10, 40, 20), {"left": 41}),  # of 50 columns, 9 wide
        ((10, 0, 20, 9), {"top": 0}),
        ((10, 21, 20, 30), {"top": 51}),  # of 60 rows, 9 high
    ],
)
def test_an_object_stays_at_the_edge_that_cut_it_off(box_xyxy, place):
    cutout = cutout_of(box_xyxy, margin_px=2)
    rng = np.random.default_rng(0)
    patches = [cutout.placed_at_random((60, 50), 0.0, rng).patch for _ in range(20)]

    (name, value) = next(iter(place.items()))
    other = "top" if name == "left" else "left"
    assert {getattr(patch, name) for patch in patches} == {value}
    assert len({getattr(patch, other) for patch in patches}) > 5


def test_only_the_object_is_drawn_when_the_edge_is_sharp():
    box_xyxy = (10, 8, 20, 14)
    for seed in range(20):
        image = plain(7, 20, 16)
        placed = cutout_of(box_xyxy, margin_px=4).placed_at_random(
            (20, 16), 0.0, np.random.default_rng(seed)
        )
        placed.blend(image)

        mask = placed.patch.to_mask()
        assert np.array_equal(image[mask], IMAGE[8:14, 10:20].reshape(-1, 3))
        assert (image[~mask] == 7).all()


def test_a_soft_edge_blends_the_image_and_leaves_the_mask_sharp():
    donor = plain(100, *HW)
    soft, sharp = (
        cutout_of((10, 8, 26, 22), 8, donor).placed_at_random(
            (60, 60), edge_px, np.random.default_rng(1)
        )
        for edge_px in (1.5, 0.0)
    )
    image = plain(200, 60, 60)

    soft.blend(image)

    assert np.array_equal(soft.patch.to_mask(), sharp.patch.to_mask())
    y, x0 = soft.patch.top + 7, soft.patch.left
    row = image[y, :, 0].astype(int)
    assert row[x0 + 8] == 100
    assert row[x0 - 6] == 200
    # The Gaussian is symmetric: half of the change lies at the border between two pixels.
    assert abs(row[x0 - 1] + row[x0] - 300) <= 2
    assert 110 < row[x0] < 150 < row[x0 - 1] < 190


def test_an_edge_of_the_image_does_not_fade_what_it_cuts_off():
    placed = cutout_of((0, 8, 12, 22), 6).placed_at_random((60, 60), 1.5, np.random.default_rng(0))

    assert (placed.opacity[placed.patch.top - placed.top + 7, :4] == 255).all()


def test_nothing_is_placed_when_no_pixel_is_left():
    cutout = cutout_of((11, 8, 12, 11), margin_px=1).scaled(1 / 3)

    assert cutout.placed_at_random(HW, 0.0, np.random.default_rng(0)) is None


def test_an_object_as_large_as_the_image_fills_it():
    placed = cutout_of((10, 8, 20, 14), margin_px=3).placed_at_random(
        (6, 10), 1.0, np.random.default_rng(0)
    )

    assert placed.patch.box_xyxy.tolist() == [0, 0, 10, 6]
    assert placed.opacity.shape == placed.colors.shape[:2] == (6, 10)


def test_contrast_is_the_mean_difference_of_the_most_different_channel():
    image = plain(90, *HW)
    colors = plain(90, 10, 8) + np.array([10, 30, 0], np.uint8)

    assert placed_of((20, 5, 28, 15), colors).contrast(image) == 30.0
    assert placed_of((20, 5, 28, 15), colors - 60).contrast(image) == 60.0  # blue
    image[:10] = 120  # the upper half of the object is as green as the image
    assert placed_of((20, 5, 28, 15), colors).contrast(image) < 31


def test_contrast_looks_at_the_place_of_the_object_only():
    image = plain(0, *HW)
    image[5:15, 20:28] = 50

    placed = placed_of((20, 5, 28, 15), plain(50, 10, 8))

    assert placed.contrast(image) == 0


def test_equal_texture_has_little_contrast():
    checks = 100 * np.indices((20, 20)).sum(axis=0) % 200
    checks = np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)
    image = np.zeros((*HW, 3), np.uint8)
    image[5:25, 10:30] = 100 - checks  # black for white

    assert placed_of((10, 5, 30, 25), checks).contrast(image) < 10  # pixel by pixel it is 100
