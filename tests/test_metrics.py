import cv2
import numpy as np
import pytest

from edgeseg.errors import DataError
from edgeseg.mask_crop import MaskCrop, crop_mask, joint_window, overlap_px, tight_rectangle
from edgeseg.metrics import (
    IOU_THRESHOLDS,
    average_recall,
    boundary_iou,
    boundary_width_px,
    crop_boundary,
    crop_iou,
    inner_boundary,
    mask_iou,
    pairwise_mask_iou,
)


def rectangle(image_hw, left, top, right, bottom):
    mask = np.zeros(image_hw, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


A = rectangle((6, 9), 0, 0, 4, 3)  # 12 px
B = rectangle((6, 9), 2, 1, 6, 4)  # 12 px, 2 x 2 of them shared with A
EMPTY = np.zeros((6, 9), np.bool_)


def test_iou_is_shared_pixels_over_all_pixels():
    assert mask_iou(A, B) == 4 / 20  # 12 + 12 - 4
    assert mask_iou(A, A) == 1
    assert mask_iou(A, EMPTY) == 0
    assert mask_iou(EMPTY, EMPTY) == 1


def test_pairwise_iou_has_the_first_set_in_rows():
    ious = pairwise_mask_iou(np.stack([A, B, EMPTY]), np.stack([B, EMPTY]))

    np.testing.assert_allclose(ious, [[4 / 20, 0], [1, 0], [0, 1]])


def test_pairwise_iou_is_exact_for_masks_of_many_blocks(monkeypatch):
    monkeypatch.setattr("edgeseg.metrics._PIXELS_A_BLOCK", 7)  # 54 pixels: 8 blocks, one short

    assert pairwise_mask_iou(A[None], B[None])[0, 0] == 4 / 20


def test_masks_of_different_sizes_are_not_compared():
    with pytest.raises(DataError, match=r"one shape to be compared, got \(6, 9\) and \(9, 6\)"):
        mask_iou(A, A.T)
    with pytest.raises(DataError, match=r"one shape to be compared, got \(6, 9\) and \(9, 6\)"):
        boundary_iou(A, A.T)
    with pytest.raises(DataError, match=r"one image size .* got \(6, 9\) and \(9, 6\)"):
        pairwise_mask_iou(A[None], A.T[None])
    with pytest.raises(DataError, match=r"only be compared on one image, got sizes \(6, 9\)"):
        crop_iou(crop_mask(A), crop_mask(A.T))
    with pytest.raises(DataError, match=r"only be compared on one image, got sizes \(6, 9\)"):
        joint_window(crop_mask(A), crop_mask(A.T))


@pytest.mark.parametrize(
    ("image_hw", "width_px"),
    [((480, 640), 16), ((30, 40), 1), ((3, 4), 1), ((300, 400), 10), ((60, 45), 2)],
)
def test_boundary_is_two_percent_of_the_diagonal_wide_and_at_least_a_pixel(image_hw, width_px):
    # Diagonals 800, 50, 5, 500, 75: 16, 1, 0.1, 10, 1.5 (rounded to even).
    assert boundary_width_px(image_hw) == width_px


def test_boundary_holds_the_pixels_near_the_outside_and_the_image_border_is_outside():
    mask = rectangle((6, 9), 0, 0, 5, 4)  # touches the left and the upper border

    boundary = inner_boundary(mask, 1)

    inside = rectangle((6, 9), 1, 1, 4, 3)
    np.testing.assert_array_equal(boundary, mask & ~inside)


def paper_boundary(mask, dilation_ratio=0.02):
    """Compute the boundary at full size, in single steps, on a copy with a border of zeros."""
    height, width = mask.shape
    steps = max(1, int(round(dilation_ratio * np.sqrt(height**2 + width**2))))
    framed = np.pad(mask.astype(np.uint8), 1)
    eroded = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=steps)
    return mask & (eroded[1:-1, 1:-1] == 0)


def blob(rng, image_hw):
    noise = cv2.GaussianBlur(rng.standard_normal(image_hw), (0, 0), 6)
    return noise > rng.uniform(-0.05, 0.12)


def test_boundary_iou_equals_the_direct_computation():
    rng = np.random.default_rng(0)
    for image_hw in ((90, 140), (200, 130), (33, 50)):
        for _ in range(8):
            first, second = blob(rng, image_hw), blob(rng, image_hw)
            one, other = paper_boundary(first), paper_boundary(second)
            expected = (one & other).sum() / max(1, (one | other).sum())

            assert boundary_iou(first, second) == pytest.approx(expected, abs=1e-12)


def test_boundary_iou_of_squares_by_hand():
    first = rectangle((30, 40), 10, 10, 20, 20)  # ring of 36 px, 1 px wide on a diagonal of 50
    second = rectangle((30, 40), 11, 10, 21, 20)  # one pixel to the right
    # Shared: 9 px of the upper and of the lower side each, nothing of the vertical sides.

    assert boundary_iou(first, second) == 18 / (36 + 36 - 18)


def test_boundary_iou_takes_the_width_from_the_whole_image():
    first, second = rectangle((300, 400), 5, 5, 35, 35), rectangle((300, 400), 5, 5, 35, 30)
    # The diagonal is 500, the boundary 10 px wide. Inside of the first: x and y in 15..25; of the
    # second: x in 15..25, y in 15..20, a part of it.
    ring_first, ring_second = 900 - 10 * 10, 750 - 10 * 5
    shared = 750 - 10 * 10  # pixels of the second, which the first holds, in neither inside

    assert boundary_iou(first, second) == shared / (ring_first + ring_second - shared)


def test_boundary_iou_of_empty_masks():
    assert boundary_iou(EMPTY, EMPTY) == 1
    assert boundary_iou(EMPTY, A) == 0


def test_crops_give_the_iou_and_the_boundary_of_whole_masks():
    rng = np.random.default_rng(1)
    for _ in range(10):
        first, second = blob(rng, (70, 110)), rectangle((70, 110), *rng.integers(0, 30, 2), 60, 50)
        one, other = crop_mask(first), crop_mask(second)

        assert crop_iou(one, other) == pytest.approx(mask_iou(first, second), abs=1e-12)
        np.testing.assert_array_equal(crop_boundary(one).to_mask(), paper_boundary(first))


def test_crops_that_are_empty_or_far_apart_share_nothing():
    corner = crop_mask(rectangle((6, 9), 7, 4, 9, 6))

    assert overlap_px(crop_mask(A), corner) == 0
    assert crop_iou(crop_mask(A), corner) == 0
    assert crop_iou(crop_mask(EMPTY), corner) == 0
    assert crop_iou(crop_mask(EMPTY), crop_mask(EMPTY)) == 1
    assert overlap_px(crop_mask(A), crop_mask(B)) == 4


def test_crop_and_back_is_the_same_mask():
    crop = crop_mask(B)

    assert crop.offset_xy == (2, 1)
    assert crop.pixels.shape == (3, 4)
    assert crop.edges_xyxy == (2, 1, 6, 4)
    assert crop.area_px == 12
    np.testing.assert_array_equal(crop.to_mask(), B)
    assert not crop_mask(EMPTY).to_mask().any()


def test_tight_rectangle_takes_masks_that_are_not_contiguous():
    assert tight_rectangle(B.T.copy().T) == (2, 1, 6, 4)
    assert tight_rectangle(np.repeat(B, 2, axis=1)[:, ::2]) == (2, 1, 6, 4)


def test_joint_window_holds_both_masks_and_a_margin_inside_the_image():
    first, second, offset_xy = joint_window(crop_mask(A), crop_mask(B), margin_px=1)

    # Edges 0, 0, 6, 4 and a pixel more to the right and below.
    assert offset_xy == (0, 0)
    np.testing.assert_array_equal(first, A[:5, :7])
    np.testing.assert_array_equal(second, B[:5, :7])


def test_joint_window_with_an_empty_mask_is_that_of_the_other():
    empty, full, offset_xy = joint_window(crop_mask(EMPTY), crop_mask(B))

    assert offset_xy == (2, 1)
    assert full.all()
    assert empty.shape == full.shape == (3, 4)
    assert not empty.any()


def test_joint_window_of_nothing_has_a_pixel():
    empty = MaskCrop(np.zeros((0, 0), np.bool_), (0, 0), (6, 9))

    assert joint_window(empty, empty)[0].shape == (1, 1)


def test_thresholds_are_those_of_coco():
    assert IOU_THRESHOLDS.tolist() == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def test_average_recall_counts_an_object_once_and_each_proposal_once():
    ious = np.array([[0.9, 0.8], [0.95, 0.0]])  # the second proposal fits the first object too
    # Below 0.95 the first proposal takes object 0 at its thresholds up to 0.90 (9 of 10); the
    # second finds object 0 taken and object 1 not there. At 0.95 the second takes object 0.

    assert average_recall([ious], max_proposals=2) == pytest.approx((9 + 1) / 20)


def test_average_recall_gives_a_proposal_the_next_object_when_its_best_is_taken():
    ious = np.array([[0.95, 0.0], [0.9, 0.8]])
    # Object 0 is found at all 10 thresholds, object 1 by the second proposal from 0.50 to 0.80.

    assert average_recall([ious], max_proposals=2) == pytest.approx((10 + 7) / 20)


def test_average_recall_looks_at_the_first_proposals_only():
    ious = np.array([[0.0], [1.0]])

    assert average_recall([ious], max_proposals=1) == 0
    assert average_recall([ious], max_proposals=2) == 1


def test_average_recall_pools_the_objects_of_all_images():
    found, missed = np.array([[0.62]]), np.zeros((0, 3))  # 0.50, 0.55, 0.60 of 10 thresholds

    assert average_recall([found, missed], max_proposals=5) == pytest.approx(3 / 40)
    assert average_recall([np.zeros((4, 0))], max_proposals=5) == 0


def test_average_recall_needs_a_proposal():
    with pytest.raises(DataError, match="max_proposals must be 1 or more, got 0"):
        average_recall([], max_proposals=0)
