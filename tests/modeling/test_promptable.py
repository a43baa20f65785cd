import pytest
import torch
from random_networks import randomised
from torch import nn

from edgeseg.errors import ImageError
from edgeseg.modeling import ImageFeatures, PromptableNet, PromptBatch, build_model
from edgeseg.modeling.mask_decoder import MaskDecoder
from edgeseg.modeling.prompt_encoder import PromptEncoder
from edgeseg.modeling.promptable import PyramidFeatures, freeze


class ThreeLevels(nn.Module):
    """Averages the image at strides 16, 8 and 4."""

    def forward(self, images):
        stride16, stride8, stride4 = (nn.functional.avg_pool2d(images, s) for s in (16, 8, 4))
        return PyramidFeatures(stride16.repeat(1, 6, 1, 1)[:, :16], stride8, stride4)


def net(high_res):
    decoder = MaskDecoder(16, 32, high_res_channels=(3, 3) if high_res else None)
    return PromptableNet(ThreeLevels(), PromptEncoder(16), decoder, 64, "levels")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 128), r"must be \(B, 3, S, S\), got \(1, 3, 64, 128\); make them with"),
        ((1, 1, 64, 64), r"must be \(B, 3, S, S\), got \(1, 1, 64, 64\)"),
        ((3, 64, 64), r"must be \(B, 3, S, S\), got \(3, 64, 64\)"),
        ((1, 3, 96, 96), "multiple of 64, got 96; use 128"),
    ],
)
def test_images_of_the_wrong_shape_are_refused(shape, message):
    with pytest.raises(ImageError, match=message):
        net(high_res=True).encode(torch.zeros(shape))


def test_skips_are_projected_once_an_image_and_only_if_there_are_any():
    images = torch.randn(2, 3, 64, 64)

    plain, skipping = net(high_res=False).encode(images), randomised(net(True)).encode(images)

    assert plain.high_res is None
    assert plain.embedding.shape == (2, 16, 4, 4)
    assert [tuple(part.shape) for part in skipping.high_res] == [(2, 4, 8, 8), (2, 2, 16, 16)]
    assert skipping.high_res[0].abs().max() > 0


def test_forward_encodes_and_decodes():
    network = randomised(net(high_res=True)).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prompts = PromptBatch(torch.full((3, 1, 2), 20.0), torch.ones(3, 1, dtype=torch.int64), (1, 2))

    output = network(images, prompts)
    expected = network.decode(network.encode(images), prompts)

    assert output.low_res_logits.shape == (3, 4, 16, 16)
    assert output.iou_scores.shape == (3, 4)
    assert torch.equal(output.low_res_logits, expected.low_res_logits)
    assert torch.equal(output.iou_scores, expected.iou_scores)


@torch.no_grad()
def test_features_of_another_input_size_put_prompts_into_their_own_frame():
    network = randomised(net(high_res=False)).eval()
    trained_larger = randomised(net(high_res=False)).eval()
    trained_larger.image_size = 128
    embedding = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    prompts = PromptBatch(torch.tensor([[[100.0, 40.0]]]), torch.tensor([[1]]), (1,))

    output = network.decode(ImageFeatures(embedding), prompts)  # 8 cells are 128 pixels

    expected = trained_larger.decode(ImageFeatures(embedding), prompts)
    assert torch.equal(output.low_res_logits, expected.low_res_logits)
    tokens = network.prompt_encoder(prompts, 128, (8, 8)).sparse[0, 0]
    position = network.prompt_encoder.pe_layer(torch.tensor([100 / 128, 40 / 128]))
    kind = network.prompt_encoder.point_embeddings[1].weight[0]
    torch.testing.assert_close(tokens, position + kind)


def test_detached_features_have_the_same_values_without_history():
    network = randomised(net(high_res=True))
    features = ImageFeatures(
        torch.ones(1, 16, 4, 4, requires_grad=True) * 2,
        network.encode(torch.randn(1, 3, 64, 64)).high_res,
    )

    detached = features.detach()

    for ours, theirs in zip(
        (features.embedding, *features.high_res),
        (detached.embedding, *detached.high_res),
        strict=True,
    ):
        assert ours.requires_grad
        assert not theirs.requires_grad
        assert torch.equal(ours, theirs)
    assert ImageFeatures(features.embedding).detach().high_res is None


def test_parameters_are_counted_without_norm_statistics():
    network = net(high_res=False)
    before = network.num_parameters()
    network.image_encoder = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))

    assert network.num_parameters() - before == 3 * 2 + 2 + 2 + 2  # weight, bias; norm's two


def test_a_frozen_network_takes_no_gradients_and_normalises_as_trained():
    network = freeze(build_model("edgeseg_tiny").train())

    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
