import json
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_runs import write_image, write_pairs

from edgeseg.data.records import ByteRange, ImageRecord
from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.distill.labelling import LabelSettings, check_masks, label_image, label_records
from edgeseg.errors import DataError
from edgeseg.run_lengths import decode_rle
from edgeseg.runtime.segmenter import Segmenter

SIZE = 64  # 16 x 16 low-res cells
CELLS = SIZE // 4


class Backend:
    """Answers the n-th prompt of an image with the n-th of given logits and scores.

    Args:
        answers: A (cells, score) pair for tokens 1 to 3 of each prompt, (16, 16) bool and float.
        logit: Height of a mask's logits; below 1 a mask is not stable.
    """

    name = "scripted"
    image_size = SIZE

    def __init__(self, answers, logit=10.0):
        self.answers = answers
        self.logit = logit
        self.points = []
        self.num_images = 0

    def encode(self, pixels):
        self.num_images += 1
        self.next = 0
        return (pixels,)

    def decode(self, features, points_xy, point_labels, mask_logits, has_mask):
        total = len(points_xy)
        self.points += points_xy[:, 0].tolist()
        logits = np.full((total, 4, CELLS, CELLS), -self.logit, np.float32)
        scores = np.zeros((total, 4), np.float32)
        logits[:, 0], scores[:, 0] = self.logit, 1.0  # token 0 must never be taken
        for row in range(total):
            for token, (cells, score) in enumerate(self.answers[self.next], start=1):
                logits[row, token][cells] = self.logit
                scores[row, token] = score
            self.next = (self.next + 1) % len(self.answers)
        return logits, scores


def cells(rows, cols):
    mask = np.zeros((CELLS, CELLS), bool)
    mask[rows, cols] = True
    return mask


def label(answers, image_hw=(64, 64), logit=10.0, max_prompts_a_call=64, **settings):
    segmenter = Segmenter(Backend(answers, logit), max_prompts_a_call)
    image = np.zeros((*image_hw, 3), np.uint8)
    found = label_image(segmenter, image, LabelSettings(**{"points_per_side": 1} | settings))
    masks = np.array([crop.to_mask() for crop, _ in found], bool).reshape(-1, *image_hw)
    return masks, np.array([score for _, score in found]), segmenter.backend


LEFT, TOP, SPOT = (
    cells(slice(None), slice(0, 6)),
    cells(slice(0, 6), slice(None)),
    cells(slice(10, 14), slice(10, 14)),
)


def test_the_grid_covers_the_image_at_the_centres_of_its_cells():
    _, _, backend = label([[(LEFT, 0.9)]], image_hw=(32, 64), points_per_side=2)

    assert backend.points == [[16, 8], [48, 8], [16, 24], [48, 24]]  # x runs to 64, y to 32


def test_masks_come_best_first_at_the_size_of_the_image():
    masks, scores, _ = label([[(LEFT, 0.8), (SPOT, 0.95)]])

    assert masks.shape == (2, 64, 64)
    assert scores.tolist() == pytest.approx([0.95, 0.8])
    assert masks[0, 41:55, 40:56].all()
    assert masks[0].sum() == 16 * 16 - 4  # upsampling rounds the corners
    assert masks[1].sum() == 64 * 24


@pytest.mark.parametrize("max_prompts_a_call", [1, 3, 64])
def test_masks_are_the_same_however_many_prompts_a_call_takes(max_prompts_a_call):
    answers = [[(LEFT, 0.8)], [(TOP, 0.9)], [], [(SPOT, 0.7)]]

    masks, scores, _ = label(answers, points_per_side=2, max_prompts_a_call=max_prompts_a_call)

    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert masks.sum(axis=(1, 2)).tolist() == [64 * 24, 64 * 24, 252]


def test_a_mask_the_teacher_is_not_sure_of_is_dropped():
    masks, scores, _ = label([[(LEFT, 0.7), (SPOT, 0.69)]], min_score=0.7)

    assert scores.tolist() == [np.float32(0.7)]
    assert len(masks) == 1


def test_a_mask_with_a_doubtful_edge_is_dropped():
    assert len(label([[(LEFT, 0.9)]], logit=1.1)[0]) == 1
    assert len(label([[(LEFT, 0.9)]], logit=0.9)[0]) == 0  # nothing is above +1


def test_a_mask_that_covers_what_a_better_one_covers_is_dropped():
    almost = LEFT.copy()
    almost[0] = False  # IoU 15 / 16 with LEFT

    masks, scores, _ = label([[(almost, 0.8), (LEFT, 0.9), (SPOT, 0.75)]])
    both, _, _ = label([[(almost, 0.8), (LEFT, 0.9)]], max_overlap=15 / 16)

    assert scores.tolist() == pytest.approx([0.9, 0.75])
    assert masks[0, 0, 0]
    assert len(both) == 2


def test_a_mask_is_compared_with_the_area_of_the_image_and_not_of_its_padding():
    # 64 x 16 px: 4 of the 16 columns of cells are image, so 4 x 4 cells are a quarter of it.
    corner = cells(slice(0, 4), slice(0, 4))

    assert len(label([[(corner, 0.9)]], image_hw=(64, 16), min_area_share=0.25)[0]) == 1
    assert len(label([[(corner, 0.9)]], image_hw=(64, 16), min_area_share=0.26)[0]) == 0


def test_what_lies_on_padding_is_no_mask_and_makes_no_masks_alike():
    # 32 x 64 px: the lower 8 rows of cells are padding.
    padding = cells(slice(8, 16), slice(None))
    first, second = padding | cells(slice(0, 3), slice(0, 4)), padding | SPOT
    second[4:7, 9:14] = True

    masks, scores, _ = label([[(padding, 0.99), (first, 0.9), (second, 0.8)]], image_hw=(32, 64))

    assert scores.tolist() == pytest.approx([0.9, 0.8])  # on the image they do not overlap
    assert masks.shape == (2, 32, 64)


def test_only_the_best_masks_are_kept_when_there_are_too_many():
    _, scores, _ = label([[(LEFT, 0.8), (SPOT, 0.9), (cells(2, 12), 0.85)]], max_masks=2)

    assert scores.tolist() == pytest.approx([0.9, 0.85])


def test_an_image_may_have_no_mask():
    masks, scores, _ = label([[(LEFT, 0.1)]], image_hw=(20, 30))

    assert masks.shape == (0, 20, 30)
    assert scores.shape == (0,)


# Labels on disk.


@pytest.fixture
def records(tmp_path):
    for k, image_hw in enumerate([(32, 64), (64, 48), (40, 40)]):
        write_image(tmp_path / "bare" / f"b{k}.png", image_hw, seed=k)
    return list_records([SourceConfig(format="images", path=tmp_path / "bare")])


def labelled(records, folder, answers=None, progress=None):
    segmenter = Segmenter(Backend(answers or [[(SPOT, 0.9), (cells(slice(0, 5), 1), 0.8)]]))
    settings = LabelSettings(points_per_side=1)
    shown = [] if progress is None else progress
    found = label_records(records, segmenter, folder, settings, lambda *args: shown.append(args))
    return found, segmenter.backend


def test_labels_are_files_in_the_sa1b_layout_that_the_reader_takes(tmp_path, records):
    found, _ = labelled(records, tmp_path / "labels")

    assert [record.name for record in found] == [record.name for record in records]
    tall = found[1]
    (spot, column) = tall.read_masks((64, 48))
    assert decode_rle(spot)[41:55, 40:48].all()  # 16 columns of cells are 64 px, 48 are image
    assert decode_rle(spot).sum() == 16 * 8 - 2  # two corners are rounded, two beyond the image
    assert decode_rle(column).sum() == 20 * 4 - 2
    layout = json.loads(tall.annotations.read())
    assert layout["image"] == {"image_id": "bare/b1", "height": 64, "width": 48}
    assert [mask["area"] for mask in layout["annotations"]] == [126, 78]
    assert [mask["id"] for mask in layout["annotations"]] == [0, 1]
    assert layout["annotations"][0]["predicted_iou"] == pytest.approx(0.9)


def test_an_image_without_masks_gets_an_empty_file(tmp_path, records):
    found, _ = labelled(records[:1], tmp_path / "labels", [[(SPOT, 0.1)]])

    assert json.loads(found[0].annotations.read())["annotations"] == []
    assert found[0].read_masks((32, 64)) == []


def test_labelling_again_asks_only_for_what_is_missing(tmp_path, records):
    labelled(records[:2], tmp_path / "labels")
    progress = []

    found, backend = labelled(records, tmp_path / "labels", progress=progress)

    assert backend.num_images == 1
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert all(record.annotations for record in found)


def test_interrupted_labelling_leaves_whole_files_only(tmp_path, records):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    segmenter = Segmenter(Backend([[(SPOT, 0.9)]]))
    with pytest.raises(KeyboardInterrupt):
        label_records(records, segmenter, tmp_path / "labels", LabelSettings(), stop)

    found = list((tmp_path / "labels").iterdir())
    assert len(found) == 2
    assert all(json.loads(path.read_text())["image"] for path in found)


def test_records_with_annotations_stay_as_they_are(tmp_path, records):
    write_pairs(tmp_path / "pairs", num_images=1)
    own = list_records([SourceConfig(format="sa1b", path=tmp_path / "pairs")])

    found, backend = labelled([*own, records[0]], tmp_path / "labels")

    assert found[0] is own[0]
    assert backend.num_images == 1


def test_an_image_that_cannot_be_read_stays_bare_and_stops_nothing(tmp_path, records):
    (tmp_path / "bare" / "b1.png").write_bytes(b"no image")

    found, _ = labelled(records, tmp_path / "labels")

    assert [record.annotations is None for record in found] == [False, True, False]


def record(annotations):
    if isinstance(annotations, str):
        annotations = SimpleNamespace(read=annotations.encode)
    return ImageRecord("n", "d", ByteRange("n.png"), annotations)


EMPTY, FULL = '{"annotations": []}', '{"annotations": [{}]}'


@pytest.mark.parametrize("others", [[], [EMPTY], [None, "{", ByteRange("absent.json"), "[]"]])
def test_one_mask_is_enough_to_learn_from(others):
    check_masks([record(each) for each in [*others, FULL]])

    with pytest.raises(DataError, match=f"none of the {len(others)} images has a mask to learn"):
        check_masks([record(each) for each in others])
