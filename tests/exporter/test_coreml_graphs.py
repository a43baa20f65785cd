import copy
import math

import pytest
import torch
import torch.nn.functional as F
from coreml_networks import FEATURES, SIDE, plain_net, randomised, tiny_net
from torch import nn

from edgeseg.exporter.coreml_decoder import apply_kernels
from edgeseg.exporter.coreml_geometry import (
    ImageToModelFrame,
    PointEncoding,
    PromptDrawing,
    SlotReading,
)
from edgeseg.exporter.coreml_graphs import (
    CoreMLDecoderGraph,
    CoreMLEncoderGraph,
    CoreMLFusedGraph,
    PixelNormalisation,
)
from edgeseg.exporter.coreml_layers import ChannelNorm, DoubleBicubic
from edgeseg.exporter.graphs import EncoderGraph, FusedGraph
from edgeseg.geometry import ModelFrame
from edgeseg.modeling import ImageFeatures, PromptBatch
from edgeseg.modeling.prompt_encoder import PositionEmbeddingRandom
from edgeseg.modeling.registry import build_model

# A point; clicks on and off around an empty slot; a box; a box with a click; nothing at all; SAM's
# own padding label given by a caller.
LABELS = [
    [1, -2, -2, -2],
    [0, -2, 1, -2],
    [2, 3, -2, -2],
    [-2, 1, 2, 3],
    [-2, -2, -2, -2],
    [1, -1, -2, -2],
]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def net():
    return tiny_net()


def features_of(net):
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return net.encode(4 * image - 2)


def prompts(labels=LABELS):
    """One prompt a row of labels, off the diagonal; every other of the mask prompts counts."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.tensor(labels)
    num, points = labels.shape
    first_xy = torch.rand(num, points, 2, generator=generator) * torch.tensor([30.0, 15.0])
    is_end = (labels == 3)[..., None]
    points_xy = torch.where(is_end, first_xy + torch.tensor([33.0, 47.0]), first_xy)
    mask_logits = 6 * torch.randn(num, 1, SIDE // 4, SIDE // 4, generator=generator)
    has_mask = torch.arange(num) % 2 == 0
    return PromptBatch(points_xy, labels, (num,), mask_logits, has_mask)


def random_pixels():
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)


def decode(graph, features, batch, with_masks=True):
    tensors = [features.embedding, *(features.high_res or ()), batch.points_xy]
    tensors.append(batch.point_labels.int())
    if with_masks:
        tensors += [batch.mask_logits, batch.has_mask.float()]
    return graph(*tensors)


def assert_same(found, expected, tolerance=1e-4):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("build", [tiny_net, plain_net])
def test_decoder_answers_as_the_network_it_is_made_of(build):
    net = build()
    features, batch = features_of(net), prompts()
    expected = net.decode(features, batch)

    found = decode(CoreMLDecoderGraph(net), features, batch)

    assert expected.low_res_logits.std() > 0.1  # random weights give it something to say
    assert_same(found, (expected.low_res_logits, expected.iou_scores))


@pytest.mark.parametrize("build", [tiny_net, plain_net])
def test_decoder_without_mask_inputs_answers_as_without_mask_prompts(build):
    net = build()
    features, batch = features_of(net), prompts().with_masks(None)
    expected = net.decode(features, batch)

    found = decode(CoreMLDecoderGraph(net, takes_masks=False), features, batch, with_masks=False)

    assert_same(found, (expected.low_res_logits, expected.iou_scores))


def test_norm_weights_of_zero_change_nothing(net):
    net = copy.deepcopy(net)
    net.mask_decoder.transformer.layers[0].norm2.weight[:3] = torch.tensor([0.0, -1e-6, 1e-3])
    features, batch = features_of(net), prompts()
    expected = net.decode(features, batch)

    found = decode(CoreMLDecoderGraph(net), features, batch)

    assert_same(found, (expected.low_res_logits, expected.iou_scores))


def test_what_stands_in_empty_slots_does_not_matter(net):
    graph, features, batch = CoreMLDecoderGraph(net), features_of(net), prompts()
    elsewhere = torch.where((batch.point_labels == -2)[..., None], 60.0, batch.points_xy)
    masks = batch.mask_logits, batch.has_mask
    moved = PromptBatch(elsewhere, batch.point_labels, batch.counts, *masks)

    assert not torch.equal(elsewhere, batch.points_xy)
    assert_same(decode(graph, features, moved), decode(graph, features, batch), 1e-6)


def test_more_empty_slots_change_nothing(net):
    graph, features, batch = CoreMLDecoderGraph(net), features_of(net), prompts()
    wider = batch.with_points(torch.zeros(len(LABELS), 3, 2), torch.full((len(LABELS), 3), -2))

    assert_same(decode(graph, features, wider), decode(graph, features, batch), 1e-5)


def test_mask_logits_that_do_not_count_are_ignored(net):
    graph, features, batch = CoreMLDecoderGraph(net), features_of(net), prompts()
    unused = ~batch.has_mask[:, None, None, None]
    filled = PromptBatch(
        batch.points_xy,
        batch.point_labels,
        batch.counts,
        torch.where(unused, 1e30, batch.mask_logits),
        batch.has_mask,
    )

    assert_same(decode(graph, features, filled), decode(graph, features, batch), 1e-6)


@pytest.mark.parametrize("name", ["edgeseg_tiny", "edgesam"])
def test_encoder_gives_the_features_of_the_network(name):
    net = randomised(build_model(name, SIDE)).eval()
    pixels = random_pixels()
    expected = EncoderGraph(net, normalises=True).double()(pixels)  # many random layers

    graph = CoreMLEncoderGraph(net)
    graph.double()
    found = graph(pixels.permute(2, 0, 1)[None].double())

    assert_same(found, expected)


def test_encoder_may_leave_normalisation_to_the_caller(net):
    image = torch.randn(1, 3, SIDE, SIDE)
    expected = net.encode(image)

    found = CoreMLEncoderGraph(net, normalises=False)(image)

    assert len(found) == len(FEATURES)
    assert_same(found, (expected.embedding, *expected.high_res))


def test_network_is_left_as_it_was(net):
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.train()

    CoreMLEncoderGraph(net)
    CoreMLDecoderGraph(net)

    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    net.eval()


def test_fused_graph_takes_points_of_the_image_itself(net):
    pixels = random_pixels()
    batch = prompts()
    points_xy = 7 * batch.points_xy
    image_hw = torch.tensor([301.0, 448.0])
    expected = FusedGraph(net, normalises=True)(pixels, image_hw, points_xy, batch.point_labels)

    planes = pixels.permute(2, 0, 1)[None].float()
    found = CoreMLFusedGraph(net)(planes, image_hw, points_xy, batch.point_labels.int())

    assert_same(found, expected)


@pytest.mark.parametrize("hw", [(480, 640), (640, 480), (5, 7), (1500, 4000), (1, 3000), (96, 96)])
def test_points_are_scaled_as_the_runtime_scales_them(hw):
    points_xy = torch.tensor([[[3.0, 1.0], [0.5, 0.25]]])
    expected = torch.from_numpy(ModelFrame(hw, 512).to_model_xy(points_xy.numpy()))

    found = ImageToModelFrame(512)(points_xy, torch.tensor(hw, dtype=torch.float32))

    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_padding_point_joins_clicks_without_a_box_only():
    slots = SlotReading()(torch.tensor(LABELS, dtype=torch.int32))

    # A click, two clicks, a box, a box and a click, nothing, a click beside a padding label.
    assert slots.kinds[:, 0, 0, -1].tolist() == [1, 1, 0, 0, 0, 1]
    assert slots.absent[:, 0, 0, -1].tolist() == [0, 0, 1, 1, 1, 0]


def test_slots_are_read_by_their_labels():
    slots = SlotReading()(torch.tensor([[1, 0, 2, 3, -2, -1]], dtype=torch.int32))

    assert slots.kinds[0, :, 0, :6].tolist() == [
        [0, 0, 0, 0, 0, 1],  # not a point
        [1, 0, 0, 0, 0, 0],  # on the object
        [0, 1, 0, 0, 0, 0],  # off the object
        [0, 0, 1, 0, 0, 0],  # top left
        [0, 0, 0, 1, 0, 0],  # bottom right
    ]
    assert slots.absent[0, 0, 0].tolist() == [0, 0, 0, 0, 1, 0, 1]  # a box needs no padding point


def test_point_encoding_is_as_exact_as_single_precision_allows():
    pe_layer = PositionEmbeddingRandom(64)
    pe_layer.positional_encoding_gaussian_matrix.mul_(3)  # up to ten turns
    x, y = 1021.25, 3.75
    along_x, along_y = pe_layer.positional_encoding_gaussian_matrix.double()
    turns = (2 * x / 1024 - 1) * along_x + (2 * y / 1024 - 1) * along_y
    expected = torch.cat([(2 * math.pi * turns).sin(), (2 * math.pi * turns).cos()]).float()
    kinds = SlotReading()(torch.tensor([[1]], dtype=torch.int32)).kinds

    found = PointEncoding(pe_layer, 1024)(torch.tensor([[[x, y]]]), kinds)

    assert found.shape == (1, 128, 1, 2)
    torch.testing.assert_close(found[0, :, 0, 0], expected, rtol=0, atol=2e-5)
    assert not found[..., 1].any()  # the padding point


def test_drawing_of_a_box_by_hand():
    points_xy = torch.tensor([[[2.0, 8.0], [10.0, 12.0]]])
    slots = SlotReading()(torch.tensor([[2, 3]], dtype=torch.int32))

    profiles = PromptDrawing(image_size=16, side=4)(points_xy, slots)  # cells of 4 pixels

    assert profiles.cover_xy[0, 0, 0].tolist() == [0.5, 1.0, 0.5, 0.0]  # x from 2 to 10
    assert profiles.cover_xy[0, 1, 0].tolist() == [0.0, 0.0, 1.0, 0.0]  # y from 8 to 12
    assert profiles.offset_xy[0, 0, 0].tolist() == [-0.5, 0.0, 0.5, 1.0]  # (2 - 6) / 8 ...
    assert profiles.offset_xy[0, 1, 0].tolist() == [-1.0, -1.0, 0.0, 1.0]
    assert profiles.has_box.item() == 1
    assert not profiles.near_y.any()


def test_box_without_width_is_drawn_as_one_pixel_wide():
    points_xy = torch.tensor([[[6.0, 8.0], [6.0, 12.0]]])
    slots = SlotReading()(torch.tensor([[2, 3]], dtype=torch.int32))

    profiles = PromptDrawing(image_size=16, side=8)(points_xy, slots)  # centres at 1, 3, 5, 7, ...

    assert not profiles.cover_xy[0, 0].any()
    assert profiles.offset_xy[0, 0, 0].tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]  # over 1 pixel


def test_very_sure_mask_prompts_survive_half_precision(net):
    dense = CoreMLDecoderGraph(net).dense
    sure = torch.full((1, 1, 16, 16), 2e4)
    sure[..., 8:] = -2e4
    drawn, has_mask = torch.zeros(1, 6, 4, 4), torch.ones(1, 1, 1, 1)
    expected = dense(drawn, (sure, has_mask))

    found = dense.half()(drawn.half(), (sure.half(), has_mask.half()))

    assert expected.std() > 0.1
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)


def test_norm_survives_half_precision_where_squares_overflow():
    norm = nn.LayerNorm(8)
    x = torch.linspace(-3500, 3500, 16).reshape(1, 8, 1, 2)
    expected = norm(x.movedim(1, -1)).movedim(-1, 1)

    found = ChannelNorm(norm).half()(x.half())

    torch.testing.assert_close(found.float(), expected, rtol=5e-3, atol=5e-3)


def test_enlargement_by_convolution_is_bicubic_up_to_the_border():
    x = torch.randn(1, 3, 4, 7)
    expected = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)

    torch.testing.assert_close(DoubleBicubic(3)(x), expected, rtol=1e-5, atol=1e-5)


def test_pixels_are_normalised_by_mean_and_deviation_of_their_channel():
    pixels = torch.tensor([0.0, 124.0, 255.0]).repeat(1, 3, 1, 1)

    found = PixelNormalisation()(pixels)[0, :, 0]

    expected = [
        [-123.675 / 58.395, 0.325 / 58.395, 131.325 / 58.395],
        [-116.28 / 57.12, 7.72 / 57.12, 138.72 / 57.12],
        [-103.53 / 57.375, 20.47 / 57.375, 151.47 / 57.375],
    ]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


def test_half_precision_normalises_pixels_as_well_as_it_can():
    pixels = torch.arange(256.0).repeat(1, 3, 1, 1)
    exact = PixelNormalisation()(pixels)

    found = PixelNormalisation().half()(pixels.half()).float()

    # Half precision has steps of 1/512 between 2 and 4; half a step, and two roundings on the way.
    assert (found - exact).abs().max() < 3 / 1024


def test_masks_of_a_large_input_are_made_in_several_products():
    kernels, features = torch.randn(2, 8, 1, 4), torch.randn(2, 8, 208, 208)  # 2.6 times 16384

    found = apply_kernels(kernels, features)

    expected = torch.einsum("ncom,nchw->nmhw", kernels, features)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_decoder_takes_features_without_high_resolution():
    net = plain_net()
    features = ImageFeatures(torch.randn(1, 32, 4, 4))

    logits, scores = decode(CoreMLDecoderGraph(net), features, prompts())

    assert logits.shape == (len(LABELS), 4, 16, 16)
    assert scores.shape == (len(LABELS), 4)
