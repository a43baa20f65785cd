import numpy as np
import pytest
from known_answers import KnownRecord, rectangle

from edgeseg.errors import ConfigError, DataError
from edgeseg.evaluation.config import EvaluationConfig
from edgeseg.evaluation.proposal_recall import proposal_recall
from edgeseg.evaluation.recall import ImageAnswers, average_recall
from edgeseg.proposals import Proposals
from edgeseg.run_lengths import encode_rle


def masks_of(*masks):
    return [encode_rle(mask) for mask in masks]


def answers(targets, masks=(), scores=None):
    scores = np.linspace(1, 0.5, len(masks)) if scores is None else np.array(scores)
    return ImageAnswers(masks_of(*targets), masks_of(*masks), None, scores)


BIG, SMALL = rectangle(0, 0, 20, 20), rectangle(22, 2, 30, 10)
PART = rectangle(0, 0, 20, 15)  # IoU with BIG 0.75: found at 0.5, 0.55 ... 0.75, six of ten


def test_recall_is_the_mean_over_ten_thresholds():
    images = [answers([BIG, SMALL], [PART, SMALL])]

    assert average_recall(images, "masks") == pytest.approx(dict.fromkeys((10, 100, 1000), 0.8))


def test_only_the_most_confident_answers_count():
    images = [answers([BIG, SMALL], [SMALL, BIG], scores=[0.2, 0.9])]

    assert average_recall(images, "masks", (1, 2)) == pytest.approx({1: 0.5, 2: 1.0})


def test_an_answer_finds_one_object_only():
    images = [answers([BIG, BIG], [BIG])]

    assert average_recall(images, "masks", (10,))[10] == pytest.approx(0.5)


def test_objects_of_all_images_count_the_same():
    images = [answers([BIG], [BIG]), answers([BIG, SMALL, PART]), answers([], [BIG])]

    assert average_recall(images, "masks", (10,))[10] == pytest.approx(1 / 4)


def test_nothing_found_is_a_recall_of_zero():
    assert average_recall([answers([BIG])], "masks", (10,)) == {10: 0.0}


def test_boxes_are_compared_with_the_boxes_of_the_objects():
    ring = BIG.copy()
    ring[1:19, 1:19] = False
    boxes = np.float32([[0, 0, 20, 15], [22, 2, 30, 10]])
    images = [ImageAnswers(masks_of(ring, SMALL), None, boxes, np.float32([0.9, 0.8]))]

    assert average_recall(images, "boxes", (10,))[10] == pytest.approx(0.8)


@pytest.mark.parametrize("limits", [(), (0, 10), (10, 10), (100, 10)])
def test_limits_must_rise(limits):
    with pytest.raises(ConfigError, match="limits must rise from 1 or more, got"):
        average_recall([answers([BIG])], "masks", limits)


def test_images_without_any_object_cannot_be_measured():
    with pytest.raises(DataError, match="no image has an object to be found"):
        average_recall([answers([], [BIG])], "masks")


class Proposing:
    """Proposes the same boxes on every image."""

    def __init__(self, *boxes):
        self.boxes = np.float32(boxes).reshape(-1, 4)

    def encode(self, image):
        return image

    def propose(self, encoded):
        return Proposals(self.boxes, np.linspace(1, 0.5, len(self.boxes), dtype=np.float32))


def test_domains_count_the_same_however_many_objects_they_have():
    records = [
        KnownRecord("a", [BIG], domain="big"),
        KnownRecord("b", [SMALL, PART], domain="small"),
        KnownRecord("c", [BIG], domain="small", error=DataError("broken")),
        KnownRecord("d", [], domain="small"),
    ]

    found = proposal_recall(Proposing([0, 0, 20, 20]), records, EvaluationConfig())

    assert found.domains["big"][10] == pytest.approx(1.0)
    assert found.domains["small"][10] == pytest.approx(0.3)  # one of two, at six of ten
    assert found.mean[10] == pytest.approx(0.65)
    assert (found.num_images, found.num_objects) == (2, 3)
    assert found.summary().startswith("proposed boxes AR@10 0.650, AR@100 0.650")


def test_proposals_that_overlap_a_better_one_do_not_count():
    record = KnownRecord("a", [BIG, SMALL])
    boxes = [0, 0, 20, 20], [0, 0, 20, 19], [22, 2, 30, 10]

    found = proposal_recall(Proposing(*boxes), [record], EvaluationConfig())

    assert found.mean[10] == pytest.approx(1.0)


def test_records_without_objects_cannot_be_measured():
    with pytest.raises(DataError, match="no image has an object to be found"):
        proposal_recall(Proposing(), [KnownRecord("a", [])], EvaluationConfig())
