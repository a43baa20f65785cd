import pytest
import torch

from edgeseg.errors import PromptError
from edgeseg.modeling.prompt_batch import PromptBatch, PromptGroups, box_or_point_prompts

LABELS = torch.tensor([[1, 0], [2, 3], [1, -2]])
POINTS = torch.arange(12.0).reshape(3, 2, 2)


@pytest.mark.parametrize(
    ("counts", "images"),
    [((2, 1), [0, 0, 1]), ((0, 3), [1, 1, 1]), ((1, 1), [0, 1]), ((2, 2), [0, 0, 1, 1])],
)
def test_each_prompt_gets_the_numbers_of_its_image(counts, images):
    per_image = torch.tensor([[10.0, 11.0], [20.0, 21.0]])
    groups = PromptGroups(counts)
    per_prompt = torch.arange(2.0 * len(images)).reshape(-1, 2)

    assert groups.total == len(images)
    assert groups.expand(per_image).tolist() == [per_image[image].tolist() for image in images]
    assert torch.equal(groups.add(per_prompt, per_image), per_prompt + per_image[images])


def test_points_are_moved_to_another_frame_image_by_image():
    prompts = PromptBatch(POINTS, LABELS, (1, 2), torch.zeros(3, 1, 8, 8))

    scaled = prompts.scaled(torch.tensor([[1.0, 10.0], [2.0, 3.0]]))  # x and y factors

    assert scaled.points_xy.tolist() == [
        [[0, 10], [2, 30]],
        [[8, 15], [12, 21]],
        [[16, 27], [20, 33]],
    ]
    assert scaled.point_labels is LABELS
    assert scaled.counts == (1, 2)
    assert scaled.mask_logits is None


def test_clicks_are_appended_and_masks_stay():
    masks, has_mask = torch.zeros(3, 1, 8, 8), torch.tensor([True, False, True])
    prompts = PromptBatch(POINTS, LABELS, (1, 2), masks, has_mask)

    clicked = prompts.with_points(torch.full((3, 1, 2), 7.0), torch.tensor([[0], [1], [-2]]))

    assert clicked.point_labels.tolist() == [[1, 0, 0], [2, 3, 1], [1, -2, -2]]
    assert clicked.points_xy[:, 2].tolist() == [[7, 7]] * 3
    assert torch.equal(clicked.points_xy[:, :2], POINTS)
    assert clicked.mask_logits is masks
    assert clicked.has_mask is has_mask


def test_new_masks_count_for_all_prompts():
    prompts = PromptBatch(POINTS, LABELS, (3,), torch.zeros(3, 1, 8, 8), torch.zeros(3).bool())

    masked = prompts.with_masks(torch.ones(3, 1, 8, 8))

    assert masked.mask_logits.all()
    assert masked.has_mask is None
    assert masked.with_masks(None).mask_logits is None


def test_each_prompt_starts_from_its_box_or_its_point():
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    points = torch.tensor([[10.0, 11.0], [12.0, 13.0]])

    prompts = box_or_point_prompts(boxes, points, torch.tensor([True, False]), [1, 1])

    assert prompts.points_xy.tolist() == [[[1, 2], [3, 4]], [[12, 13], [0, 0]]]
    assert prompts.point_labels.tolist() == [[2, 3], [1, -2]]
    assert prompts.counts == (1, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"counts": (1, 1)},
            r"\(T, P, 2\) with T = 2, the sum of counts, got \(3, 2, 2\); give every image",
        ),
        ({"points_xy": torch.zeros(3, 2, 3)}, r"points_xy must be .*got \(3, 2, 3\)"),
        ({"points_xy": torch.zeros(3, 2)}, r"points_xy must be .*got \(3, 2\)"),
        (
            {"point_labels": torch.ones(3, 1)},
            r"must be \(3, 2\) like points_xy, got \(3, 1\); fill empty slots with the label -2",
        ),
        (
            {"mask_logits": torch.zeros(1, 1, 8, 8)},
            r"must be \(T, 1, S/4, S/4\) with T = 3, .*got \(1, 1, 8, 8\); give one row",
        ),
        ({"mask_logits": torch.zeros(3, 8, 8)}, r"mask_logits must be .*got \(3, 8, 8\)"),
        ({"has_mask": torch.ones(2)}, r"has_mask must be \(T,\) with T = 3, .*got \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit_together_are_refused(changed, message):
    fields = {"points_xy": POINTS, "point_labels": LABELS, "counts": (1, 2)}

    with pytest.raises(PromptError, match=message):
        PromptBatch(**{**fields, **changed})
