"""Two segmenters on the same images."""

import numpy as np
import pytest
from known_answers import KnownRecord, KnownSegmenter, rectangle

from edgeseg.errors import DataError
from edgeseg.evaluation import EvaluationConfig
from edgeseg.evaluation.paired import ImageScores, gain, mean_interval, score_images

TRUTH = rectangle(4, 2, 12, 8)
TRUTH_BOX = (4.0, 2.0, 12.0, 8.0)
OTHER = rectangle(20, 10, 25, 15)
OTHER_BOX = (20.0, 10.0, 25.0, 15.0)
BOXES = EvaluationConfig(prompt_sets=("box",))


def scores(*ious: float, names: tuple[str, ...] | None = None) -> ImageScores:
    names = names or tuple(f"image {n}" for n in range(len(ious)))
    return ImageScores(names, {"box": np.array(ious)}, len(ious))


def test_an_image_counts_once_however_many_objects_it_has():
    half = rectangle(4, 2, 8, 8)  # 24 of 48 px
    segmenter = KnownSegmenter({TRUTH_BOX: [half], OTHER_BOX: [OTHER]})
    records = [KnownRecord("both", [TRUTH, OTHER]), KnownRecord("one", [TRUTH])]

    found = score_images(segmenter, records, BOXES)

    by_name = dict(zip(found.names, found.ious["box"].tolist(), strict=True))
    assert by_name == {"both": 0.75, "one": 0.5}
    assert found.num_objects == 3


def test_images_that_cannot_be_measured_are_left_out():
    segmenter = KnownSegmenter({TRUTH_BOX: [TRUTH]})
    records = [KnownRecord("empty", []), KnownRecord("one", [TRUTH])]
    seen: list[tuple[int, int]] = []

    found = score_images(segmenter, records, BOXES, lambda done, of: seen.append((done, of)))

    assert found.names == ("one",)
    assert seen == [(1, 2), (2, 2)]
    with pytest.raises(DataError, match="none of 1 images has an object"):
        score_images(segmenter, [KnownRecord("empty", [])], BOXES)


def test_a_constant_gain_has_an_interval_without_width():
    found = gain(scores(0.1, 0.5, 0.8), scores(0.2, 0.6, 0.9), "box")

    assert found.before == pytest.approx(1.4 / 3)
    assert found.after == pytest.approx(1.7 / 3)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert found.value == pytest.approx(0.1)
    assert found.num_images == 3
    assert str(found) == "46.7 -> 56.7 (+10.0 to +10.0)"


def test_pairs_are_drawn_together():
    # Images differ by far more than the segmenters do; unpaired, the interval would hold zero.
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 0.9, 40)

    found = gain(scores(*first), scores(*(first + rng.normal(0.02, 0.01, 40))), "box")

    assert 0.01 < found.low < 0.02 < found.high < 0.03


def test_the_interval_of_a_mean_is_that_of_the_normal_law_for_many_values():
    values = np.random.default_rng(1).normal(0.5, 1.0, 400)
    error = values.std() / 20  # standard error of the mean of 400

    low, high = mean_interval(values)

    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.006)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.006)


def test_different_images_cannot_be_compared():
    with pytest.raises(DataError, match="got 1 and 1, 0 of them in common"):
        gain(scores(0.5, names=("a",)), scores(0.5, names=("b",)), "box")
