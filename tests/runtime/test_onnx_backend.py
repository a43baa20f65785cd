import threading

import numpy as np
import onnxruntime
import pytest
from exported_folders import expected_answers, write_folder

from edgeseg.errors import ConfigError, ImageError, PromptError, WeightsError
from edgeseg.prompts import Prompt
from edgeseg.runtime import Segmenter
from edgeseg.runtime.onnx_backend import open_onnx, session_options
from edgeseg.signature import PromptSlots

RNG = np.random.default_rng(0)
PIXELS = RNG.normal(size=(1, 3, 64, 64)).astype(np.float32)
POINTS_XY = RNG.integers(0, 64, (5, 3, 2)).astype(np.float32)
LABELS = np.array([[1, -2, -2], [1, 0, -2], [2, 3, -2], [2, 3, 1], [0, 1, 1]])
MASKS = RNG.normal(size=(5, 1, 16, 16)).astype(np.float32)
HAS_MASK = np.array([True, False, True, True, False])


def assert_same_answers(got, expected, atol=1e-3):
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def test_the_embedding_is_what_the_encoder_makes_of_the_pixels(tmp_path):
    backend = open_onnx(write_folder(tmp_path))

    (embedding,) = backend.encode(PIXELS)

    assert (backend.name, backend.image_size, backend.normalises) == ("tiny_pair", 64, False)
    expected = PIXELS.reshape(1, 3, 4, 16, 4, 16).mean(axis=(3, 5))
    np.testing.assert_allclose(embedding, expected, atol=1e-5)


def test_one_point_is_answered_by_the_numbers_of_the_formula(tmp_path):
    backend = open_onnx(write_folder(tmp_path))
    features = (np.zeros((1, 3, 4, 4), np.float32),)

    logits, scores = backend.decode(
        features, np.float32([[[40, 8]]]), np.array([[1]]), mask_logits=None, has_mask=None
    )

    # w = 1 + 2; cell (row 1, column 3) has its centre at x 14, y 6.
    assert logits[0, 2, 1, 3] == 3 * 40 - 3 * 14 + 7 * (3 * 8 - 3 * 6) + 2 / 4
    assert scores[0].tolist() == pytest.approx([3, 3.1, 3.2, 3.3])


@pytest.mark.parametrize(
    "slots",
    [
        pytest.param(PromptSlots(None, None), id="any number"),
        pytest.param(PromptSlots(2, None), id="2 prompts"),
        pytest.param(PromptSlots(5, None), id="exactly the prompts given"),
        pytest.param(PromptSlots(8, None), id="more prompts than given"),
        pytest.param(PromptSlots(None, 4), id="4 points"),
        pytest.param(PromptSlots(3, 5), id="3 prompts of 5 points"),
    ],
)
@pytest.mark.parametrize("with_masks", [False, True])
def test_answers_do_not_depend_on_the_sizes_a_decoder_was_exported_for(tmp_path, slots, with_masks):
    backend = open_onnx(write_folder(tmp_path, slots=slots))
    masks = (MASKS, HAS_MASK) if with_masks else (None, None)
    features = backend.encode(PIXELS)

    answers = backend.decode(features, POINTS_XY, LABELS, *masks)

    assert_same_answers(answers, expected_answers(features[0], POINTS_XY, LABELS, *masks))


def test_masks_without_a_word_about_them_all_count(tmp_path):
    backend = open_onnx(write_folder(tmp_path))
    features = backend.encode(PIXELS)

    answers = backend.decode(features, POINTS_XY, LABELS, MASKS, None)

    everything = np.ones(5, bool)
    assert_same_answers(
        answers, expected_answers(features[0], POINTS_XY, LABELS, MASKS, everything)
    )


def test_no_prompts_have_no_answers(tmp_path):
    backend = open_onnx(write_folder(tmp_path, slots=PromptSlots(2, 3)))

    logits, scores = backend.decode(
        backend.encode(PIXELS), POINTS_XY[:0], LABELS[:0], mask_logits=None, has_mask=None
    )

    assert (logits.shape, scores.shape) == ((0, 4, 16, 16), (0, 4))


def test_columns_that_every_prompt_leaves_empty_need_no_slot(tmp_path):
    backend = open_onnx(write_folder(tmp_path, slots=PromptSlots(None, 2)))
    features = backend.encode(PIXELS)

    answers = backend.decode(features, POINTS_XY[:3], LABELS[:3], None, None)

    assert_same_answers(answers, expected_answers(features[0], POINTS_XY[:3], LABELS[:3]))


def test_more_points_than_slots_are_refused(tmp_path):
    backend = open_onnx(write_folder(tmp_path, slots=PromptSlots(4, 2)))

    with pytest.raises(PromptError, match=r"at most 2 points .* got 3; leave some out or export"):
        backend.decode(backend.encode(PIXELS), POINTS_XY, LABELS, None, None)


@pytest.mark.parametrize("label_dtype", ["int32", "int64", "float32"])
def test_labels_come_in_the_type_that_the_file_declares(tmp_path, label_dtype):
    backend = open_onnx(write_folder(tmp_path, label_dtype=label_dtype))
    features = backend.encode(PIXELS)

    answers = backend.decode(features, POINTS_XY, LABELS, None, None)

    assert_same_answers(answers, expected_answers(features[0], POINTS_XY, LABELS))


def test_float16_files_take_float16_and_answer_in_float32(tmp_path):
    backend = open_onnx(write_folder(tmp_path, dtype="float16"))
    masks = MASKS.copy()
    masks[0] = 1e9  # more than float16 holds; infinity times no mask would be no number
    points_xy = POINTS_XY / 8

    features = backend.encode(PIXELS)
    answers = backend.decode(features, points_xy, LABELS, masks, np.array([False] + [True] * 4))

    assert features[0].dtype == np.float16
    expected = expected_answers(features[0], points_xy, LABELS, masks * 0, HAS_MASK)
    expected[0][1:] += MASKS[1:]
    assert_same_answers(answers, expected, atol=1.0)  # half a unit in the last place of 2,000


def test_an_encoder_that_normalises_gives_the_features_of_one_that_does_not(tmp_path):
    image = RNG.integers(0, 256, (48, 30, 3), np.uint8)  # becomes 64 x 40
    floats = Segmenter(open_onnx(write_folder(tmp_path / "floats")))
    rgb = Segmenter(open_onnx(write_folder(tmp_path / "bytes", normalises=True)))

    expected = floats.encode(image).features[0]
    (embedding,) = rgb.encode(image).features

    assert rgb.backend.normalises
    # The padding is the mean rounded to whole numbers, at most 0.47 / 57.4 away from zero.
    np.testing.assert_allclose(embedding, expected, atol=0.0083)
    np.testing.assert_allclose(embedding[..., :2], expected[..., :2], atol=1e-4)
    assert abs(expected[..., :2]).max() > 0.02


def test_high_resolution_features_go_to_the_inputs_of_their_names(tmp_path):
    backend = open_onnx(write_folder(tmp_path, high_res=True))
    features = backend.encode(PIXELS)
    assert [feature.shape[-1] for feature in features] == [4, 8, 16]

    answers = backend.decode(features, POINTS_XY, LABELS, None, None)
    more = [features[0], features[1] + 2, features[2] + 5]
    changed = backend.decode(tuple(more), POINTS_XY, LABELS, None, None)

    np.testing.assert_allclose(changed[0] - answers[0], 2 + 3 * 5, atol=1e-3)


def test_features_of_another_model_are_refused(tmp_path):
    backend = open_onnx(write_folder(tmp_path / "64"))
    larger = open_onnx(write_folder(tmp_path / "128", image_size=128))
    skips = open_onnx(write_folder(tmp_path / "skips", high_res=True))
    message = r"those of tiny_pair's encoder, \(1, 3, 4, 4\), got .*; encode the image with this"

    with pytest.raises(ImageError, match=message):
        backend.decode(
            larger.encode(np.tile(PIXELS, 2).repeat(2, 2)), POINTS_XY, LABELS, None, None
        )
    with pytest.raises(ImageError, match=message):
        backend.decode(skips.encode(PIXELS), POINTS_XY, LABELS, None, None)


def test_a_decoder_that_answers_one_of_many_prompts_is_refused(tmp_path):
    backend = open_onnx(write_folder(tmp_path, one_answer=True))

    with pytest.raises(
        WeightsError, match=r"must answer with \(5, 4, 16, 16\) \(5, 4\), got \(1, 4, 16, 16\) \(5"
    ):
        backend.decode(backend.encode(PIXELS), POINTS_XY, LABELS, None, None)


def test_the_provider_that_was_used_is_reported(tmp_path):
    backend = open_onnx(write_folder(tmp_path), providers="cpu", strict=True)

    assert backend.runs_on == {"encoder": ("cpu",), "decoder": ("cpu",)}


def test_a_provider_that_is_not_installed_is_a_warning_or_an_error(tmp_path):
    folder = write_folder(tmp_path)
    message = r"provider tensorrt is not part of this onnxruntime, which has .*cpu; install"

    with pytest.raises(ConfigError, match=message):
        open_onnx(folder, providers="tensorrt", strict=True)
    with pytest.warns(RuntimeWarning, match=message):
        backend = open_onnx(folder, providers="tensorrt")

    assert backend.runs_on["encoder"] == ("cpu",)


def test_a_provider_that_takes_none_of_the_operations_is_a_warning_or_an_error(tmp_path):
    replaced = "AzureExecutionProvider"  # in every onnxruntime; it runs no ordinary operation
    if replaced not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no provider that takes nothing")
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("this onnxruntime cannot say which provider runs an operation")
    folder = write_folder(tmp_path)
    message = rf"provider {replaced} was asked for, but onnxruntime runs \w+\.onnx on cpu"

    with pytest.raises(ConfigError, match=message):
        open_onnx(folder, providers=replaced, strict=True)
    with pytest.warns(RuntimeWarning, match=message):
        open_onnx(folder, providers=replaced)


def test_a_provider_that_fails_is_replaced_by_the_cpu_with_a_warning_or_an_error(
    tmp_path, monkeypatch, capsys
):
    folder = write_folder(tmp_path)
    real = onnxruntime.InferenceSession

    def session(path, options, providers, **kwargs):
        if providers[0] == "CUDAExecutionProvider":
            raise RuntimeError("no CUDA device\nat line 3")
        return real(path, options, providers=providers, **kwargs)

    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)

    with pytest.raises(ConfigError, match=r"cuda cannot run .*encoder\.onnx, .* CPU: no CUDA devi"):
        open_onnx(folder, strict=True)
    with pytest.warns(RuntimeWarning, match="cuda cannot run") as caught:
        backend = open_onnx(folder)

    assert backend.runs_on == {"encoder": ("cpu",), "decoder": ("cpu",)}
    assert len(caught) == 2  # one a file
    assert capsys.readouterr().out == ""


def test_an_unknown_provider_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown execution provider 'gpu'; choose auto, cpu, c"):
        open_onnx(write_folder(tmp_path), providers="gpu")


def test_threads_do_not_spin_and_are_as_many_as_told():
    options = session_options(3)

    assert options.intra_op_num_threads == 3
    assert session_options().intra_op_num_threads == 0  # ONNX Runtime's word for one a core
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    everything = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.graph_optimization_level == everything
    with pytest.raises(ConfigError, match=r"threads must be 1 or more, got 0; leave it out"):
        session_options(0)


def test_threads_share_a_segmenter_and_get_the_answers_of_one_thread(tmp_path):
    segmenter = Segmenter(open_onnx(write_folder(tmp_path, slots=PromptSlots(3, 4)), threads=1))
    images = [RNG.integers(0, 256, (60 + 7 * n, 90, 3), np.uint8) for n in range(6)]
    prompts = [
        [Prompt([(9 * n + 5, 50 - 3 * k)], [k % 2]) for k in range(n + 1)]
        + [Prompt(box_xyxy=[n, 2, 40, 50], mask_logits=np.full((16, 16), n))]
        for n in range(6)
    ]

    def answers(number):
        masks = segmenter.segment(segmenter.encode(images[number]), prompts[number])
        return masks.low_res_logits, masks.masks

    expected = [answers(number) for number in range(6)]
    results = {}

    def work(offset):
        for round_number in range(5):
            for step in range(6):
                number = (offset + step) % 6
                results[offset, round_number, number] = answers(number)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 4 * 5 * 6
    assert len({logits.tobytes() for logits, _ in expected}) == 6
    for (_, _, number), (logits, masks) in results.items():
        np.testing.assert_array_equal(logits, expected[number][0])
        np.testing.assert_array_equal(masks, expected[number][1])
