"""The package `segment_anything` is the oracle: same weights, same grid, same masks."""

from dataclasses import replace

import numpy as np
import pytest
from cell_backend import CellBackend
from sam_twins import sam_and_ours

from edgeseg.errors import ConfigError
from edgeseg.mask_crop import crop_mask
from edgeseg.runtime import GridSettings, Segmenter
from edgeseg.runtime.mask_grid import clean_mask, crop_windows, is_cut_off, segment_grid

amg = pytest.importorskip("segment_anything.utils.amg")
RNG = np.random.default_rng(0)
SQUARE = RNG.integers(0, 256, (128, 128, 3), np.uint8)
ALL = {
    "pred_iou_thresh": -100.0,
    "stability_score_thresh": 0.0,
    "box_nms_thresh": 1.0,
    "stability_score_offset": 0.02,  # the logits of random weights are small
}


@pytest.fixture(scope="module")
def twins():
    return sam_and_ours()


def both(twins, image, **settings):
    """Return the annotations of SAM's generator and ours, which are asked at the same places."""
    from segment_anything import SamAutomaticMaskGenerator

    net, segmenter = twins
    side = settings.pop("points_per_side")
    # SAM adds half a pixel to whole ones; our coordinates are continuous.
    grids = [amg.build_point_grid(side) - 0.5 / 128]
    grids *= settings.get("crop_n_layers", 0) + 1
    theirs = SamAutomaticMaskGenerator(net, points_per_side=None, point_grids=grids, **settings)
    ours = segment_grid(segmenter, image, GridSettings(points_per_side=side, **settings))
    return theirs.generate(image), ours


def test_all_masks_are_those_of_sam_in_the_same_order(twins):
    expected, found = both(twins, SQUARE, points_per_side=4, **ALL)

    ours = found.take(np.argsort(-found.masks.scores, kind="stable"))
    theirs = sorted(expected, key=lambda row: -row["predicted_iou"])
    assert len(ours) == len(theirs) > 20
    assert found.num_prompts == 16
    for index, row in enumerate(theirs):
        assert ours.masks.scores[index] == pytest.approx(row["predicted_iou"], abs=1e-4)
        differing = np.count_nonzero(ours.masks.masks[index] != row["segmentation"])
        assert differing <= 3


def test_annotations_have_the_fields_of_sam(twins):
    expected, found = both(twins, SQUARE, points_per_side=2, **ALL)

    rows = found.to_sam(with_pixels=True)

    assert rows[0].keys() == expected[0].keys()
    by_score = {round(row["predicted_iou"], 3): row for row in expected}
    for row in rows:
        theirs = by_score[round(row["predicted_iou"], 3)]
        assert row["segmentation"].dtype == theirs["segmentation"].dtype
        assert row["area"] == pytest.approx(theirs["area"], abs=3)
        # SAM's boxes end at the last pixel, ours at its outer edge.
        x, y, width, height = theirs["bbox"]
        np.testing.assert_allclose(row["bbox"], [x, y, width + 1, height + 1], atol=1)
        np.testing.assert_allclose(np.array(row["point_coords"]) - 0.5, theirs["point_coords"])
        assert row["crop_box"] == theirs["crop_box"]


def test_parts_of_the_image_are_asked_on_their_own():
    segmenter = Segmenter(CellBackend())
    image = np.zeros((48, 64, 3), np.uint8)  # four pixels a cell; in a part two or three
    settings = GridSettings(
        points_per_side=4, crop_n_layers=1, stability_score_offset=0.5, crop_nms_thresh=1.0
    )

    found = segment_grid(segmenter, image, replace(settings, pred_iou_thresh=0.0))

    assert found.num_prompts == 5 * 16
    parts = {tuple(xywh) for xywh in found.windows_xywh.tolist()}
    assert parts == {
        (x, y, r - x, b - y) for _, x, y, r, b in crop_windows((48, 64), 1, 512 / 1500)
    }
    for row in found.to_sam(with_pixels=True):
        x, y, width, height = row["crop_box"]
        outside = row["segmentation"].copy()
        outside[y : y + height, x : x + width] = False
        assert not outside.any()
        # The mask begins in the cell that was pointed at.
        point_x, point_y = row["point_coords"][0]
        left, top, mask_width, mask_height = row["bbox"]
        assert left - 2 <= point_x <= left + mask_width
        assert top - 2 <= point_y <= top + mask_height + 2


@pytest.mark.parametrize("box", [[120, 60, 180, 130], [100, 40, 300, 200], [0, 0, 118, 59]])
def test_masks_that_a_part_cuts_off_are_those_of_sam(box):
    torch = pytest.importorskip("torch")
    image_hw, part = (200, 300), (100, 40, 200, 160)
    for shift in range(-30, 60, 7):
        moved = np.clip(np.float32(box) + shift, 0, [300, 200, 300, 200]).astype(np.float32)
        # SAM moves boxes of the part into the image itself.
        relative = torch.from_numpy(moved - np.float32([100, 40, 100, 40]))[None]
        near = amg.is_box_near_crop_edge(relative, [100, 40, 300, 200], [0, 0, 300, 200])

        assert is_cut_off(moved, part, image_hw) == bool(near)


def test_fewer_points_are_asked_on_smaller_parts(twins):
    settings = GridSettings(points_per_side=4, crop_n_layers=1, crop_n_points_downscale_factor=2)

    found = segment_grid(twins[1], SQUARE, settings)

    assert found.num_prompts == 16 + 4 * 4


@pytest.mark.parametrize("image_hw", [(480, 640), (301, 200), (77, 1000)])
@pytest.mark.parametrize("num_layers", [0, 1, 2])
def test_parts_are_those_of_sam(image_hw, num_layers):
    boxes, layers = amg.generate_crop_boxes(image_hw, num_layers, 512 / 1500)
    expected = {(layer, *box) for layer, box in zip(layers, boxes, strict=True)}

    found = list(crop_windows(image_hw, num_layers, 512 / 1500))

    assert set(found) == expected
    assert len(found) == len(expected)


def test_holes_and_islands_are_removed_as_in_sam():
    for number in range(40):
        coarse = RNG.random((9, 11)) < RNG.uniform(0.3, 0.8)
        mask = np.zeros((60, 80), bool)  # away from the edge of the image
        mask[3:57, 7:73] = np.kron(coarse, np.ones((6, 6), bool))
        mask &= RNG.random(mask.shape) < 0.98
        if not mask.any():
            continue
        filled, holes = amg.remove_small_regions(mask, 40, "holes")
        expected, islands = amg.remove_small_regions(filled, 40, "islands")

        cleaned, is_changed = clean_mask(crop_mask(mask), 40)

        np.testing.assert_array_equal(cleaned.to_mask(), expected, err_msg=str(number))
        assert is_changed == (holes or islands)


def test_specks_are_removed_from_the_answer():
    segmenter = Segmenter(CellBackend())
    image = np.zeros((12, 16, 3), np.uint8)  # a cell is a pixel
    settings = {"points_per_side": 2, "pred_iou_thresh": 0, "box_nms_thresh": 1.0}
    settings["stability_score_offset"] = 0.5  # the backend's logits are 1 and -1

    plain = segment_grid(segmenter, image, GridSettings(**settings))
    cleaned = segment_grid(segmenter, image, GridSettings(min_mask_region_area=3, **settings))

    assert set(plain.masks.areas_px) == {2, 3, 4}
    # Masks of two pixels are nothing but a speck; they keep it and come after untouched ones.
    assert set(cleaned.masks.areas_px) == {2, 3, 4}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"box_nms_thresh": 1.5}, r"box_nms_thresh must be in 0\.\.1, got 1.5"),
        ({"points_per_side": 0}, "points_per_side must be 1 or more, got 0"),
        ({"crop_n_layers": -1}, "crop_n_layers must be 0 or more, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        GridSettings(**settings)
