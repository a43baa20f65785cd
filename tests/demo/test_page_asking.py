"""Clicks, boxes and everything mode of the page beside the Python runtime, call by call."""

import cv2
import numpy as np
import pytest
from recording_backend import RecordingBackend

from edgeseg.geometry import ModelFrame
from edgeseg.prompts import Prompt
from edgeseg.proposals import click_proposals, kept_boxes, read_proposals
from edgeseg.runtime.everything import EverythingSettings
from edgeseg.runtime.granularity import click_boxes
from edgeseg.runtime.segmenter import Segmenter

IMAGE = np.zeros((150, 200, 3), np.uint8)
FRAME = ModelFrame((150, 200), 64)

PRELUDE = """
const { makeFrame } = await load("frame.js");
const { packPrompts } = await load("prompts.js");
const { cropOfLogits } = await load("masks.js");
const asking = await load("asking.js");
const frame = makeFrame(200, 150, 64);
const asked = [];
const decode = async (prompts) => {
  asked.push(packPrompts(prompts, frame));
  return { ...values.calls[asked.length - 1], ms: 1 };
};
const told = ({ candidates }) => candidates.map((one) => ({
  crop: cropOfLogits(one.logits, frame),
  score: one.score,
  confidence: one.confidence,
  stability: one.stability,
  point: one.point,
}));
"""


@pytest.fixture
def backend():
    return RecordingBackend()


def run(page, body, backend, **values):
    given = {"calls": backend.calls_as_values(), "proposals": backend.proposals_as_values()}
    return page(PRELUDE + body, **given, **values)


def check_asked_alike(found, backend):
    """Check that the page gave its decoder what Python gave its own."""
    assert len(found["asked"]) == len(backend.calls)
    for packed, (points_xy, labels, _, _) in zip(found["asked"], backend.calls, strict=True):
        assert packed["labels"] == labels.ravel().tolist()
        np.testing.assert_allclose(packed["pointsXY"], points_xy.ravel(), atol=1e-4)


def check_same_masks(found, masks):
    assert len(found) == len(masks.crops)
    for ours, crop, score in zip(found, masks.crops, masks.scores, strict=True):
        assert (ours["crop"]["left"], ours["crop"]["top"]) == crop.offset_xy
        pixels = ours["crop"]["pixels"].reshape(ours["crop"]["height"], ours["crop"]["width"])
        np.testing.assert_array_equal(pixels.astype(bool), crop.pixels)
        assert ours["score"] == pytest.approx(float(score))


def test_proposals_come_in_the_order_and_places_of_python(page, backend):
    found = run(
        page,
        'const { readProposals } = await load("proposals.js");'
        "return readProposals(values.proposals, frame);",
        backend,
    )

    expected = read_proposals(backend.proposed, FRAME)
    assert [one["score"] for one in found] == expected.scores.tolist()
    np.testing.assert_allclose([one["box"] for one in found], expected.boxes_xyxy, rtol=1e-6)


def test_boxes_that_overlap_are_left_out_as_by_opencv(page):
    rng = np.random.default_rng(5)
    corners = rng.uniform(0, 80, (120, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 60, (120, 2))], 1).astype(np.float32)
    scores = np.arange(120, 0, -1, np.float32)

    found = page(
        'const { suppressed } = await load("boxes.js");'
        "const sorted = values.boxes.map((box, index) => ({ box, index }));"
        "return suppressed(sorted, 0.5).map(({ index }) => index);",
        boxes=boxes.tolist(),
    )

    assert found == kept_boxes(boxes, scores, 0.5)
    assert 10 < len(found) < 110  # some of both


@pytest.mark.parametrize("point_xy", [(100.5, 75.5), (0.5, 0.5), (199.5, 149.5)])
def test_the_boxes_of_a_click_are_those_of_python(page, backend, point_xy):
    found = run(
        page,
        'const { clickProposals, clickBoxes } = await load("proposals.js");'
        "const likely = clickProposals(values.proposals, ...values.point, frame);"
        "return { likely, boxes: clickBoxes(likely) };",
        backend,
        point=point_xy,
    )

    likely = click_proposals(backend.proposed, point_xy, FRAME)
    np.testing.assert_allclose([one["score"] for one in found["likely"]], likely.scores, rtol=1e-5)
    np.testing.assert_allclose([one["box"] for one in found["likely"]], likely.boxes_xyxy, 1e-5)
    merged = list(click_boxes(likely))
    boxes, chances = [b.box_xyxy for b in merged], [b.chance for b in merged]
    np.testing.assert_allclose([one["chance"] for one in found["boxes"]], chances, 1e-5)
    np.testing.assert_allclose([one["box"] for one in found["boxes"]], boxes, 1e-5)


@pytest.mark.parametrize("point_xy", [(100.5, 75.5), (3.25, 140.0), (180.0, 20.5)])
def test_a_click_is_answered_like_segment_click(page, backend, point_xy):
    segmenter = Segmenter(backend)
    encoded = segmenter.encode(IMAGE)
    expected = segmenter.segment_click(encoded, point_xy)

    found = run(
        page,
        "const [x, y] = values.point;"
        "const prompt = { points: [{ x, y, label: 1 }], box: null };"
        "const photo = { frame, proposals: values.proposals };"
        "const answer = await asking.askForObject(prompt, photo, decode);"
        "return { asked, masks: told(answer) };",
        backend,
        point=point_xy,
    )

    check_asked_alike(found, backend)
    check_same_masks(found["masks"], expected)
    assert len(expected) > 1


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(box_xyxy=(20, 30, 120, 100)),
        Prompt(points_xy=[(60, 60), (100, 90)], point_labels=[1, 0]),
        Prompt(points_xy=[(60, 60)], point_labels=[0]),
        Prompt(points_xy=[(60, 60)], box_xyxy=(20, 30, 120, 100)),
    ],
)
def test_other_prompts_are_answered_like_segment(page, prompt):
    backend = RecordingBackend()
    segmenter = Segmenter(backend)
    expected = segmenter.segment(segmenter.encode(IMAGE), prompt)
    points = zip(prompt.points_xy.tolist(), prompt.point_labels.tolist(), strict=True)
    given = {
        "points": [{"x": x, "y": y, "label": label} for (x, y), label in points],
        "box": None if prompt.box_xyxy is None else prompt.box_xyxy.tolist(),
    }

    found = run(
        page,
        "const photo = { frame, proposals: values.proposals };"
        "const answer = await asking.askForObject(values.prompt, photo, decode);"
        "return { asked, masks: told(answer) };",
        backend,
        prompt=given,
    )

    check_asked_alike(found, backend)
    check_same_masks(found["masks"][:1], expected)


def test_a_click_without_proposals_is_answered_by_the_best_of_three_tokens(page):
    backend = RecordingBackend(proposes=False)
    segmenter = Segmenter(backend)
    expected = segmenter.segment(segmenter.encode(IMAGE), Prompt(points_xy=[(60, 60)]))

    found = run(
        page,
        "const prompt = { points: [{ x: 60, y: 60, label: 1 }], box: null };"
        "return told(await asking.askForObject(prompt, { frame, proposals: null }, decode));",
        backend,
    )

    check_same_masks(found[:1], expected)
    assert len(found) > 1  # the others are other sizes


def test_everything_is_found_that_python_finds(page, backend):
    segmenter = Segmenter(backend, max_prompts_a_call=8)  # as many as the page asks at a time
    expected = segmenter.segment_everything(IMAGE)

    found = run(
        page,
        "const photo = { frame, proposals: values.proposals };"
        "const steps = [];"
        "const progress = (done, all) => steps.push([done, all]);"
        "const answer = await asking.askForEverything(photo, decode, progress);"
        "return { asked, steps, masks: told(answer), numPrompts: answer.numPrompts };",
        backend,
    )

    check_asked_alike(found, backend)
    check_same_masks(found["masks"], expected.masks)
    assert found["numPrompts"] == expected.num_prompts
    assert found["steps"][-1] == [expected.num_prompts] * 2
    stability = [one["stability"] for one in found["masks"]]
    np.testing.assert_allclose(stability, expected.stability, rtol=1e-6)
    points = [[one["point"]["x"], one["point"]["y"]] for one in found["masks"]]
    np.testing.assert_allclose(points, expected.points_xy, rtol=1e-6)
    assert 3 < len(expected) < expected.num_prompts  # some were left out


def test_everything_mode_has_the_settings_of_python(page):
    found = page('return (await load("asking.js")).EVERYTHING;')

    defaults = EverythingSettings()
    for name, value in found.items():
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
        assert getattr(defaults, snake) == value


def test_objects_are_saved_in_the_layout_of_the_command_line(page, backend):
    segmenter = Segmenter(backend, max_prompts_a_call=8)
    expected = segmenter.segment_everything(IMAGE)

    found = run(
        page,
        """
        const { objectsJson, objectsPng } = await load("exports.js");
        const photo = { frame, proposals: values.proposals };
        const { candidates } = await asking.askForEverything(photo, decode, () => {});
        const png = await objectsPng(candidates, frame);
        const json = JSON.parse(await objectsJson(candidates, frame, "a.png").text());
        return { json, png: new Uint8Array(await png.arrayBuffer()) };
        """,
        backend,
    )

    rows = [{"id": number, **row} for number, row in enumerate(expected.to_sam())]
    assert found["json"]["image"] == {"file_name": "a.png", "height": 150, "width": 200}
    assert len(found["json"]["annotations"]) == len(rows)
    for ours, row in zip(found["json"]["annotations"], rows, strict=True):
        assert ours.keys() == row.keys()
        for key in ("id", "segmentation", "area", "bbox", "crop_box"):
            assert ours[key] == row[key], key
        for key in ("predicted_iou", "stability_score"):
            assert ours[key] == pytest.approx(row[key])
        np.testing.assert_allclose(ours["point_coords"], row["point_coords"], rtol=1e-6)
    numbers = np.zeros((150, 200), np.uint8)
    by_size = np.argsort(-expected.masks.areas_px, kind="stable")
    for number, index in enumerate(by_size, 1):
        numbers[expected.masks.masks[index]] = number
    np.testing.assert_array_equal(cv2.imdecode(found["png"], cv2.IMREAD_UNCHANGED), numbers)


def test_one_mask_is_saved_in_the_layout_of_the_command_line(page, backend):
    segmenter = Segmenter(backend)
    encoded = segmenter.encode(IMAGE)
    expected = segmenter.segment(encoded, Prompt(box_xyxy=(20, 30, 120, 100)))

    found = run(
        page,
        """
        const { takeAway } = await load("exports.js");
        const prompt = { points: [], box: [20, 30, 120, 100] };
        const photo = { frame, proposals: null };
        const { candidates } = await asking.askForObject(prompt, photo, decode);
        const { json, stem } = takeAway(candidates[0], [], { frame, name: "a.b.png" });
        return { json: JSON.parse(await json().text()), stem };
        """,
        backend,
    )

    (rle,) = expected.to_rle()
    row = {"segmentation": rle, "score": float(expected.scores[0]), "prompt": 0}
    assert found == {"json": {"image": "a.b.png", "masks": [row]}, "stem": "a.b-mask"}


def test_there_is_nothing_to_save_without_a_mask(page):
    found = page(
        'const { takeAway } = await load("exports.js");'
        'return takeAway(undefined, [], { frame: {}, name: "a.png" });'
    )

    assert found is None
