import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapted_networks import SIDE, padded_images, randomised, tiny_net
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeseg.adapt.convolutional_adapter import (
    ConvolutionalAdapter,
    DilatedBlock,
    build_cad,
    build_cad_lite,
)
from edgeseg.errors import ImageError
from edgeseg.modeling.promptable import freeze
from edgeseg.modeling.reparam import fuse
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD, preprocess


def normalised(image):
    """A batch of one image without padding, from (S, S, 3) bytes."""
    return torch.from_numpy(preprocess(np.asarray(image, np.uint8), len(image)))


def embeddings(batch=1, width=32, grid=4):
    return torch.randn(batch, width, grid, grid, generator=torch.Generator().manual_seed(0))


def published(adapter, images):
    """The correction, by the description of the paper."""
    x = adapter.widen(adapter.channels(images))
    total = 0
    for block in adapter.blocks:
        norm = block.norm
        spatial = F.conv2d(x, block.conv.weight, block.conv.bias, padding="same", dilation=2)
        scale = norm.weight / (norm.running_var + 1e-5).sqrt()
        spatial = (spatial - norm.running_mean[:, None, None]) * scale[:, None, None]
        spatial = nn.LeakyReLU(0.1)(spatial + norm.bias[:, None, None])
        x = F.interpolate(x + spatial, scale_factor=0.5, mode="area")
        total = total + F.adaptive_avg_pool2d(x, images.shape[-1] // 16)
    return adapter.project(total).tanh()


def test_channels_are_bytes_over_their_maximum():
    image = np.zeros((64, 64, 3))
    image[:, :, 0] = 50
    image[:, 32:, 0] = 200
    image[:, :, 1] = 7  # blue stays black

    red, green, blue = ConvolutionalAdapter(64, 8, 8, pixel_side=1).channels(normalised(image))[
        0, :3
    ]

    torch.testing.assert_close(red[:, [0, 31, 32, 63]], torch.tensor([[0.25, 0.25, 1, 1]] * 64))
    torch.testing.assert_close(green, torch.ones(64, 64), rtol=0, atol=1e-5)
    torch.testing.assert_close(blue, torch.zeros(64, 64), rtol=0, atol=1e-4)


def test_flat_channels_have_no_detail_to_stretch():
    image = np.full((64, 64, 3), (200, 0, 31))

    detail = ConvolutionalAdapter(64, 8, 8).channels(normalised(image))[0, 3:]

    assert detail.max() < 1e-3


def test_detail_is_divided_by_its_own_maximum():
    image = np.full((64, 64, 3), 100)
    image[::2, ::2] = image[1::2, 1::2] = 120  # a checkerboard of 110 +- 10
    image[:, :32] = 110

    seen = ConvolutionalAdapter(64, 8, 8, pixel_side=1).channels(normalised(image))[0]

    assert seen[:3].amax((1, 2)).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert seen[3:].amax((1, 2)).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert seen[3:, :, 10:20].max() < 0.2 < 0.7 < seen[3:, :, 40:50].min()


def test_half_the_resolution_is_the_mean_of_bytes():
    image = np.full((64, 64, 3), 200)
    image[:, 0:32:2] = 100  # every second column of the left half

    seen = ConvolutionalAdapter(64, 8, 8, pixel_side=2).channels(normalised(image))

    assert seen.shape == (1, 6, 32, 32)
    torch.testing.assert_close(seen[0, 0, 5, [0, 15, 16, 31]], torch.tensor([0.75, 0.75, 1, 1]))


def test_every_image_of_a_batch_has_maxima_of_its_own():
    adapter = ConvolutionalAdapter(64, 8, 8)
    dark, bright = np.full((2, 64, 64, 3), [[[[20]]], [[[250]]]])
    dark[:, 32:] = 10

    together = adapter.channels(torch.cat([normalised(dark), normalised(bright)]))

    torch.testing.assert_close(together[:1], adapter.channels(normalised(dark)))
    torch.testing.assert_close(together[1:], adapter.channels(normalised(bright)))


def test_padding_is_not_seen():
    adapter = randomised(build_cad_lite(SIDE, 32, 12)).eval()
    zero = padded_images((40, 64))
    filled = zero.clone()
    filled[:, :, 40:] = filled[:, :, 39:40]

    with torch.no_grad():
        assert torch.equal(adapter.channels(zero), adapter.channels(filled))


def test_a_block_adds_a_leaking_dilated_convolution_and_halves():
    block = DilatedBlock(1).eval()
    nn.init.zeros_(block.conv.weight)
    block.conv.weight.data[0, 0, 0, 0] = 1.0  # what is two pixels up and left
    x = torch.zeros(1, 1, 4, 6)
    x[0, 0, 0, 0] = -8.0

    y = block(x)

    # The mean of 2 x 2 pixels of -8 is -2; two pixels on it is a tenth of that.
    expected = [[-2.0, 0.0, 0.0], [0.0, -0.2, 0.0]]
    torch.testing.assert_close(y[0, 0], torch.tensor(expected), rtol=1e-4, atol=0)


def test_convolutions_of_blocks_start_with_the_published_spread():
    torch.manual_seed(0)
    weight = DilatedBlock(64).conv.weight

    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("pixel_side", [1, 2])
@pytest.mark.parametrize("width", [8, 12])
@torch.no_grad()
def test_the_correction_is_the_published_one(pixel_side, width):
    adapter = randomised(ConvolutionalAdapter(128, 8, width, pixel_side)).eval()
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))

    correction = adapter.correction(images)

    assert correction.shape == (2, 8, 8, 8)
    assert correction.std() > 0.05
    torch.testing.assert_close(correction, published(adapter, images), rtol=0, atol=1e-5)


@torch.no_grad()
def test_an_embedding_gets_the_scaled_correction():
    adapter = randomised(build_cad_lite(SIDE, 32, 12)).eval()
    images, embedding = padded_images((64, 48)), embeddings()

    adapted = adapter(images, embedding)

    per_channel = adapter.scale.view(32, 1, 1)
    torch.testing.assert_close(adapted, embedding + per_channel * adapter.correction(images))
    assert per_channel.unique().numel() == 32


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_an_untrained_lite_adapter_changes_no_bit(training):
    adapter = build_cad_lite(SIDE, 32, 12).train(training)
    images = torch.cat([padded_images((64, 40), (24, 64)), torch.zeros(1, 3, SIDE, SIDE)])
    embedding = embeddings(3)
    embedding[0, 0] = 0.0

    assert torch.equal(adapter(images, embedding), embedding)


@torch.no_grad()
def test_the_published_adapter_corrects_by_a_tenth_at_most_from_the_start():
    torch.manual_seed(0)
    adapter, embedding = build_cad(SIDE, 32), embeddings()

    change = (adapter(padded_images((64, 48)), embedding) - embedding).abs()

    assert 0.01 < change.mean() < change.max() <= 0.1 + 1e-6
    assert "scale" not in adapter.state_dict()


def test_gradients_reach_the_scale_first_and_then_everything():
    torch.manual_seed(0)
    adapter, images = build_cad_lite(SIDE, 32, 12), padded_images((64, 40), (24, 64))
    net = freeze(tiny_net())
    embedding = net.encode(images).embedding
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)

    def grads():
        optimizer.zero_grad()
        (adapter(images, embedding) * embeddings(2)).sum().backward()
        optimizer.step()
        moved = {name for name, each in adapter.named_parameters() if each.grad.abs().max() > 1e-9}
        return moved - {f"blocks.{index}.conv.bias" for index in range(3)}  # a norm follows

    assert grads() == {"scale"}
    learning = {name for name, _ in adapter.named_parameters() if not name.endswith("conv.bias")}
    assert grads() == learning
    assert all(parameter.grad is None for parameter in net.parameters())


@torch.no_grad()
def test_fusing_folds_all_norms_and_keeps_the_correction():
    adapter = randomised(build_cad_lite(SIDE, 32, 12)).eval()
    images = padded_images((64, 40))

    fused = fuse(adapter)

    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    torch.testing.assert_close(
        fused.correction(images), adapter.correction(images), rtol=0, atol=1e-5
    )


def test_state_dicts_hold_weights_only():
    names = {name.split(".")[0] for name in build_cad_lite(SIDE, 32, 12).state_dict()}

    assert names == {"widen", "blocks", "project", "scale"}


def test_number_of_parameters():
    def count(adapter):
        return sum(parameter.numel() for parameter in adapter.parameters())

    # 6 to c with bias; three times 3x3 with bias, and a norm; c to D with bias; a scale a channel.
    assert count(build_cad_lite(512, 256, 32)) == 7 * 32 + 3 * (289 + 2) * 32 + 33 * 256 + 256
    assert count(build_cad_lite(512, 256, 64)) == 7 * 64 + 3 * (577 + 2) * 64 + 65 * 256 + 256
    assert count(build_cad(512)) == 7 * 256 + 3 * (9 * 256 + 1 + 2) * 256 == 1_773_568


@pytest.mark.parametrize(
    ("build", "giga", "width", "side"),
    [
        (lambda: build_cad(1024), 203.3, 256, 512),  # as it sees the published 1024
        (lambda: build_cad(512), 203.3, 256, 512),
        (lambda: build_cad_lite(512), 0.81, 32, 256),
        (lambda: build_cad_lite(512, width=64), 3.21, 64, 256),
    ],
)
@torch.no_grad()
def test_work_of_the_convolutions(build, giga, width, side):
    adapter = build().to("meta")
    grid = adapter.image_size // 16
    images = torch.zeros(1, 3, adapter.image_size, adapter.image_size, device="meta")
    embedding = torch.zeros(1, 256, grid, grid, device="meta")

    with FlopCounterMode(display=False) as counter:
        adapter(images, embedding)

    pixels = side**2
    expected = 6 * width * pixels + 9 * width**2 * (pixels + pixels // 4 + pixels // 16)
    expected += width * 256 * grid**2 if width != 256 else 0
    macs = counter.get_flop_counts()["Global"][torch.ops.aten.convolution] / 2
    assert macs == expected
    assert macs / 1e9 == pytest.approx(giga, rel=0.01)


def test_images_of_another_size_are_refused():
    adapter = build_cad_lite(SIDE, 32, 12)

    with pytest.raises(ImageError, match=r"\(B, 3, 64, 64\).*got \(1, 3, 128, 128\); build one"):
        adapter(torch.zeros(1, 3, 128, 128), embeddings())
    with pytest.raises(ImageError, match="multiple of 64, got 100; use 128"):
        build_cad_lite(100)


def test_constants_are_those_of_the_preprocessing():
    adapter = build_cad_lite(SIDE, 32, 12)

    assert adapter.mean.flatten().tolist() == PIXEL_MEAN.tolist()
    assert adapter.std.flatten().tolist() == PIXEL_STD.tolist()
