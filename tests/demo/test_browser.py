"""Pointing in Chromium on a real photograph, beside the Python runtime on the same graphs.

The graphs are those of `brightness_model`; `test_released_in_browser` has a released model.
"""

import json

import numpy as np
import pytest
from driven_page import mask_iou

from edgeseg.prompts import Prompt
from edgeseg.run_lengths import decode_rle, encode_rle


def test_the_page_runs_on_webassembly_with_threads_where_there_is_no_gpu(shown):
    assert shown.state("provider") == "wasm"
    assert int(shown.state("threads")) >= 1
    assert shown.text("model") == "brightness · 128 px"
    assert shown.browser.execute_script("return crossOriginIsolated")


def test_a_click_gives_the_mask_of_python_as_a_picture_and_as_run_lengths(
    shown, segmenter, encoded
):
    point_xy = shown.click(200, 120)
    mask, document = shown.saved_mask()

    expected = segmenter.segment_click(encoded, point_xy)
    assert mask.shape == (400, 512)
    assert set(np.unique(mask)) == {0, 255}
    assert mask_iou(mask == 255, expected.masks[0]) >= 0.98
    (row,) = document["masks"]
    assert row["segmentation"] == encode_rle(mask == 255)
    assert row["score"] == pytest.approx(float(expected.scores[0]), abs=1e-3)
    assert document["image"] == "astronaut.png"
    assert shown.text("status") in ("Saved astronaut-mask.json.", "Saved astronaut-mask.png.")


def test_another_size_is_the_next_answer_of_python(shown, segmenter, encoded):
    point_xy = shown.click(300, 200)
    shown.press("size")
    mask, _ = shown.saved_mask()

    expected = segmenter.segment_click(encoded, point_xy)
    assert len(expected) > 1
    assert mask_iou(mask == 255, expected.masks[1]) >= 0.98
    assert mask_iou(expected.masks[0], expected.masks[1]) < 0.9  # which would be another test


def test_a_box_and_a_negative_click_give_the_masks_of_python(shown, segmenter, encoded):
    box_xyxy = shown.drag((330, 300), (120, 60))  # from the bottom right
    box_mask, _ = shown.saved_mask()
    point_xy = shown.click(260, 120, shift=True)
    both_mask, _ = shown.saved_mask()

    x1, y1, x0, y0 = box_xyxy
    box = (x0, y0, x1, y1)
    box_only, both = segmenter.segment(
        encoded, [Prompt(box_xyxy=box), Prompt([point_xy], [0], box_xyxy=box)]
    ).masks
    assert mask_iou(box_mask == 255, box_only) >= 0.98
    assert mask_iou(both_mask == 255, both) >= 0.98
    assert mask_iou(box_only, both) < 0.9


def test_a_click_can_exclude_by_its_button_too(shown, segmenter, encoded):
    first = shown.click(200, 120)
    shown.part("exclude").click()
    second = shown.click(300, 120)
    shown.part("include").click()
    mask, _ = shown.saved_mask()

    (expected,) = segmenter.segment(encoded, Prompt([first, second], [1, 0])).masks
    assert mask_iou(mask == 255, expected) >= 0.98


def test_undo_and_clear_go_back(shown):
    shown.click(200, 120)
    first, _ = shown.saved_mask()
    shown.click(300, 200)
    shown.press("undo")
    again, _ = shown.saved_mask()
    shown.press("clear")

    np.testing.assert_array_equal(first, again)
    assert not shown.part("png").is_enabled()
    assert not shown.part("undo").is_enabled()


def test_hovering_previews_the_mask_and_leaving_takes_it_away(shown):
    def picture():
        script = "return document.getElementById('canvas').toDataURL()"
        return shown.browser.execute_script(script)

    shown.move(5, -20)  # above the photo
    empty = picture()
    shown.move(200, 120)
    shown.wait(lambda: picture() != empty)
    shown.move(5, -20)
    shown.wait(lambda: picture() == empty)

    assert not shown.part("png").is_enabled()  # a preview is no answer


def test_everything_mode_finds_the_objects_of_python(shown, segmenter, image):
    shown.press("everything")
    document = json.loads(shown.saved("json"))
    numbers = shown.saved("png")

    expected = segmenter.segment_everything(image)
    rows = expected.to_sam()
    assert document["image"] == {"file_name": "astronaut.png", "height": 400, "width": 512}
    assert len(document["annotations"]) == len(rows) > 3
    ours = [decode_rle(row["segmentation"]) for row in document["annotations"]]
    for row in rows:  # those of almost one size may have changed places
        theirs = decode_rle(row["segmentation"])
        assert max(mask_iou(mask, theirs) for mask in ours) >= 0.98
    areas_px = [row["area"] for row in document["annotations"]]
    assert areas_px == [np.count_nonzero(mask) for mask in ours]
    assert areas_px == sorted(areas_px, reverse=True)
    assert numbers.max() <= len(rows)
    np.testing.assert_array_equal(numbers > 0, np.logical_or.reduce(ours))


def test_one_of_all_objects_can_be_chosen_and_saved(shown):
    shown.press("everything")
    everything = json.loads(shown.saved("json"))
    with shown.answered():
        shown.type("n")
    assert shown.text("status").startswith(f"Object 1 of {len(everything['annotations'])}: ")
    mask, document = shown.saved_mask()
    shown.press("everything")

    assert document["masks"][0]["segmentation"] == encode_rle(mask == 255)
    saved = [row["segmentation"] for row in everything["annotations"]]
    assert document["masks"][0]["segmentation"] in saved
    assert not shown.part("png").is_enabled()  # everything mode was left
