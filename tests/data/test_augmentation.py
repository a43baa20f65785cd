import numpy as np
import pytest
from pydantic import ValidationError
from tiny_data_sets import rectangle

from edgeseg.data.augmentation import (
    AugmentationConfig,
    ColorConfig,
    CropConfig,
    View,
    augment,
    sample_view,
)
from edgeseg.data.mask_patches import MaskPatch

HW = (30, 50)
ALL = AugmentationConfig(
    vertical_flip=0.5,
    quarter_turn=0.5,
    crop=CropConfig(max_lost_share=0.99, min_area_px=1),
)
MASK = rectangle(HW, 10, 5, 33, 21).astype(bool) & ~rectangle(HW, 10, 5, 18, 9).astype(bool)


def image_of(mask):
    """Draw the mask into the red channel, the column into green and the row into blue."""
    rows, cols = np.indices(mask.shape)
    return np.stack([255 * mask, 5 * cols, 8 * rows], axis=2).astype(np.uint8)


def test_an_image_and_its_mask_change_alike():
    seen_something = 0
    for seed in range(60):
        image, (mask,) = augment(image_of(MASK), [MASK], ALL, np.random.default_rng(seed))

        assert image.shape[:2] != (0, 0)
        if mask is not None:
            assert mask.shape == image.shape[:2]
            assert np.array_equal(image[:, :, 0] == 255, mask)
            seen_something += 1
    assert seen_something > 40


def test_flips_and_the_turn_are_those_of_numpy_in_this_order():
    image = image_of(MASK)
    view = View(HW, (0, 0, 50, 30), flip_x=True, flip_y=True, turn=True)

    assert np.array_equal(view.of_image(image), np.rot90(image[::-1, ::-1]))
    assert np.array_equal(View(HW, (0, 0, 50, 30), flip_x=True).of_image(image), image[:, ::-1])
    assert np.array_equal(View(HW, (0, 0, 50, 30), flip_y=True).of_image(image), image[::-1])
    patch = view.of_mask(MaskPatch.of_mask(MASK))
    assert np.array_equal(patch.to_mask(), np.rot90(MASK[::-1, ::-1]))


@pytest.mark.parametrize("option", ["horizontal_flip", "vertical_flip", "quarter_turn"])
def test_each_probability_switches_its_own_change(option):
    off = {"horizontal_flip": 0.0}
    drawn = {
        share: [
            sample_view(AugmentationConfig(**{**off, option: share}), HW, np.random.default_rng(s))
            for s in range(200)
        ]
        for share in (0.0, 0.3, 1.0)
    }
    field = {"horizontal_flip": "flip_x", "vertical_flip": "flip_y", "quarter_turn": "turn"}[option]

    changes = {
        share: [(view.flip_x, view.flip_y, view.turn) for view in views]
        for share, views in drawn.items()
    }
    assert set(changes[0.0]) == {(False, False, False)}
    assert {sum(change) for change in changes[1.0]} == {1}
    assert all(getattr(view, field) for view in drawn[1.0])
    assert 40 < sum(getattr(view, field) for view in drawn[0.3]) < 80  # 60 expected


def test_windows_lie_in_the_image_and_keep_area_and_aspect():
    config = AugmentationConfig(crop=CropConfig(min_area_share=0.2, max_aspect_change=1.5))
    areas, aspects, corners = [], [], []
    for seed in range(400):
        view = sample_view(config, (300, 500), np.random.default_rng(seed))
        x0, y0, x1, y1 = view.window_xyxy
        assert 0 <= x0 < x1 <= 500
        assert 0 <= y0 < y1 <= 300
        areas.append((x1 - x0) * (y1 - y0) / 150_000)
        aspects.append((x1 - x0) / (y1 - y0) / (500 / 300))
        corners.append((x0, y0))

    assert 0.195 < min(areas) < 0.25
    assert max(areas) > 0.95
    assert 1 / 1.52 < min(aspects) < 0.75
    assert 1.35 < max(aspects) < 1.52
    assert len(set(corners)) > 300


def test_a_one_pixel_image_can_be_cropped():
    view = sample_view(AugmentationConfig(crop=CropConfig()), (1, 1), np.random.default_rng(0))

    assert view.window_xyxy == (0, 0, 1, 1)


def test_half_the_images_are_cropped_when_asked_so():
    config = AugmentationConfig(crop=CropConfig(probability=0.5, min_area_share=0.1))
    views = [sample_view(config, (300, 500), np.random.default_rng(s)) for s in range(200)]

    assert 75 < sum(view.is_cropped for view in views) < 125


def test_a_mask_that_loses_too_much_is_dropped():
    patch = MaskPatch.of_mask(rectangle(HW, 0, 0, 10, 10))  # 100 px

    def seen(width, max_lost_share=0.0, min_area_px=1):
        view = View(HW, (0, 0, width, 30), max_lost_share=max_lost_share, min_area_px=min_area_px)
        return view.of_mask(patch)

    assert seen(6, max_lost_share=0.4).area_px == 60  # loses just as much as it may
    assert seen(5, max_lost_share=0.4) is None
    assert seen(6, max_lost_share=0.9, min_area_px=60).area_px == 60
    assert seen(6, max_lost_share=0.9, min_area_px=61) is None


def test_a_small_mask_of_an_image_that_is_not_cropped_stays():
    patch = MaskPatch.of_mask(rectangle(HW, 0, 0, 1, 1))

    assert View(HW, (0, 0, 50, 30), flip_x=True, min_area_px=16).of_mask(patch) is not None


def recolored(config, pixel, seed=0):
    image = np.full((2, 3, 3), pixel, np.uint8)
    view = sample_view(AugmentationConfig(color=config), (2, 3), np.random.default_rng(seed))
    return view.recolor(image)[0, 0].astype(int)


NO_COLOR = {"brightness": 0, "contrast": 0, "saturation": 0, "grey_probability": 0}


def test_without_strength_colours_stay():
    assert recolored(ColorConfig(**NO_COLOR), (10, 100, 200)).tolist() == [10, 100, 200]


def test_grey_is_the_luma_in_all_three_channels():
    config = ColorConfig(**{**NO_COLOR, "grey_probability": 1})

    red, green, blue = recolored(config, (10, 100, 200)).tolist()

    # 0.299 * 10 + 0.587 * 100 + 0.114 * 200 = 84.49; OpenCV counts in 1/1024.
    assert red == green == blue
    assert red in (84, 85)


def test_brightness_scales_all_channels_by_one_factor_in_its_range():
    config, pixel = ColorConfig(**{**NO_COLOR, "brightness": 0.2}), np.array([50, 100, 150])

    factors = [recolored(config, pixel, seed) / pixel for seed in range(60)]

    assert all(np.ptp(factor) < 0.02 for factor in factors)
    assert 0.79 < min(factor[1] for factor in factors) < 0.85
    assert 1.15 < max(factor[1] for factor in factors) < 1.21


def test_contrast_keeps_mid_grey():
    config = ColorConfig(**{**NO_COLOR, "contrast": 0.5})
    spreads = []
    for seed in range(40):
        low, mid, high = recolored(config, (88, 128, 168), seed)
        assert abs(mid - 128) <= 1
        assert abs((high - 128) - (128 - low)) <= 2
        spreads.append(high - 128)

    assert 19 <= min(spreads) < 25  # 40 times a factor from 0.5 to 1.5
    assert 55 < max(spreads) <= 61


def test_saturation_keeps_greys_and_luma():
    config = ColorConfig(**{**NO_COLOR, "saturation": 0.5})
    weights = np.array([0.299, 0.587, 0.114])
    for seed in range(20):
        assert recolored(config, (90, 90, 90), seed).tolist() == [90, 90, 90]
        color = recolored(config, (100, 120, 140), seed)
        assert abs(weights @ color - weights @ [100, 120, 140]) < 1
    assert len({tuple(recolored(config, (100, 120, 140), seed)) for seed in range(20)}) > 5


def test_equal_generators_draw_equal_views():
    config = AugmentationConfig(crop=CropConfig(), color=ColorConfig())
    first, second, other = (
        augment(image_of(MASK), [MASK], config, np.random.default_rng(seed))[0]
        for seed in (1, 1, 2)
    )

    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (AugmentationConfig, {"horizontal_flip": 1.5}),
        (AugmentationConfig, {"hue": 0.1}),
        (CropConfig, {"min_area_share": 0}),
        (CropConfig, {"max_aspect_change": 0.5}),
        (ColorConfig, {"brightness": 1}),
    ],
)
def test_settings_out_of_range_are_refused(config, fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        config(**fields)


def test_unions_and_pasting_are_off_until_their_table_is_there():
    assert AugmentationConfig().union is AugmentationConfig().paste is None
    config = AugmentationConfig.model_validate({"union": {}, "paste": {"max_objects": 2}})
    assert 0 < config.union.probability < 1
    assert config.paste.max_objects == 2
