import cv2
import numpy as np
import pytest
from tiny_data_sets import rectangle

from edgeseg.data.mask_patches import MaskPatch
from edgeseg.errors import DataError
from edgeseg.geometry import ModelFrame

HW = (4, 6)
L_SHAPE = np.zeros(HW, np.uint8)  # rows 1 to 2, columns 3 to 5, without the pixel (2, 5)
L_SHAPE[1:3, 3:6] = [[1, 1, 1], [1, 1, 0]]


def random_mask(height, width, seed=0):
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), 4) > 0.5).astype(np.uint8)


@pytest.mark.parametrize(
    "mask", [L_SHAPE, L_SHAPE.astype(bool), np.asfortranarray(L_SHAPE), 255 * L_SHAPE]
)
def test_a_patch_is_the_tight_cut_of_its_mask(mask):
    patch = MaskPatch.of_mask(mask)

    assert patch.pixels.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert (patch.left, patch.top, patch.image_hw) == (3, 1, (4, 6))
    assert patch.box_xyxy.tolist() == [3, 1, 6, 3]
    assert patch.area_px == 5
    assert patch.to_mask().tolist() == L_SHAPE.astype(bool).tolist()


def test_an_empty_mask_and_a_mask_of_floats_are_refused():
    with pytest.raises(DataError, match="the mask is empty"):
        MaskPatch.of_mask(np.zeros(HW, bool))
    with pytest.raises(DataError, match=r"must be \(H, W\) bool or uint8, got \(4, 6\) float64"):
        MaskPatch.of_mask(L_SHAPE * 0.5)


@pytest.mark.parametrize(
    ("change", "reference"),
    [
        (MaskPatch.flipped_x, np.fliplr),
        (MaskPatch.flipped_y, np.flipud),
        (MaskPatch.turned, np.rot90),
    ],
)
def test_flips_and_turns_are_those_of_the_whole_mask(change, reference):
    patch = change(MaskPatch.of_mask(L_SHAPE))

    assert patch.to_mask().astype(int).tolist() == reference(L_SHAPE).tolist()


def test_every_window_shows_what_lies_in_it():
    patch = MaskPatch.of_mask(L_SHAPE)
    for x0, y0, x1, y1 in [(0, 0, 6, 4), (4, 0, 6, 4), (3, 2, 6, 4), (5, 1, 6, 2), (1, 1, 5, 3)]:
        expected = L_SHAPE[y0:y1, x0:x1]
        seen = patch.cropped((x0, y0, x1, y1))

        assert seen.to_mask().astype(int).tolist() == expected.tolist()
        assert seen.box_xyxy.tolist() == MaskPatch.of_mask(expected).box_xyxy.tolist()


def test_a_window_that_cuts_off_the_touching_pixels_gives_a_tight_patch_again():
    diagonal = np.eye(6, 8, dtype=np.uint8)  # pixels (k, k)
    corner = MaskPatch.of_mask(diagonal).cropped((1, 0, 8, 6))  # from column 1 on
    lower = MaskPatch.of_mask(diagonal).cropped((0, 2, 4, 6))  # rows 2 to 5, columns 0 to 3

    assert np.array_equal(corner.to_mask(), diagonal[:, 1:])
    assert corner.box_xyxy.tolist() == [0, 1, 5, 6]
    assert np.array_equal(lower.to_mask(), diagonal[2:, :4])
    assert lower.box_xyxy.tolist() == [2, 0, 4, 2]


@pytest.mark.parametrize("window", [(0, 0, 3, 4), (0, 0, 6, 1), (0, 3, 6, 4), (5, 2, 6, 4)])
def test_a_window_without_the_object_shows_nothing(window):
    # The last window meets the patch's box, but only where the object is not.
    assert MaskPatch.of_mask(L_SHAPE).cropped(window) is None


def test_a_cell_belongs_to_the_object_when_more_than_half_of_it_is_covered():
    mask = rectangle((4, 8), 1, 0, 5, 3)
    frame = ModelFrame((4, 8), image_size=8)  # one model pixel an image pixel; cells of 4 x 4

    # Cells cover 3 x 3 = 9 of 16 pixels and 1 x 3; below is padding.
    grid = MaskPatch.of_mask(mask).on_grid(frame, grid_size=2)

    assert grid.tolist() == [[True, False], [False, False]]


def test_exactly_half_a_cell_is_not_enough():
    frame = ModelFrame((4, 8), image_size=8)

    grid = MaskPatch.of_mask(rectangle((4, 8), 2, 0, 8, 4)).on_grid(frame, grid_size=2)

    assert grid.tolist() == [[False, True], [False, False]]


def test_padding_never_belongs_to_an_object():
    for height, width in [(3, 8), (8, 3)]:
        whole = MaskPatch.of_mask(np.ones((height, width), np.uint8))

        grid = whole.on_grid(ModelFrame((height, width), image_size=64), grid_size=16)

        # 3 / 8 of 16 cells are 6.
        assert grid[: height * 2, : width * 2].all()
        assert grid.sum() == 16 * 6


@pytest.mark.parametrize(("height", "width"), [(97, 150), (150, 97), (20, 31), (64, 64), (1, 9)])
def test_cells_agree_with_averaging_a_finely_drawn_mask(height, width):
    mask = random_mask(height, width)
    mask[0, 0] = 1
    frame = ModelFrame((height, width), image_size=64)
    content_h, content_w = frame.content_hw
    fine = np.zeros((64 * 8, 64 * 8), np.float64)  # 8 x 8 samples a model pixel
    rows = ((np.arange(content_h * 8) + 0.5) / (content_h * 8) * height).astype(int)
    cols = ((np.arange(content_w * 8) + 0.5) / (content_w * 8) * width).astype(int)
    fine[: len(rows), : len(cols)] = mask[np.ix_(rows, cols)]
    share = fine.reshape(16, 32, 16, 32).mean(axis=(1, 3))

    grid = MaskPatch.of_mask(mask).on_grid(frame, grid_size=16)

    clear = abs(share - 0.5) > 0.04  # the samples are no exact areas either
    assert clear.mean() > 0.8
    assert np.array_equal(grid[clear], share[clear] > 0.5)
