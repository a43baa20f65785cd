import copy

import pytest
import torch
from random_networks import randomised
from torch import nn

from edgeseg.modeling.encoders.pyramid import PyramidEncoder
from edgeseg.modeling.encoders.repvit import RepViTEncoder
from edgeseg.modeling.reparam import ConvNorm, ReparamDepthwise, fuse

ENCODERS = {
    "RepViT": lambda: RepViTEncoder(32),
    "lite0, four levels": lambda: PyramidEncoder("efficientnet_lite0", 32),
    "lite0, three levels": lambda: PyramidEncoder("efficientnet_lite0", 32, 16),
    "lite2, four levels": lambda: PyramidEncoder("efficientnet_lite2", 32),
}


def count(module, kind=nn.Module):
    return sum(isinstance(part, kind) for part in module.modules())


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_a_convolution_swallows_its_norm(stride):
    block = randomised(ConvNorm(6, 4, 3, stride, groups=2)).eval()
    x = torch.randn(2, 6, 5, 8, generator=torch.Generator().manual_seed(0))

    fused = block.fuse()

    assert type(fused) is nn.Conv2d
    torch.testing.assert_close(fused(x), block(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_three_branches_become_one_kernel():
    block = randomised(ReparamDepthwise(8)).eval()
    x = torch.randn(2, 8, 6, 4, generator=torch.Generator().manual_seed(0))
    expected = block(x)

    fused = block.fuse()

    assert type(fused) is nn.Conv2d
    torch.testing.assert_close(fused(x), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(block(x), expected)  # the block is as it was


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_a_fused_encoder_gives_the_same_features(name):
    encoder = randomised(ENCODERS[name]()).double()  # rounding grows through so many random layers
    before = copy.deepcopy(encoder.state_dict())
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()

    fused = fuse(encoder)

    assert encoder.training
    assert not fused.training
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())
    plain = encoder.eval()(x)
    answer = fused(x)
    assert plain.embedding.std() > 0.1
    for level in ("embedding", "stride8", "stride4"):
        expected = getattr(plain, level)
        tolerance = 1e-9 * float(expected.abs().max())
        torch.testing.assert_close(getattr(answer, level), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_fused_encoder_has_no_batch_norm_left(name):
    encoder = ENCODERS[name]()

    fused = fuse(encoder)

    assert count(encoder, nn.BatchNorm2d) > 30
    assert count(fused, nn.BatchNorm2d) == 0
    assert count(fused) < count(encoder)
    assert not any("running" in key for key in fused.state_dict())
