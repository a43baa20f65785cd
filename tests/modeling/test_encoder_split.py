import pytest
import torch
from random_networks import randomised
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from edgeseg.modeling.encoders.peers import ResNet18Encoder
from edgeseg.modeling.encoders.pyramid import PyramidEncoder
from edgeseg.modeling.encoders.repvit import RepViTEncoder
from edgeseg.modeling.encoders.vit import SamViT
from edgeseg.modeling.promptable import NeckedEncoder, NeckInput, PyramidFeatures
from edgeseg.modeling.registry import build_model

# Encoder and the number of channels before its neck.
ENCODERS = {
    "pyramid, four levels": (lambda: PyramidEncoder("efficientnet_lite0", 32), 32),
    "pyramid, three levels": (lambda: PyramidEncoder("efficientnet_lite0", 32, 16, True), 32),
    "RepViT": (lambda: RepViTEncoder(32), 32),
    "ViT": (lambda: SamViT(64, 24, 2, 2, (1,), 32, 2), 24),
}


def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_an_encoder_is_what_comes_before_its_neck_and_the_neck(name):
    build, channels = ENCODERS[name]
    encoder = randomised(build()).eval()
    expected = encoder(images())

    before = encoder.before_neck(images())

    assert isinstance(encoder, NeckedEncoder)
    assert before.merged.shape == (2, channels, 4, 4)
    features = before.through(encoder.neck)
    assert torch.equal(features.embedding, expected.embedding)
    for level in ("stride8", "stride4"):
        split, whole = getattr(features, level), getattr(expected, level)
        assert split is whole is None or torch.equal(split, whole)
    assert (features.stride4 is None) == (name == "ViT")


@torch.no_grad()
def test_the_split_vit_computes_what_the_package_computes():
    encoder = randomised(SamViT(64, 24, 2, 2, (1,), 32, 2)).eval()

    embedding = encoder(images()).embedding

    assert torch.equal(embedding, ImageEncoderViT.forward(encoder, images()))
    assert embedding.is_contiguous(memory_format=torch.channels_last)


def test_another_neck_leaves_the_finer_levels():
    merged, stride8, stride4 = torch.ones(1, 2, 4, 4), torch.ones(1, 3, 8, 8), torch.ones(1, 4)

    features = NeckInput(merged, stride8, stride4).through(nn.Conv2d(2, 5, 1))

    assert features.embedding.shape == (1, 5, 4, 4)
    assert features.stride8 is stride8
    assert features.stride4 is stride4


def test_an_encoder_that_is_in_one_piece_has_no_neck_to_adapt():
    assert not isinstance(ResNet18Encoder(32), NeckedEncoder)


@pytest.mark.parametrize("name", ["edgeseg_tiny", "vit_tiny"])
@torch.no_grad()
def test_features_for_the_decoder_come_from_those_of_the_encoder(name):
    net = randomised(build_model(name, 64)).eval()
    expected = net.encode(images())

    features = net.image_features(net.image_encoder(images()))

    assert torch.equal(features.embedding, expected.embedding)
    if name == "vit_tiny":
        assert features.high_res is None
        return
    for ours, theirs in zip(features.high_res, expected.high_res, strict=True):
        assert torch.equal(ours, theirs)
    levels = net.image_encoder(images())
    swapped = PyramidFeatures(levels.embedding + 1, 2 * levels.stride8, levels.stride4)
    changed = net.image_features(swapped)
    assert torch.equal(changed.embedding, expected.embedding + 1)
    assert not torch.equal(changed.high_res[0], expected.high_res[0])
    assert torch.equal(changed.high_res[1], expected.high_res[1])
