import json
from pathlib import Path

import numpy as np
import pytest
from tiny_data_sets import rectangle, sa1b_json, write_image, write_pair

from edgeseg.data.augmentation import AugmentationConfig, ColorConfig, CropConfig
from edgeseg.data.records import ByteRange, ImageRecord
from edgeseg.data.samples import SampleSettings, build_sample
from edgeseg.errors import ConfigError
from edgeseg.geometry import ModelFrame
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD, preprocess

HW = (30, 40)


def record_of(stem):
    return ImageRecord("pets/a", "pets", ByteRange(f"{stem}.jpg"), ByteRange(f"{stem}.json"))


def sample_of(stem, seed=0, **settings):
    settings = SampleSettings(**{"student_size": 80, "box_jitter": 0.0, **settings})
    return build_sample(record_of(stem), settings, np.random.default_rng(seed))


def test_a_sample_holds_the_image_and_its_masks_in_the_students_frame(tmp_path):
    write_pair(tmp_path / "a", HW, [rectangle(HW, 4, 6, 30, 16)])

    sample = sample_of(tmp_path / "a")

    # 40 px are 80 model px and 20 mask px, so a mask px covers 2 x 2 image px.
    image = record_of(tmp_path / "a").read_image()
    assert np.array_equal(sample.student_image, preprocess(image, 80)[0])
    assert sample.image_hw == HW
    assert sample.masks.shape == (1, 20, 20)
    assert np.array_equal(sample.masks[0], rectangle((20, 20), 2, 3, 15, 8).astype(bool))
    assert sample.boxes_xyxy.tolist() == [[4, 6, 30, 16]]
    assert sample.boxes_xyxy.dtype == sample.points_xy.dtype == np.float32


@pytest.mark.parametrize("image_hw", [(30, 40), (40, 30), (61, 47)])
def test_prompts_lie_in_their_masks_after_every_augmentation(tmp_path, image_hw):
    masks = [rectangle(image_hw, 4, 6, 30, 16), rectangle(image_hw, 20, 5, 28, 28)]
    write_pair(tmp_path / "a", image_hw, masks)
    augmentation = AugmentationConfig(
        vertical_flip=0.5, quarter_turn=0.5, crop=CropConfig(min_area_share=0.2)
    )
    for seed in range(40):
        sample = sample_of(tmp_path / "a", seed, augmentation=augmentation)
        assert len(sample.masks) > 0
        frame = ModelFrame(sample.image_hw, 80)
        for mask, box_xyxy, point_xy in zip(
            sample.masks, sample.boxes_xyxy, sample.points_xy, strict=True
        ):
            x0, y0, x1, y1 = frame.to_model_box(box_xyxy) / 4
            rows, cols = np.nonzero(mask)
            assert abs(np.array([x0, y0, x1, y1]) - [
                cols.min(), rows.min(), cols.max() + 1, rows.max() + 1
            ]).max() <= 0.51  # fmt: skip
            assert (box_xyxy[:2] < point_xy).all()
            assert (point_xy < box_xyxy[2:]).all()


def test_points_of_a_thin_mask_hit_it_after_flips_and_turns(tmp_path):
    cross = rectangle(HW, 4, 20, 38, 24) | rectangle(HW, 8, 2, 12, 28)
    write_pair(tmp_path / "a", HW, [cross])
    augmentation = AugmentationConfig(vertical_flip=0.5, quarter_turn=0.5)
    for seed in range(40):
        sample = sample_of(tmp_path / "a", seed, augmentation=augmentation)
        x, y = ModelFrame(sample.image_hw, 80).to_model_xy(sample.points_xy[0]) / 4
        assert sample.masks[0, int(y), int(x)]  # the cross is made of whole 2 x 2 cells


def test_no_more_objects_than_wanted_are_drawn_at_random(tmp_path):
    write_pair(tmp_path / "a", HW, [rectangle(HW, x, 4, x + 4, 12) for x in range(0, 40, 4)])

    drawn = [sample_of(tmp_path / "a", seed, max_instances=3) for seed in range(40)]

    assert {len(sample.use_box) for sample in drawn} == {3}
    assert all(len({box[0] for box in sample.boxes_xyxy.tolist()}) == 3 for sample in drawn)
    assert {box[0] for sample in drawn for box in sample.boxes_xyxy.tolist()} == set(
        range(0, 40, 4)
    )


def test_objects_that_vanish_in_the_low_res_mask_are_used_only_when_alone(tmp_path):
    speck, large = rectangle(HW, 3, 3, 4, 4), rectangle(HW, 10, 10, 20, 20)
    write_pair(tmp_path / "both", HW, [speck, large])
    write_pair(tmp_path / "alone", HW, [speck])

    assert sample_of(tmp_path / "both").boxes_xyxy.tolist() == [[10, 10, 20, 20]]
    alone = sample_of(tmp_path / "alone")
    assert alone.points_xy.tolist() == [[3.5, 3.5]]
    assert not alone.masks.any()


def test_a_small_object_is_not_lost_to_windows(tmp_path):
    write_pair(tmp_path / "a", HW, [rectangle(HW, 30, 20, 36, 26)])
    augmentation = AugmentationConfig(crop=CropConfig(min_area_share=0.05))

    for seed in range(60):
        assert len(sample_of(tmp_path / "a", seed, augmentation=augmentation).masks) == 1


def test_boxes_are_shaken_and_half_of_the_objects_start_from_them(tmp_path):
    write_pair(tmp_path / "a", HW, [rectangle(HW, 10, 5, 30, 15)])
    samples = [sample_of(tmp_path / "a", seed, box_jitter=0.1) for seed in range(200)]

    shifts = np.concatenate([sample.boxes_xyxy for sample in samples]) - [10, 5, 30, 15]
    starts = np.concatenate([sample.use_box for sample in samples])
    assert (abs(shifts) <= [2, 1, 2, 1]).all()
    assert (abs(shifts).max(axis=0) > [1.8, 0.9, 1.8, 0.9]).all()
    assert 75 < starts.sum() < 125
    assert not any(sample_of(tmp_path / "a", s, box_share=0.0).use_box.any() for s in range(20))
    assert all(sample_of(tmp_path / "a", s, box_share=1.0).use_box.all() for s in range(20))


def test_the_teacher_sees_the_same_view_at_its_own_size(tmp_path):
    write_pair(tmp_path / "a", HW)
    augmentation = AugmentationConfig(crop=CropConfig(), color=ColorConfig(brightness=0.9))

    sample = sample_of(tmp_path / "a", 3, augmentation=augmentation, teacher_size=160)

    assert sample.teacher_image.shape == (3, 160, 160)
    # Two by two averages of the larger image are nearly the smaller one, colours included.
    averaged = sample.teacher_image.reshape(3, 80, 2, 80, 2).mean(axis=(2, 4))
    inner = np.s_[:, 4:40, 4:60]
    assert abs(averaged[inner] - sample.student_image[inner]).mean() < 0.05
    assert sample_of(tmp_path / "a").teacher_image is None


def test_colours_change_in_the_model_input_and_padding_stays_zero(tmp_path):
    write_pair(tmp_path / "a", HW)
    grey = AugmentationConfig(horizontal_flip=0, color=ColorConfig(grey_probability=1))

    image = sample_of(tmp_path / "a", augmentation=grey).student_image

    red, green, blue = (image.transpose(1, 2, 0) * PIXEL_STD + PIXEL_MEAN).transpose(2, 0, 1)
    assert np.allclose(red[:60], green[:60], atol=1e-3)  # 30 of 40 px are 60 of 80 model px
    assert np.allclose(red[:60], blue[:60], atol=1e-3)
    assert not image[:, 60:].any()


def test_one_array_serves_both_when_the_sizes_are_equal(tmp_path):
    write_pair(tmp_path / "a", HW)
    sample = sample_of(tmp_path / "a", teacher_size=80)

    assert sample.teacher_image is sample.student_image


def test_an_image_without_objects_makes_an_empty_sample(tmp_path):
    write_pair(tmp_path / "a", HW, [])

    sample = sample_of(tmp_path / "a", augmentation=AugmentationConfig(crop=CropConfig()))

    assert sample.masks.shape == (0, 20, 20)
    assert sample.boxes_xyxy.shape == (0, 4)
    assert sample.points_xy.shape == (0, 2)
    assert sample.use_box.shape == (0,)


def test_images_alone_need_no_readable_annotations(tmp_path):
    write_image(tmp_path / "a.jpg", HW)
    Path(tmp_path / "a.json").write_text("not JSON")

    assert len(sample_of(tmp_path / "a", with_instances=False).masks) == 0


def test_only_chosen_masks_are_decoded(tmp_path, monkeypatch):
    import edgeseg.data.mask_patches as patches

    write_image(tmp_path / "a.jpg", HW)
    masks = [rectangle(HW, 4, 4, 12, 12)] * 50
    (tmp_path / "a.json").write_text(json.dumps(sa1b_json(masks, HW)))
    decoded = []
    decode = patches.decode_rle
    monkeypatch.setattr(patches, "decode_rle", lambda rle: decoded.append(1) or decode(rle))

    sample_of(tmp_path / "a", max_instances=4)

    assert len(decoded) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"student_size": 0},
        {"student_size": 82},
        {"teacher_size": 0},
        {"max_instances": 0},
        {"box_share": 1.1},
        {"box_jitter": 0.5},
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SampleSettings(**{"student_size": 80, **wrong})
