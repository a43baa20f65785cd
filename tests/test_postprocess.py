import numpy as np
import pytest
import torch

from edgeseg.geometry import ModelFrame
from edgeseg.postprocess import (
    choose_mask,
    content_logits,
    crop_of_logits,
    num_content_cells,
    stability_score,
    upsample_logits,
    upsample_masks,
)
from edgeseg.prompts import ABSENT


def ramp(cells, axis):
    """Logits that grow by one per cell along an axis, (cells, cells)."""
    values = np.broadcast_to(np.arange(cells, dtype=np.float32), (cells, cells))
    return np.array(values if axis == "x" else values.T)


def test_upsampling_along_x_keeps_the_places_of_cell_centres():
    frame = ModelFrame((6, 8), 16)  # 4 x 4 cells of 2 image pixels, their centres at 1, 3, 5, 7
    # The logit at image coordinate x is (x - 1) / 2; pixel centres are at 0.5, 1.5, ... 7.5.
    row = [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]  # constant beyond the outer centres

    upsampled = upsample_logits(ramp(4, "x"), frame)

    np.testing.assert_array_equal(upsampled, np.tile(np.float32(row), (6, 1)))


def test_upsampling_along_y_keeps_the_places_of_cell_centres():
    frame = ModelFrame((6, 8), 16)
    column = [0.0, 0.25, 0.75, 1.25, 1.75, 2.0]  # 3 of 4 rows are content, centres at 1, 3, 5

    upsampled = upsample_logits(ramp(4, "y"), frame)

    np.testing.assert_array_equal(upsampled, np.tile(np.float32(column)[:, None], (1, 8)))


def test_content_that_ends_inside_a_cell_does_not_shift_the_mask():
    frame = ModelFrame((11, 32), 32)  # cells of 4 image pixels; the content is 2.75 cells high
    # Cell centres at y = 2, 6, 10; a resize of 3 rows to 11 pixels would put them 2 % off.
    expected = (np.clip(np.arange(11) + 0.5, 2, 10) - 2) / 4

    upsampled = upsample_logits(ramp(8, "y"), frame)

    np.testing.assert_array_equal(upsampled[:, 0], expected.astype(np.float32))


def test_content_that_ends_inside_a_cell_along_x_does_not_shift_the_mask():
    frame = ModelFrame((32, 11), 32)
    expected = (np.clip(np.arange(11) + 0.5, 2, 10) - 2) / 4

    upsampled = upsample_logits(ramp(8, "x"), frame)

    np.testing.assert_array_equal(upsampled[0], expected.astype(np.float32))


@pytest.mark.parametrize(
    ("image_hw", "cells_hw"),
    [
        ((6, 8), (3, 4)),
        ((11, 32), (3, 8)),  # 2.75 cells: the centre of the third, at 2.5, is inside
        ((10, 32), (2, 8)),  # 2.5 cells: the centre of the third lies on the edge
        ((32, 10), (8, 2)),
        ((6, 32), (1, 8)),  # 1.5 cells
        ((1, 32), (1, 8)),  # never none
    ],
)
def test_content_cells_are_those_whose_centre_is_inside_the_image(image_hw, cells_hw):
    size = 16 if image_hw == (6, 8) else 32
    frame = ModelFrame(image_hw, size)

    assert num_content_cells(frame, size // 4) == cells_hw
    logits = np.zeros((2, 5, size // 4, size // 4), np.float32)
    assert content_logits(logits, frame).shape == (2, 5, *cells_hw)


def test_upsampling_equals_torch_where_the_content_fills_its_cells():
    frame = ModelFrame((375, 500), 512)  # content 384 x 512, 96 x 128 cells
    logits = np.random.default_rng(0).standard_normal((128, 128)).astype(np.float32)
    content = torch.from_numpy(logits[:96])[None, None]
    expected = torch.nn.functional.interpolate(content, (375, 500), mode="bilinear")[0, 0]

    np.testing.assert_allclose(upsample_logits(logits, frame), expected, atol=1e-4)


def test_logits_of_the_padding_do_not_reach_the_image():
    frame = ModelFrame((11, 32), 32)
    clean, dirty = ramp(8, "x"), ramp(8, "x")
    dirty[3:] = 1e6

    np.testing.assert_array_equal(upsample_logits(dirty, frame), upsample_logits(clean, frame))


@pytest.mark.parametrize("image_hw", [(37, 100), (100, 37), (60, 80), (9, 7), (400, 500)])
def test_crop_holds_every_pixel_of_the_mask_and_no_row_or_column_too_many(image_hw):
    rng = np.random.default_rng(1)
    frame = ModelFrame(image_hw, 128)
    for threshold in (0.0, 1.5, 2.5, 3.0):  # from many small parts to one or two cells
        logits = (rng.standard_normal((32, 32)) - threshold).astype(np.float32)

        crop = crop_of_logits(logits, frame)

        full = upsample_logits(logits, frame) > 0
        np.testing.assert_array_equal(crop.to_mask(), full)
        if full.any():
            assert crop.pixels[0].any()
            assert crop.pixels[-1].any()
            assert crop.pixels[:, 0].any()
            assert crop.pixels[:, -1].any()


def test_crop_of_logits_that_are_nowhere_positive_is_empty():
    crop = crop_of_logits(np.zeros((8, 8), np.float32), ModelFrame((12, 32), 32))

    assert crop.area_px == 0
    assert crop.to_mask().shape == (12, 32)


def test_masks_are_upsampled_in_order_and_placed():
    frame = ModelFrame((3, 4), 16)  # a cell is an image pixel
    logits = np.full((3, 4, 4), -1, np.float32)
    logits[0, 2, 3] = 1
    logits[2, 0, 1] = 1

    masks = upsample_masks(logits, frame)

    assert masks.shape == (3, 3, 4)
    assert np.argwhere(masks).tolist() == [[0, 2, 3], [2, 0, 1]]


def test_upsampling_no_mask_gives_no_mask():
    assert upsample_masks(np.zeros((0, 4, 4), np.float32), ModelFrame((3, 4), 16)).shape == (
        0,
        3,
        4,
    )


SCORES = np.float32([[0.99, 0.2, 0.5, 0.3]])  # token 0 best of all, token 2 best of 1 to 3


@pytest.mark.parametrize(
    ("labels", "has_mask", "token"),
    [
        ([1], None, 2),
        ([1, ABSENT, ABSENT], None, 2),
        ([0, ABSENT], [False], 2),
        ([1, ABSENT], [True], 0),
        ([1, 0], None, 0),
        ([2, 3], None, 0),
        ([1, 2, 3], None, 0),
        ([ABSENT, ABSENT], [True], 0),
    ],
)
def test_only_a_single_point_is_answered_by_the_multimask_tokens(labels, has_mask, token):
    has_mask = None if has_mask is None else np.array(has_mask)

    assert choose_mask(SCORES, np.array([labels]), has_mask).tolist() == [token]


def test_each_prompt_gets_its_own_choice():
    scores = np.float32([[0, 0.1, 0.2, 0.9], [0, 0.9, 0.2, 0.1], [0, 0.9, 0.2, 0.1]])
    labels = np.array([[1, ABSENT], [1, ABSENT], [2, 3]])

    assert choose_mask(scores, labels).tolist() == [3, 1, 0]


def test_stability_score_is_the_overlap_of_the_masks_at_the_two_thresholds():
    logits = np.float32([[[3, 2, 1.5, 0.9], [-0.9, -1, -2, 0]], [[-5] * 4, [-1] * 4]])
    # Above 1: 3, 2, 1.5. Above -1: these and 0.9, -0.9, 0. The second mask is empty at -1.

    np.testing.assert_allclose(stability_score(logits), [3 / 6, 0])


def test_stability_score_takes_another_offset():
    logits = np.float32([[3, 1.5, -1.5, -3]])  # above 2: one; above -2: three

    assert stability_score(logits, offset=2.0).item() == pytest.approx(1 / 3)
