import numpy as np
import pytest
from cell_backend import CellBackend

from edgeseg.errors import ConfigError, ImageError, PromptError, WeightsError
from edgeseg.preprocess import preprocess
from edgeseg.prompts import Prompt
from edgeseg.runtime import Segmenter

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)  # a cell is a pixel


@pytest.fixture
def segmenter():
    return Segmenter(CellBackend())


def pixels_of(mask):
    """Return x, y of the true pixels, row by row."""
    return [(x, y) for y, x in np.argwhere(mask).tolist()]


def test_image_is_preprocessed_and_its_frame_kept(segmenter):
    encoded = segmenter.encode(IMAGE)

    np.testing.assert_array_equal(encoded.features[1], preprocess(IMAGE, 64))
    assert encoded.frame.image_hw == (12, 16)
    assert encoded.frame.image_size == 64


def test_point_prompt_gives_the_mask_where_it_points(segmenter):
    # One point: the best score of tokens 1 to 3 is that of token 2, which marks 3 cells.
    masks = segmenter.segment(segmenter.encode(IMAGE), Prompt(points_xy=[(9.5, 3.5)]))

    assert len(masks) == 1
    assert masks.masks.shape == (1, 12, 16)
    assert pixels_of(masks.masks[0]) == [(9, 3), (10, 3), (11, 3)]
    assert masks.boxes_xyxy.tolist() == [[9, 3, 12, 4]]
    assert masks.scores.tolist() == pytest.approx([0.8])
    assert masks.low_res_logits.shape == (1, 16, 16)
    assert masks.areas_px.tolist() == [3]
    assert masks.image_hw == (12, 16)


def test_box_prompt_is_answered_by_token_0(segmenter):
    masks = segmenter.segment(segmenter.encode(IMAGE), [Prompt(box_xyxy=[2, 1, 5, 3])])

    expected = [(2, 1), (3, 1), (4, 1), (2, 2), (3, 2), (4, 2)]
    assert pixels_of(masks.masks[0]) == expected
    assert masks.scores.tolist() == pytest.approx([0.9])


def test_multimask_returns_tokens_1_to_3_of_every_prompt(segmenter):
    prompts = [Prompt(points_xy=[(1, 1)]), Prompt(points_xy=[(5, 7), (9, 9)])]

    masks = segmenter.segment(segmenter.encode(IMAGE), prompts, multimask=True)

    assert masks.prompt_indices.tolist() == [0, 0, 0, 1, 1, 1]
    assert masks.areas_px.tolist() == [2, 3, 4, 4, 6, 8]
    assert masks.scores.tolist() == pytest.approx([0.3, 0.8, 0.5] * 2)
    assert masks.masks[3, 7, 5]
    assert not masks.masks[0, 7, 5]


def test_prompts_are_decoded_a_few_at_a_time_with_the_same_answers():
    points = [(x + 0.5, y + 0.5) for x, y in [(0, 0), (3, 9), (12, 4), (7, 7), (1, 11)]]
    prompts = [Prompt(points_xy=[point]) for point in points]
    prompts[3] = prompts[3].with_point((2.5, 2.5), 1)
    whole, parts = CellBackend(), CellBackend()

    expected = Segmenter(whole).segment(Segmenter(whole).encode(IMAGE), prompts)
    segmenter = Segmenter(parts, max_prompts_a_call=2)
    masks = segmenter.segment(segmenter.encode(IMAGE), prompts)

    assert [len(call[0]) for call in whole.calls] == [5]
    assert [len(call[0]) for call in parts.calls] == [2, 2, 1]
    np.testing.assert_array_equal(masks.masks, expected.masks)
    np.testing.assert_array_equal(masks.scores, expected.scores)
    assert masks.prompt_indices.tolist() == [0, 1, 2, 3, 4]


def test_low_res_logits_of_an_answer_are_a_prompt_for_the_next(segmenter):
    encoded = segmenter.encode(IMAGE)
    first = segmenter.segment(encoded, Prompt(points_xy=[(9.5, 3.5)]))

    second = segmenter.segment(encoded, Prompt(mask_logits=first.low_res_logits[0]))

    # Nothing is marked by points: -1 everywhere, +1 where the first answer was +1, so 0 there.
    assert second.low_res_logits[0, 3, 9] == 0
    assert second.low_res_logits[0, 3, 8] == -2
    assert second.scores.tolist() == pytest.approx([0.9])


def test_a_point_with_a_mask_prompt_is_answered_by_token_0(segmenter):
    prompt = Prompt(points_xy=[(9.5, 3.5)], mask_logits=np.zeros((16, 16)))

    masks = segmenter.segment(segmenter.encode(IMAGE), [Prompt(points_xy=[(1, 1)]), prompt])

    assert masks.areas_px.tolist() == [3, 1]  # tokens 2 and 0
    assert masks.scores.tolist() == pytest.approx([0.8, 0.9])


def test_predict_logits_returns_all_four_answers(segmenter):
    logits, scores = segmenter.predict_logits(
        segmenter.encode(IMAGE), [Prompt(points_xy=[(0.5, 0.5)]), Prompt(box_xyxy=[0, 0, 2, 2])]
    )

    assert logits.shape == (2, 4, 16, 16)
    assert np.count_nonzero(logits[0] > 0, axis=(1, 2)).tolist() == [1, 2, 3, 4]
    assert scores.shape == (2, 4)


def test_no_prompts_give_no_masks(segmenter):
    encoded = segmenter.encode(IMAGE)

    assert segmenter.segment(encoded, []).masks.shape == (0, 12, 16)
    assert segmenter.segment(encoded, [], multimask=True).masks.shape == (0, 12, 16)
    assert segmenter.predict_logits(encoded, [])[0].shape == (0, 4, 16, 16)


def test_encoding_another_image_does_not_change_earlier_answers(segmenter):
    encoded = segmenter.encode(IMAGE)
    before = segmenter.segment(encoded, Prompt(points_xy=[(9.5, 3.5)]))
    segmenter.encode(IMAGE.transpose(1, 0, 2).copy())

    after = segmenter.segment(encoded, Prompt(points_xy=[(9.5, 3.5)]))

    np.testing.assert_array_equal(after.masks, before.masks)


def test_many_images_are_encoded_in_order_and_a_few_ahead(segmenter):
    taken = []

    def images():
        for value in range(8):
            taken.append(value)
            yield np.full((4 + value, 8, 3), value, np.uint8)

    encoded = segmenter.encode_many(images(), num_threads=2)
    assert taken == []  # nothing happens before the first is wanted
    first = next(encoded)

    assert len(taken) == 3  # the one returned and two ahead
    frames = [first.frame.image_hw, *(each.frame.image_hw for each in encoded)]
    assert frames == [(4 + value, 8) for value in range(8)]


def test_encoded_images_are_those_of_single_calls(segmenter):
    images = [IMAGE, IMAGE[:, ::-1].copy(), IMAGE[:7]]

    for encoded, image in zip(segmenter.encode_many(images), images, strict=True):
        np.testing.assert_array_equal(encoded.features[1], preprocess(image, 64))


def test_a_bad_image_among_many_is_an_error_at_its_turn(segmenter):
    encoded = segmenter.encode_many([IMAGE, IMAGE, np.zeros((4, 4)), IMAGE])

    assert next(encoded).frame.image_hw == next(encoded).frame.image_hw == (12, 16)
    with pytest.raises(ImageError, match="must be .* uint8 RGB"):
        next(encoded)
    with pytest.raises(StopIteration):
        next(encoded)
    assert list(segmenter.encode_many([])) == []
    with pytest.raises(ConfigError, match="num_threads must be 1 or more, got 0"):
        segmenter.encode_many([IMAGE], num_threads=0)


def test_image_encoded_by_another_model_is_refused(segmenter):
    other_size = Segmenter(CellBackend(image_size=128)).encode(IMAGE)
    other_name = Segmenter(CellBackend(name="other")).encode(IMAGE)

    with pytest.raises(ImageError, match=r"by cells with 128 pixel input, this is cells with 64"):
        segmenter.segment(other_size, Prompt(points_xy=[(1, 1)]))
    with pytest.raises(ImageError, match="encoded by other .*; encode the image with this"):
        segmenter.predict_logits(other_name, [Prompt(points_xy=[(1, 1)])])


def test_something_else_than_a_prompt_is_refused(segmenter):
    with pytest.raises(PromptError, match=r"must be Prompt objects, got tuple; write Prompt\("):
        segmenter.segment(segmenter.encode(IMAGE), [(1, 2)])


def test_an_answer_of_the_wrong_shape_is_refused():
    class ThreeMasks(CellBackend):
        def decode(self, *args):
            logits, scores = super().decode(*args)
            return logits[:, :1], scores

    segmenter = Segmenter(ThreeMasks())

    with pytest.raises(WeightsError, match=r"cells must answer 1 prompts .* load a promptable"):
        segmenter.segment(segmenter.encode(IMAGE), Prompt(points_xy=[(1, 1)]))


def test_a_call_needs_room_for_a_prompt():
    with pytest.raises(ConfigError, match="max_prompts_a_call must be 1 or more, got 0"):
        Segmenter(CellBackend(), max_prompts_a_call=0)
