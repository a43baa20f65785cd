"""The package `segment_anything` is the oracle: same weights, same calls, same answers."""

import numpy as np
import pytest
from cell_backend import CellBackend
from exported_folders import write_folder
from sam_twins import sam_and_ours

from edgeseg.errors import ConfigError, ImageError, PromptError
from edgeseg.runtime import SamPredictor, Segmenter

RNG = np.random.default_rng(0)
SQUARE = RNG.integers(0, 256, (128, 128, 3), np.uint8)
POINT = {"point_coords": np.array([[100, 20]]), "point_labels": np.array([1])}
POINTS = {"point_coords": np.array([[100, 20], [31, 90.5]]), "point_labels": np.array([1, 0])}
BOX = {"box": np.array([20, 9, 101, 50])}
MASK = {"mask_input": RNG.normal(scale=4, size=(1, 32, 32)).astype(np.float32)}


@pytest.fixture(scope="module")
def predictors():
    """SAM's predictor and ours over one network with random weights and 128 pixel input."""
    net, segmenter = sam_and_ours()
    return pytest.importorskip("segment_anything").SamPredictor(net), SamPredictor(segmenter)


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param(POINT, id="point"),
        pytest.param(POINTS, id="points"),
        pytest.param(BOX, id="box"),
        pytest.param(MASK, id="mask"),
        pytest.param(POINT | BOX, id="point and box"),
        pytest.param(POINTS | BOX | MASK, id="everything"),
    ],
)
def test_masks_scores_and_logits_are_those_of_sam(predictors, prompt, multimask_output):
    for predictor in predictors:
        predictor.set_image(SQUARE)

    expected, got = (
        predictor.predict(**prompt, multimask_output=multimask_output) for predictor in predictors
    )
    expected_logits, logits = (
        predictor.predict(**prompt, multimask_output=multimask_output, return_logits=True)[0]
        for predictor in predictors
    )

    num_masks = 3 if multimask_output else 1
    assert got[0].shape == (num_masks, 128, 128)
    assert [array.dtype for array in got] == [np.bool_, np.float32, np.float32]
    assert expected[2].std() > 0.1  # or the comparison would say little
    np.testing.assert_allclose(got[1], expected[1], atol=1e-4)
    np.testing.assert_allclose(got[2], expected[2], atol=1e-4)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
    differing = got[0] != expected[0]
    assert abs(expected_logits[differing]).max(initial=0) < 1e-4


def test_a_bgr_image_that_is_not_square_is_answered_like_in_sam(predictors):
    image = RNG.integers(0, 256, (96, 128, 3), np.uint8)
    for predictor in predictors:
        predictor.set_image(image, "BGR")

    expected, got = (predictor.predict(**POINTS) for predictor in predictors)

    sizes = [(each.original_size, each.input_size, each.is_image_set) for each in predictors]
    assert sizes[0] == sizes[1] == ((96, 128), (96, 128), True)
    np.testing.assert_allclose(got[2], expected[2], atol=1e-4)
    embeddings = [each.get_image_embedding() for each in predictors]
    np.testing.assert_allclose(embeddings[1], embeddings[0].numpy(), atol=1e-4)
    # SAM scales the padding along with the content, so the last two rows may differ.
    assert (got[0] == expected[0])[:, :94].mean() > 0.9999


@pytest.mark.parametrize("image_hw", [(200, 256), (90, 41), (600, 333)])
def test_the_network_gets_the_coordinates_that_sam_would_give_it(image_hw):
    transforms = pytest.importorskip("segment_anything.utils.transforms")
    backend = CellBackend()
    predictor = SamPredictor(Segmenter(backend))
    predictor.set_image(np.zeros((*image_hw, 3), np.uint8))
    points = np.array([[0, 0], [10, 30], [40, 2.5]])

    predictor.predict(points, [1, 0, 1], box=[3, 4, 20, 39])

    scaled = transforms.ResizeLongestSide(64)
    expected = [
        scaled.apply_coords(points, image_hw),
        scaled.apply_boxes(np.array([[3, 4, 20, 39]]), image_hw).reshape(2, 2),
    ]
    (points_xy, labels, *_) = backend.calls[-1]
    np.testing.assert_allclose(points_xy[0], np.concatenate(expected) + 0.5, atol=1e-5)
    assert labels.tolist() == [[1, 0, 1, 2, 3]]


class SilentBackend(CellBackend):
    """Remembers its calls and marks nothing."""

    def decode(self, *arguments):
        self.calls.append(arguments[1:])
        return np.zeros((1, 4, 16, 16), np.float32), np.zeros((1, 4), np.float32)


def test_a_click_on_the_last_pixel_of_a_large_image_stays_on_it():
    backend = SilentBackend()
    predictor = SamPredictor(Segmenter(backend))
    predictor.set_image(np.zeros((512, 256, 3), np.uint8))  # 8 times the model input

    predictor.predict([[255, 511]], [1])

    # SAM gives 31.875 + 0.5 and 63.875 + 0.5; the image ends at 32 and 64.
    assert backend.calls[-1][0].tolist() == [[[32, 64]]]
    with pytest.raises(
        PromptError, match=r"points_xy must lie on the image, 256 wide and 512 high"
    ):
        predictor.predict([[260, 511]], [1])


def test_a_model_may_be_given_by_its_folder(tmp_path):
    predictor = SamPredictor(write_folder(tmp_path))
    predictor.set_image(np.zeros((64, 64, 3), np.uint8))

    masks, scores, low_res_logits = predictor.predict([[9, 20]], [1])

    assert predictor.segmenter.backend.runs_on["decoder"] == ("cpu",)
    assert masks.shape == (3, 64, 64)
    assert low_res_logits.shape == (3, 16, 16)
    # Tokens 1 to 3 of a point on the object, w = 3; the answer that segment would choose is one.
    assert scores.tolist() == pytest.approx([3.1, 3.2, 3.3])


@pytest.mark.parametrize("shape", [(4,), (1, 4)])
def test_a_box_may_stand_in_a_row_and_a_mask_without_one(shape):
    backend = CellBackend()
    predictor = SamPredictor(Segmenter(backend))
    predictor.set_image(np.zeros((64, 64, 3), np.uint8))
    box = np.array([8, 12, 20, 40]).reshape(shape)

    predictor.predict(box=box, mask_input=np.ones((1, 16, 16)))
    predictor.predict(box=box, mask_input=np.ones((16, 16)))

    for points_xy, labels, mask_logits, has_mask in backend.calls:
        assert points_xy.tolist() == [[[8.5, 12.5], [20.5, 40.5]]]
        assert labels.tolist() == [[2, 3]]
        assert mask_logits.shape == (1, 1, 16, 16)
        assert has_mask.tolist() == [True]


def test_without_an_image_there_is_no_answer():
    predictor = SamPredictor(Segmenter(CellBackend()))
    message = r"no image is set; call set_image"
    assert (predictor.is_image_set, predictor.features, predictor.original_size) == (False,) + (
        None,
    ) * 2
    with pytest.raises(ImageError, match=message):
        predictor.predict([[1, 1]], [1])

    predictor.set_image(np.zeros((64, 64, 3), np.uint8))
    assert predictor.is_image_set
    assert len(predictor.features) == 2
    predictor.reset_image()

    assert not predictor.is_image_set
    with pytest.raises(ImageError, match=message):
        predictor.get_image_embedding()


def test_an_encoder_that_fails_does_not_leave_the_image_before_in_place():
    class FailsLater(CellBackend):
        def encode(self, pixels):
            if self.calls:
                raise RuntimeError("out of memory")
            return super().encode(pixels)

    predictor = SamPredictor(Segmenter(FailsLater()))
    predictor.set_image(np.zeros((64, 64, 3), np.uint8))
    predictor.predict([[1, 1]], [1])
    with pytest.raises(RuntimeError, match="out of memory"):
        predictor.set_image(np.ones((64, 64, 3), np.uint8))

    assert not predictor.is_image_set


def test_what_cannot_be_meant_is_refused():
    predictor = SamPredictor(Segmenter(CellBackend()))
    with pytest.raises(ConfigError, match="image_format must be 'RGB' or 'BGR', got 'GRAY'"):
        predictor.set_image(np.zeros((64, 64, 3), np.uint8), "GRAY")
    with pytest.raises(ImageError, match="must be .* uint8 RGB"):
        predictor.set_image(np.zeros((64, 64), np.uint8))
    predictor.set_image(np.zeros((64, 64, 3), np.uint8))

    with pytest.raises(PromptError, match="point_labels must be given with point_coords"):
        predictor.predict([[1, 1]])
    with pytest.raises(PromptError, match="the prompt is empty"):
        predictor.predict()
    with pytest.raises(PromptError, match=r"box_xyxy must be \(4,\) .* one box a prompt"):
        predictor.predict(box=[[1, 1, 9, 9], [2, 2, 9, 9]])
    with pytest.raises(PromptError, match=r"points_xy must be \(P, 2\)"):
        predictor.predict([1, 1, 1], [1])
    with pytest.raises(PromptError, match=r"mask_logits must be \(16, 16\) for a model with 64"):
        predictor.predict(mask_input=np.zeros((1, 8, 8)))


def test_methods_for_tensors_say_what_to_use_instead():
    predictor = SamPredictor(Segmenter(CellBackend()))

    with pytest.raises(ConfigError, match=r"predictor\.segmenter\.segment\(encoded, \[prompt"):
        predictor.predict_torch(None, None, boxes=None)
    with pytest.raises(ConfigError, match="use set_image with an"):
        predictor.set_torch_image(None, (1, 1))
