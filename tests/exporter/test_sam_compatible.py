"""`segment_anything` is the oracle: its ONNX module and its predictor, with the same weights."""

import functools

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from random_weights import randomised_tiny
from segment_anything import SamPredictor
from segment_anything import modeling as sam
from segment_anything.utils.onnx import SamOnnxModel
from torch import nn

from edgeseg.errors import ExportError
from edgeseg.exporter import sam_compatible
from edgeseg.exporter.onnx_files import OnnxExport, write_onnx
from edgeseg.exporter.onnx_sessions import runner_of
from edgeseg.exporter.sam_compatible import (
    SamDecoderGraph,
    SamEncoderGraph,
    check_sam_compatible,
    convert_sam_decoder,
    convert_sam_encoder,
    export_sam_compatible,
)
from edgeseg.modeling import build_model
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD

SIDE, GRID, WIDTH = 128, 8, 32
IMAGE_HW = (75, 100)  # scaled to 96 x 128


@functools.cache
def networks():
    """SAM as its authors' package builds it, small, and our network with the same weights."""
    ours = randomised_tiny(SIDE, name="vit_tiny")
    encoder = sam.ImageEncoderViT(
        img_size=SIDE,
        embed_dim=64,
        depth=2,
        num_heads=2,
        out_chans=WIDTH,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1,),
    )
    prompt_encoder = sam.PromptEncoder(
        embed_dim=WIDTH,
        image_embedding_size=(GRID, GRID),
        input_image_size=(SIDE, SIDE),
        mask_in_chans=16,
    )
    mask_decoder = sam.MaskDecoder(
        transformer_dim=WIDTH,
        transformer=sam.TwoWayTransformer(depth=2, embedding_dim=WIDTH, mlp_dim=2048, num_heads=8),
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    means = PIXEL_MEAN.tolist(), PIXEL_STD.tolist()
    theirs = sam.Sam(encoder, prompt_encoder, mask_decoder, *means).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs, ours


def random_image(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def decoder_inputs(points, labels, has_mask, image_hw=IMAGE_HW):
    generator = np.random.default_rng(len(labels))
    arrays = {
        "image_embeddings": generator.standard_normal((1, WIDTH, GRID, GRID)),
        "point_coords": np.array([points]),
        "point_labels": np.array([labels]),
        "mask_input": 3 * generator.standard_normal((1, 1, 4 * GRID, 4 * GRID)),
        "has_mask_input": np.array([has_mask]),
        "orig_im_size": np.array(image_hw),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


PROMPTS = [
    pytest.param([(90, 12), (0, 0)], [1, -1], 0, id="point"),
    pytest.param([(90, 12), (30, 70), (0, 0)], [1, 0, -1], 0, id="points of both labels"),
    pytest.param([(20, 8), (120, 60)], [2, 3], 0, id="box"),
    pytest.param([(90, 12), (20, 8), (120, 60)], [0, 2, 3], 0, id="box and point"),
    pytest.param([(90, 12), (0, 0)], [1, -1], 1, id="point and mask"),
]


def their_answer(inputs, return_single_mask):
    graph = SamOnnxModel(networks()[0], return_single_mask)
    answers = graph(*map(torch.from_numpy, inputs.values()))
    return [answer.detach().numpy() for answer in answers]


@functools.cache
def decoder_export():
    return convert_sam_decoder(networks()[1])


@functools.cache
def encoder_export():
    return convert_sam_encoder(networks()[1])


@pytest.mark.parametrize("return_single_mask", [False, True])
@pytest.mark.parametrize("image_hw", [IMAGE_HW, (100, 75), (31, 200)])
@pytest.mark.parametrize(("points", "labels", "has_mask"), PROMPTS)
@torch.inference_mode()
def test_the_graph_answers_like_that_of_sam(points, labels, has_mask, image_hw, return_single_mask):
    inputs = decoder_inputs(points, labels, has_mask, image_hw)
    expected = their_answer(inputs, return_single_mask)

    answers = SamDecoderGraph(networks()[1], return_single_mask)(
        *map(torch.from_numpy, inputs.values())
    )

    assert expected[0].shape == (1, 1 if return_single_mask else 4, *image_hw)
    assert expected[0].std() > 0.05  # or the comparison would say little
    for ours, theirs in zip(answers, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("image_hw", [IMAGE_HW, (100, 75), (31, 200), (1, 1)])
@pytest.mark.parametrize(("points", "labels", "has_mask"), PROMPTS)
def test_the_file_answers_like_the_graph_of_sam(points, labels, has_mask, image_hw):
    inputs = decoder_inputs(points, labels, has_mask, image_hw)
    masks, scores, low_res = their_answer(inputs, return_single_mask=False)

    answers = runner_of(decoder_export().model)(inputs)

    assert list(answers) == ["masks", "iou_predictions", "low_res_masks"]
    np.testing.assert_allclose(answers["masks"], masks, rtol=0, atol=1e-5)
    np.testing.assert_allclose(answers["iou_predictions"], scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(answers["low_res_masks"], low_res, rtol=0, atol=1e-5)


def test_the_graph_leaves_the_padding_point_to_the_program():
    with_padding = decoder_inputs([(90, 12), (0, 0)], [1, -1], 0)
    without = with_padding | {
        "point_coords": with_padding["point_coords"][:, :1],
        "point_labels": with_padding["point_labels"][:, :1],
    }
    run = runner_of(decoder_export().model)

    difference = run(with_padding)["low_res_masks"] - run(without)["low_res_masks"]

    assert np.abs(difference).max() > 0.01


@pytest.mark.parametrize(
    ("labels", "takes_token_0"), [([1], False), ([1, -1], False), ([1, 0, -1], True)]
)
@torch.inference_mode()
def test_token_0_is_the_single_mask_from_three_points_on(labels, takes_token_0):
    inputs = decoder_inputs([(90, 12)] * len(labels), labels, 0)
    tensors = [torch.from_numpy(array) for array in inputs.values()]
    net = networks()[1]

    _, all_scores, _ = SamDecoderGraph(net)(*tensors)
    _, score, _ = SamDecoderGraph(net, return_single_mask=True)(*tensors)

    expected = all_scores[:, 0] if takes_token_0 else all_scores[:, 1:].max(dim=1).values
    torch.testing.assert_close(score[:, 0], expected)


class PublishedContract:
    """What a program does that knows only the published tensors, as samexporter's does."""

    def __init__(self, encoder, decoder, side):
        self.side = side
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            for path in (encoder, decoder)
        )

    def segment(self, image, points_xy, labels):
        height, width = image.shape[:2]
        scale = self.side / max(height, width)
        new_h, new_w = int(height * scale + 0.5), int(width * scale + 0.5)
        resized = cv2.resize(image, (new_w, new_h)).astype(np.float32)
        name = self.encoder.get_inputs()[0].name
        (embedding,) = self.encoder.run(None, {name: resized})
        coords = np.array([*points_xy, (0, 0)], np.float64) * (new_w / width, new_h / height)
        feeds = {
            "image_embeddings": embedding,
            "point_coords": coords[None].astype(np.float32),
            "point_labels": np.array([[*labels, -1]], np.float32),
            "mask_input": np.zeros((1, 1, self.side // 4, self.side // 4), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([height, width], np.float32),
        }
        masks, scores, _ = self.decoder.run(None, feeds)
        return masks, scores


@pytest.mark.parametrize("image_hw", [(96, 128), (128, 50)])
def test_a_program_for_sam_gets_the_masks_of_sam(tmp_path, image_hw):
    paths = tmp_path / "n.encoder.onnx", tmp_path / "n.decoder.onnx"
    write_onnx(encoder_export().model, paths[0])
    write_onnx(decoder_export().model, paths[1])
    image, points = random_image(*image_hw), [(40, 10), (9, 60)]
    predictor = SamPredictor(networks()[0])
    predictor.set_image(image)
    expected, expected_scores, _ = predictor.predict(
        np.array(points, np.float32), np.array([1, 0]), return_logits=True
    )

    masks, scores = PublishedContract(*paths, SIDE).segment(image, points, [1, 0])

    assert masks.shape == (1, 4, *image_hw)
    np.testing.assert_allclose(masks[0, 1:], expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(scores[0, 1:], expected_scores, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_encoder_normalises_and_pads_like_sam():
    theirs, ours = networks()
    image = torch.from_numpy(random_image(96, 128)).float()
    expected = theirs.image_encoder(theirs.preprocess(image.permute(2, 0, 1))[None])

    torch.testing.assert_close(SamEncoderGraph(ours)(image), expected, rtol=0, atol=1e-5)
    answers = runner_of(encoder_export().model)({"input_image": image.numpy()})
    np.testing.assert_allclose(answers["image_embeddings"], expected, rtol=0, atol=1e-5)


def test_names_and_sizes_are_those_of_the_contract():
    def sizes(values):
        return {
            v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in values
        }

    encoder, decoder = encoder_export().model.graph, decoder_export().model.graph

    assert sizes(encoder.input) == {"input_image": ["image_height", "image_width", 3]}
    assert sizes(encoder.output) == {"image_embeddings": [1, WIDTH, GRID, GRID]}
    assert sizes(decoder.input) == {
        "image_embeddings": [1, WIDTH, GRID, GRID],
        "point_coords": [1, "num_points", 2],
        "point_labels": [1, "num_points"],
        "mask_input": [1, 1, 32, 32],
        "has_mask_input": [1],
        "orig_im_size": [2],
    }
    assert sizes(decoder.output) == {
        "masks": [1, 4, "image_height", "image_width"],
        "iou_predictions": [1, 4],
        "low_res_masks": [1, 4, 32, 32],
    }
    floats = {v.type.tensor_type.elem_type for v in decoder.input}
    assert floats == {onnx.TensorProto.FLOAT}


def test_both_files_are_written_with_the_names_programs_look_for(tmp_path, monkeypatch):
    export = OnnxExport(encoder_export().model, 0.0, simplified=True)
    monkeypatch.setattr(sam_compatible, "check_sam_compatible", lambda net: None)
    monkeypatch.setattr(sam_compatible, "convert_sam_encoder", lambda *arguments: export)
    monkeypatch.setattr(sam_compatible, "convert_sam_decoder", lambda *arguments: export)

    paths = export_sam_compatible(networks()[1], tmp_path, metadata={"a": "b"})

    assert [path.name for path in paths] == ["vit_tiny.encoder.onnx", "vit_tiny.decoder.onnx"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert onnx.load(paths[1]).metadata_props[0].value == "b"


def test_edgesam_fits_programs_for_sam():
    check_sam_compatible(build_model("edgesam"))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("edgeseg_tiny", 64, "edgeseg_tiny hands features at strides 8 and 4 .* such as edgesam"),
        ("vit_tiny", 128, "vit_tiny has an embedding 32 wide and programs .* 256; use another"),
        ("edgesam", 512, "edgesam has 512 pixel input and .* 1024; load it with image_size=1024"),
    ],
)
def test_networks_of_other_shapes_are_refused(tmp_path, name, size, message):
    net = build_model(name, size)

    with pytest.raises(ExportError, match=message):
        export_sam_compatible(net, tmp_path)

    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_with_a_single_mask_answers_like_the_graph_of_sam():
    run = runner_of(convert_sam_decoder(networks()[1], return_single_mask=True).model)
    for prompt in PROMPTS:
        inputs = decoder_inputs(*prompt.values)

        for ours, theirs in zip(run(inputs).values(), their_answer(inputs, True), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
