import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_weights import randomised_tiny
from tiny_exports import SIDE, answers_of, decoder_graph, features_of, prompt_inputs, tiny_net

from edgeseg.exporter.graphs import (
    DecoderGraph,
    EncoderGraph,
    FusedGraph,
    model_scale_xy,
    shape_of,
)
from edgeseg.exporter.matrix_upsampling import doubling_matrix, replace_bicubic
from edgeseg.geometry import ModelFrame
from edgeseg.modeling import ImageFeatures, PromptBatch, build_model
from edgeseg.modeling.encoders.repvit import UpsampleLevel
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.preprocess import preprocess
from edgeseg.prompts import Prompt
from edgeseg.runtime.segmenter import Segmenter
from edgeseg.signature import ModelShape

NETS = pytest.mark.parametrize("name", ["edgeseg_tiny", "vit_tiny"])


def random_image(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@NETS
def test_shapes_are_read_off_the_network(name):
    assert shape_of(tiny_net(name)) == ModelShape(64, 32, has_high_res=name == "edgeseg_tiny")


@NETS
@torch.inference_mode()
def test_the_encoder_gives_the_features_of_the_network(name):
    net, images = tiny_net(name), torch.from_numpy(preprocess(random_image(64, 48), 64))
    expected = net.encode(images)

    features = EncoderGraph(net)(images)

    assert len(features) == (3 if name == "edgeseg_tiny" else 1)
    for ours, theirs in zip(
        features, (expected.embedding, *(expected.high_res or ())), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_an_encoder_that_normalises_takes_the_bytes_of_the_image():
    net, image = tiny_net(), random_image(64, 64)  # no padding, whose colour is rounded

    ours = EncoderGraph(net, normalises=True)(torch.from_numpy(image))
    theirs = EncoderGraph(net)(torch.from_numpy(preprocess(image, 64)))

    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@NETS
@pytest.mark.parametrize("labels", ["int64", "int32"])
@torch.inference_mode()
def test_the_decoder_answers_like_the_network(name, labels):
    features, inputs = features_of(name), prompt_inputs(6, 4, labels=labels)
    embedding, *high_res = map(torch.from_numpy, features.values())
    points, point_labels, masks, has_mask = map(torch.from_numpy, inputs.values())
    prompts = PromptBatch(points, point_labels.long(), (6,), masks, has_mask.bool())
    expected = tiny_net(name).decode(
        ImageFeatures(embedding, tuple(high_res) if high_res else None), prompts
    )

    answers = answers_of(decoder_graph(name), features | inputs)

    np.testing.assert_allclose(answers["low_res_logits"], expected.low_res_logits, atol=1e-4)
    np.testing.assert_allclose(answers["iou_scores"], expected.iou_scores, atol=1e-4)


@torch.inference_mode()
def test_a_graph_keeps_the_weights_it_was_made_of():
    net = randomised_tiny(SIDE, name="vit_tiny")
    inputs = features_of("vit_tiny") | prompt_inputs(2, 2)
    graph, image = DecoderGraph(net), torch.randn(1, 3, SIDE, SIDE)
    encoder = EncoderGraph(net)
    before, embedding = answers_of(graph, inputs), encoder(image)[0]

    for parameter in net.parameters():
        parameter.add_(1.0)

    np.testing.assert_array_equal(answers_of(graph, inputs)["iou_scores"], before["iou_scores"])
    assert torch.equal(encoder(image)[0], embedding)


def test_making_a_graph_leaves_the_network_as_it_was():
    net = build_model("edgeseg_tiny").train()

    FusedGraph(net)

    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())


@NETS
@torch.inference_mode()
def test_the_image_side_of_the_first_attention_is_computed_once_for_all_prompts(name):
    graph, seen = DecoderGraph(tiny_net(name)), []
    attention = graph.net.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    for projection in (attention.k_proj, attention.v_proj):
        projection.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))

    answers_of(graph, features_of(name) | prompt_inputs(5, 2))

    assert seen == [(1, 16, 32)] * 2  # one image, 4 x 4 cells, 32 wide


@pytest.mark.parametrize(
    ("image_hw", "size", "expected_xy"),
    [
        ((480, 640), 512, (0.8, 0.8)),
        ((3, 1000), 64, (64 / 1000, 1 / 3)),  # 0.19 rows become one
        ((5, 7), 64, (64 / 7, 46 / 5)),  # 45.7 rows become 46
        ((1000, 3), 64, (1 / 3, 64 / 1000)),
        ((101, 404), 512, (512 / 404, 128 / 101)),
        ((1, 1), 1024, (1024, 1024)),
    ],
)
def test_points_are_scaled_as_images_are(image_hw, size, expected_xy):
    scale_xy = model_scale_xy(torch.tensor(image_hw, dtype=torch.float32), size)

    np.testing.assert_allclose(scale_xy, expected_xy, rtol=1e-6)


@pytest.mark.parametrize("size", [64, 512, 1024])
def test_points_are_scaled_as_the_runtime_scales_them(size):
    random = np.random.default_rng(size)
    for _ in range(200):
        height, width = (int(side) for side in random.integers(1, 8193, 2))
        scale_xy = model_scale_xy(torch.tensor([float(height), float(width)]), size)

        expected = ModelFrame((height, width), size).scale_xy
        np.testing.assert_allclose(scale_xy, expected, rtol=1e-6, err_msg=f"{height} {width}")


@NETS
@pytest.mark.parametrize("image_hw", [(53, 90), (90, 53)])
@torch.inference_mode()
def test_the_fused_graph_takes_points_of_the_image(name, image_hw):
    net, image = tiny_net(name), random_image(*image_hw)
    segmenter = Segmenter(TorchBackend(net))
    prompts = [Prompt([(50, 10)]), Prompt(box_xyxy=[8, 30, 40, 50])]
    expected = segmenter.predict_logits(segmenter.encode(image), prompts)
    points_xy = torch.tensor([[[50.0, 10], [0, 0]], [[8, 30], [40, 50]]])

    logits, scores = FusedGraph(net)(
        torch.from_numpy(preprocess(image, SIDE)),
        torch.tensor(image_hw, dtype=torch.float32),
        points_xy,
        torch.tensor([[1, -2], [2, 3]]),
    )

    np.testing.assert_allclose(logits, expected[0], atol=1e-4)
    np.testing.assert_allclose(scores, expected[1], atol=1e-4)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_a_product_with_matrices_upsamples_like_pytorch(mode):
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    matrix = doubling_matrix(5, mode)

    expected = F.interpolate(x, scale_factor=2, mode=mode, align_corners=False)

    torch.testing.assert_close(matrix @ x @ matrix.T, expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_bicubic_levels_are_replaced_and_answer_the_same():
    bicubic = torch.nn.Sequential(UpsampleLevel(6, 4, "bicubic"))
    x = torch.randn(1, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = bicubic(x)

    replace_bicubic(bicubic, image_size=64)  # 2 x 2 cells at stride 32

    assert not any(isinstance(module, UpsampleLevel) for module in bicubic.modules())
    torch.testing.assert_close(bicubic(x), expected, rtol=0, atol=1e-5)


def test_bilinear_levels_stay():
    bilinear = torch.nn.Sequential(UpsampleLevel(6, 4, "bilinear"))

    replace_bicubic(bilinear, image_size=64)

    assert isinstance(bilinear[0], UpsampleLevel)


@torch.inference_mode()
def test_the_encoder_of_edgesam_has_no_bicubic_upsampling_left():
    net = build_model("edgesam", image_size=64).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    graph = EncoderGraph(net)

    assert not any(isinstance(module, UpsampleLevel) for module in graph.modules())
    expected = net.encode(images).embedding
    torch.testing.assert_close(graph(images)[0], expected, rtol=0, atol=1e-4)
