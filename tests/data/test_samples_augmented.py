"""Samples with unions of masks and with objects of other images."""

from pathlib import Path

import numpy as np
import pytest
from tiny_data_sets import rectangle, write_pair

from edgeseg.data.augmentation import AugmentationConfig, ColorConfig, sample_view
from edgeseg.data.copy_paste import PasteConfig
from edgeseg.data.donors import DonorPool
from edgeseg.data.mask_patches import MaskPatch
from edgeseg.data.prompt_sampling import draw_point, jitter_box
from edgeseg.data.records import ByteRange, ImageRecord
from edgeseg.data.region_unions import UnionConfig
from edgeseg.data.samples import SampleSettings, build_sample
from edgeseg.geometry import ModelFrame

HW = (30, 40)
PASTE = PasteConfig(probability=1, max_area_share=0.1, edge_px=0, min_contrast=0)


def record_of(stem):
    name = f"pets/{Path(stem).name}"
    return ImageRecord(name, "pets", ByteRange(f"{stem}.jpg"), ByteRange(f"{stem}.json"))


def sample_of(stem, seed=0, donor=None, **settings):
    settings = SampleSettings(**{"student_size": 80, "box_jitter": 0.0, **settings})
    donors = DonorPool([record_of(donor)]) if donor else None
    return build_sample(record_of(stem), settings, np.random.default_rng(seed), donors)


@pytest.mark.parametrize("seed", range(5))
def test_without_unions_and_pasting_no_random_number_is_drawn_for_them(tmp_path, seed):
    masks = [rectangle(HW, 4, 6, 14, 16), rectangle(HW, 14, 6, 24, 16)]
    write_pair(tmp_path / "a", HW, masks)
    write_pair(tmp_path / "b", HW)
    config = AugmentationConfig(vertical_flip=0.5, color=ColorConfig())
    settings = SampleSettings(80, augmentation=config, box_jitter=0.1)
    rng, by_hand = np.random.default_rng(seed), np.random.default_rng(seed)

    sample = build_sample(record_of(tmp_path / "a"), settings, rng, DonorPool([record_of("b")]))

    order = by_hand.permutation(2)
    view = sample_view(config, HW, by_hand)
    patches = [view.of_mask(MaskPatch.of_mask(masks[number])) for number in order]
    boxes = [jitter_box(patch.box_xyxy, HW, by_hand, 0.1) for patch in patches]
    points = [draw_point(patch, by_hand) for patch in patches]
    assert np.array_equal(sample.boxes_xyxy, boxes)
    assert np.array_equal(sample.points_xy, points)
    assert np.array_equal(sample.use_box, by_hand.random(2) < 0.5)
    assert rng.bit_generator.state == by_hand.bit_generator.state


def test_unions_are_objects_like_others_after_every_augmentation(tmp_path):
    write_pair(tmp_path / "a", HW, [rectangle(HW, 6, 6, 16, 16), rectangle(HW, 16, 6, 26, 16)])
    augmentation = AugmentationConfig(
        vertical_flip=0.5, quarter_turn=0.5, union=UnionConfig(probability=1)
    )
    places = set()
    for seed in range(60):
        sample = sample_of(tmp_path / "a", seed, augmentation=augmentation)

        sides = sample.boxes_xyxy[:, 2:] - sample.boxes_xyxy[:, :2]
        areas_px = sides.prod(axis=1).tolist()
        assert sorted(areas_px) == [100, 200]  # the union comes once
        assert sorted(sample.masks.sum(axis=(1, 2)).tolist()) == [25, 50]  # of 2 x 2 px
        places.add(tuple(sample.boxes_xyxy[areas_px.index(200)].tolist()))

    assert len(places) == 8  # flips and turns


def test_pasted_objects_are_learned_and_cover_others(tmp_path):
    whole = rectangle(HW, 1, 1, 39, 29)
    write_pair(tmp_path / "a", HW, [whole])
    write_pair(tmp_path / "b", HW, [rectangle(HW, 8, 8, 18, 18)], seed=1)
    augmentation = AugmentationConfig(paste=PASTE)
    for seed in range(20):
        sample = sample_of(tmp_path / "a", seed, tmp_path / "b", augmentation=augmentation)
        plain = sample_of(tmp_path / "a", seed, augmentation=augmentation)

        pasted, covered = sample.masks  # the pasted one comes first
        assert pasted.any()
        assert not (pasted & covered).any()
        assert (plain.masks[0] & ~covered).sum() >= (pasted & plain.masks[0]).sum()
        changed = (sample.student_image != plain.student_image).any(axis=0)
        cells = changed.reshape(20, 4, 20, 4).mean(axis=(1, 3))
        assert (cells[pasted] > 0.4).all()
        x, y = ModelFrame(HW, 80).to_model_xy(sample.points_xy[0]) / 4
        assert cells[int(y), int(x)] > 0
        assert sample.broken == ()


def test_the_teacher_sees_pasted_objects_too(tmp_path):
    write_pair(tmp_path / "a", HW)
    write_pair(tmp_path / "b", HW, [rectangle(HW, 8, 8, 18, 18)], seed=1)
    options = {"augmentation": AugmentationConfig(paste=PASTE), "teacher_size": 160}

    sample = sample_of(tmp_path / "a", 3, tmp_path / "b", **options)
    plain = sample_of(tmp_path / "a", 3, **options)

    student, teacher = (
        (getattr(sample, name) != getattr(plain, name)).any(axis=0)
        for name in ("student_image", "teacher_image")
    )
    assert student.any()
    assert abs(teacher.mean() - student.mean()) < 0.02


def test_an_image_without_masks_gets_objects_and_nothing_exceeds_the_most(tmp_path):
    write_pair(tmp_path / "a", HW, [])
    write_pair(tmp_path / "c", HW, [rectangle(HW, x, 4, x + 4, 12) for x in range(0, 40, 4)])
    write_pair(tmp_path / "b", HW, [rectangle(HW, x, 8, x + 6, 18) for x in (4, 14, 24)], seed=1)
    augmentation = AugmentationConfig(paste=PASTE)

    for seed in range(20):
        empty = sample_of(tmp_path / "a", seed, tmp_path / "b", augmentation=augmentation)
        full = sample_of(
            tmp_path / "c", seed, tmp_path / "b", augmentation=augmentation, max_instances=2
        )
        assert 1 <= len(empty.masks) <= 3
        assert len(full.masks) == 2


def test_an_image_whose_objects_are_all_covered_shows_the_pasted_ones(tmp_path):
    write_pair(tmp_path / "a", HW, [rectangle(HW, 18, 13, 22, 17)])
    write_pair(tmp_path / "b", HW, [rectangle(HW, 2, 2, 38, 28)], seed=1)
    paste = PASTE.model_copy(update={"max_area_share": 1.0, "min_scale": 1.0, "max_scale": 1.0})

    sample = sample_of(
        tmp_path / "a", 0, tmp_path / "b", augmentation=AugmentationConfig(paste=paste)
    )

    assert len(sample.masks) == 1
    assert sample.boxes_xyxy[0, 2] - sample.boxes_xyxy[0, 0] == 36


def test_nothing_is_pasted_where_nothing_is_learned_or_without_its_chance(tmp_path):
    write_pair(tmp_path / "a", HW)
    write_pair(tmp_path / "b", HW, seed=1)
    never = PASTE.model_copy(update={"probability": 0.0})

    for paste, with_instances in [(PASTE, False), (never, True)]:
        augmentation = AugmentationConfig(paste=paste, horizontal_flip=0)
        sample = sample_of(
            tmp_path / "a", 1, tmp_path / "b", augmentation=augmentation,
            with_instances=with_instances,
        )  # fmt: skip
        plain = sample_of(tmp_path / "a", 1, with_instances=with_instances)
        assert np.array_equal(sample.student_image, plain.student_image)
        assert len(sample.masks) == len(plain.masks)


def test_a_broken_donor_is_reported_and_nothing_is_pasted(tmp_path):
    write_pair(tmp_path / "a", HW)
    write_pair(tmp_path / "b", HW)
    Path(tmp_path / "b.jpg").write_bytes(b"broken")
    augmentation = AugmentationConfig(paste=PASTE)

    sample = sample_of(tmp_path / "a", 0, tmp_path / "b", augmentation=augmentation)

    assert len(sample.broken) == 1
    assert "b.jpg" in sample.broken[0]
    plain = sample_of(tmp_path / "a", 0, augmentation=augmentation)
    assert np.array_equal(sample.student_image, plain.student_image)
    assert len(sample.masks) == 2
