import itertools

import numpy as np
import pytest

from edgeseg.export_manifest import AccuracyFigures
from edgeseg.exporter.proof import (
    ImageAnswer,
    PairAnswerer,
    PromptAnswer,
    compare,
)
from edgeseg.exporter.proof_cases import ProofImage, build_proof_images
from edgeseg.exporter.proof_report import CaseParity, MaskOverlap, ProofReport
from edgeseg.exporter.targets import ToleranceConfig
from edgeseg.prompts import Prompt
from edgeseg.runtime.segmenter import Segmenter

SIDE = 64  # of the model input; its masks have 16 x 16 cells
STRICT = ToleranceConfig(max_logit_difference=1e-3, min_mask_iou=0.999)


class DistanceBackend:
    """Logits fall with the distance from the first point; every input leaves a trace."""

    name, image_size = "distance", SIDE

    def __init__(self, change=None):
        self.change = change or (lambda **inputs: inputs)

    def encode(self, pixels):
        return (self.change(pixels=pixels)["pixels"],)

    def decode(self, features, points_xy, point_labels, mask_logits, has_mask):
        given = self.change(points_xy=points_xy, point_labels=point_labels, masks=mask_logits)
        points_xy, labels, masks = given["points_xy"], given["point_labels"], given["masks"]
        centre = (np.arange(16) + 0.5) * 4
        x, y = points_xy[:, 0, 0], points_xy[:, 0, 1]
        far = np.hypot(centre[None, None] - x[:, None, None], centre[:, None] - y[:, None, None])
        logits = (20 - far).astype(np.float32)[:, None].repeat(4, 1)
        logits[:, 1] += labels.sum(axis=1)[:, None, None]
        if masks is not None:
            logits[:, 2] += masks[:, 0] * has_mask[:, None, None]
        scores = np.tile([0.9, 0.5, 0.4, 0.3], (len(x), 1)).astype(np.float32)
        return logits + features[0].mean(), scores


def report(change=None, tolerance=STRICT):
    ours, theirs = DistanceBackend(), DistanceBackend(change)
    pairs = (PairAnswerer(Segmenter(backend)) for backend in (ours, theirs))
    images = itertools.islice(build_proof_images(SIDE), 4)  # all but the large one
    cases = tuple(compare(*pairs, images, SIDE, ("image_embedding",)))
    return ProofReport("pair", "test", tolerance, cases)


def test_equal_backends_pass_and_every_output_was_compared():
    found = report()

    assert found.passed
    assert found.failures == ()
    figures = {figure.output: figure for figure in found.figures()}
    assert list(figures) == [
        "pair.image_embedding", "pair.iou_scores", "pair.low_res_logits", "pair.masks"
    ]  # fmt: skip
    assert figures["pair.image_embedding"].num_cases == 4
    assert figures["pair.masks"].num_cases == 4 * 7 + 1  # the square image has 64 prompts, too
    assert figures["pair.masks"].min_mask_iou == 1.0


def swapped(points_xy=None, **others):
    return {**others, "points_xy": None if points_xy is None else points_xy[..., ::-1]}


def shifted(pixels=None, **others):
    return {**others, "pixels": None if pixels is None else pixels + np.float32(0.01)}


def without_negatives(point_labels=None, **others):
    labels = None if point_labels is None else np.where(point_labels == 0, -2, point_labels)
    return {**others, "point_labels": labels}


def without_masks(masks=None, **others):
    return {**others, "masks": None}


@pytest.mark.parametrize("change", [swapped, shifted, without_negatives, without_masks])
def test_a_wrong_file_fails(change):
    found = report(change)

    assert not found.passed
    assert any("off by" in failure for failure in found.failures)


def test_half_a_pixel_of_shift_is_seen_in_the_masks():
    def moved(points_xy=None, **others):
        return {**others, "points_xy": None if points_xy is None else points_xy + np.float32(0.5)}

    found = report(moved, ToleranceConfig(min_mask_iou=0.999))

    assert not found.passed
    assert all("mask IoU" in failure for failure in found.failures)


def test_a_mask_of_few_pixels_does_not_decide_over_a_large_one():
    logits = np.full((1, 4, 16, 16), -1, np.float32)
    logits[0, 0, :10, :10] = 1
    logits[0, 1, 0, :3] = 1
    other = logits.copy()
    other[0, 1, 0, 3] = 1  # one pixel more in the small mask: 103 of 104 in all, 3 of 4 in it
    scores = np.full((1, 4), 0.5, np.float32)
    image = ProofImage("i", np.zeros((64, 64, 3), np.uint8), {"p": (Prompt(points_xy=[(1, 2)]),)})

    class Says:
        def __init__(self, logits):
            self.logits = logits

        def answer(self, image, prompt_sets):
            return ImageAnswer((), (PromptAnswer(self.logits, scores),))

    cases = compare(Says(logits), Says(other), [image], SIDE, ())

    (found,) = (case.overlap for case in cases if case.output == "low_res_logits")
    assert found == MaskOverlap(103, 104)


def overlaps(*cases):
    return tuple(
        CaseParity(image, prompts, "low_res_logits", 1.0, 0.5, overlap=MaskOverlap(both, 100))
        for image, prompts, both in cases
    )


def test_an_iou_is_that_of_all_masks_of_an_image_and_of_all_of_a_kind_of_prompt():
    tolerance = ToleranceConfig(min_mask_iou=0.9)
    good = overlaps(("a", "box", 85), ("a", "point", 97), ("b", "box", 98), ("b", "point", 97))
    bad_kind = overlaps(("a", "box", 85), ("a", "point", 97), ("b", "box", 90), ("b", "point", 97))
    bad_image = overlaps(("a", "box", 85), ("a", "point", 90), ("b", "box", 98), ("b", "point", 97))

    found = [ProofReport("pair", "test", tolerance, cases) for cases in (good, bad_kind, bad_image)]

    assert found[0].failures == ()  # (85 + 98) / 200 and (85 + 97) / 200 are above 0.9
    assert found[0].figures()[0].min_mask_iou == 0.91
    assert found[1].failures == (
        "low_res_logits of prompts box: mask IoU 0.8750, demanded are 0.9",
    )
    assert found[2].failures == ("low_res_logits of image a: mask IoU 0.8750, demanded are 0.9",)


def test_numbers_that_are_not_finite_fail_any_tolerance():
    def broken(pixels=None, **others):
        return {**others, "pixels": None if pixels is None else pixels * np.float32(np.nan)}

    found = report(broken, ToleranceConfig(min_mask_iou=0.001))

    assert "image_embedding of square: numbers that are not finite" in found.failures[0]


def test_nothing_compared_is_no_pass():
    found = ProofReport("pair", "test", STRICT, ())

    assert found.failures == ("nothing was compared",)


def test_another_number_of_answers_fails():
    image = ProofImage("i", np.zeros((4, 4, 3), np.uint8), {"p": (Prompt(points_xy=[(1, 2)]),)})

    class Fixed:
        def __init__(self, rows):
            answer = PromptAnswer(np.zeros((rows, 4, 16, 16), np.float32), np.zeros((1, 4)))
            self.found = ImageAnswer((), (answer,))

        def answer(self, image, prompt_sets):
            return self.found

    cases = tuple(compare(Fixed(1), Fixed(2), [image], SIDE, ()))

    assert not ProofReport("fused", "test", STRICT, cases).passed


def test_differences_are_the_largest_the_mean_and_the_relative():
    ours = ImageAnswer((np.float32([3, 0, 0, 4]),), ())  # norm 5
    theirs = ImageAnswer((np.float32([3, -3, 0, 0]),), ())  # 0, 3, 0 and 4 away: norm 5
    image = ProofImage("i", np.zeros((4, 4, 3), np.uint8), {})

    class Says:
        def __init__(self, found):
            self.found = found

        def answer(self, image, prompt_sets):
            return self.found

    (case,) = compare(Says(ours), Says(theirs), [image], SIDE, ("f",))

    assert case == CaseParity("i", "", "f", 4.0, 7 / 4, 1.0)


@pytest.mark.parametrize(("limit", "passed"), [(None, True), (0.011, True), (0.009, False)])
def test_features_may_be_held_to_a_relative_error(limit, passed):
    tolerance = ToleranceConfig(min_mask_iou=0.5, max_feature_error=limit)
    feature = CaseParity("i", "", "image_embedding", 9.0, 9.0, 0.01)
    logits = CaseParity("i", "p", "low_res_logits", 9.0, 9.0, 0.9)  # not a feature

    assert ProofReport("pair", "test", tolerance, (feature, logits)).passed is passed


@pytest.mark.parametrize(
    ("loss", "passed"), [(None, True), (0.9, True), (1.1, False), (float("nan"), False)]
)
def test_accuracy_lost_on_labelled_images_counts(loss, passed):
    tolerance = ToleranceConfig(min_mask_iou=0.5, max_miou_loss=1.0)
    case = CaseParity("i", "p", "masks", 0.0, 0.0)
    lost = [0.0, loss] if loss is not None else []  # points
    accuracy = [
        AccuracyFigures(prompt_set="box", miou=0.5 - x / 100, miou_pytorch=0.5, num_objects=1)
        for x in lost
    ]

    report = ProofReport("pair", "test", tolerance, (case,), tuple(accuracy))

    assert report.passed is passed


def test_proof_images_ask_in_every_way():
    images = list(build_proof_images(SIDE))

    assert [image.image.shape[:2] for image in images] == [
        (64, 64), (211, 389), (388, 213), (5, 7), (1500, 4000)
    ]  # fmt: skip
    sizes = {name: len(prompts) for name, prompts in images[0].prompt_sets.items()}
    assert sizes == {
        "point": 1, "box": 1, "mixed labels": 1, "box and points": 1, "mask": 1,
        "point and mask": 1, "8 prompts": 8, "64 prompts": 64,
    }  # fmt: skip
    for image in images:
        height, width = image.image.shape[:2]
        x, y = image.prompt_sets["point"][0].points_xy[0] / (width, height)
        assert abs(x - y) > 0.09  # off the diagonal, so that swapping x and y shows


def test_a_file_with_few_slots_is_asked_what_fits():
    (image, *_) = build_proof_images(SIDE, max_points=4, with_masks=False)

    assert "mixed labels" not in image.prompt_sets  # five points
    assert "mask" not in image.prompt_sets
    assert len(image.prompt_sets["8 prompts"]) == 6
