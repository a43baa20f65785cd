"""Small networks and prompts with random numbers everywhere, so that no term can hide."""

import torch
from torch import nn

from edgeseg.modeling import ImageFeatures, PromptableNet, PromptBatch
from edgeseg.modeling.mask_decoder import MaskDecoder
from edgeseg.modeling.prompt_encoder import PromptEncoder

GRID = 4
IMAGE_SIZE = 16 * GRID
WIDTH = 32


def randomised(module, seed=0):
    """Draw every weight, bias and statistic anew, zero-initialised ones too; return the module."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif parameter.ndim == 1:  # the weight of a norm
                parameter.copy_(1 + 0.2 * noise)
            else:
                fan_in = max(1, parameter[0].numel())
                parameter.copy_(noise / fan_in**0.5)
        for name, buffer in module.named_buffers():
            noise = torch.randn(buffer.shape, generator=generator)
            if name.endswith("running_var"):
                buffer.copy_(1 + 0.2 * noise.abs())
            elif name.endswith("running_mean"):
                buffer.copy_(0.2 * noise)
            elif name.endswith("gaussian_matrix"):
                buffer.copy_(noise)
    return module


def decoding_net(extras):
    """A network without image encoder; with prompt map, skips and refinement if `extras`."""
    prompt_encoder = PromptEncoder(WIDTH, prompt_map_width=8 if extras else None)
    mask_decoder = MaskDecoder(
        WIDTH, 64, high_res_channels=(5, 3) if extras else None, refine=extras
    )
    net = PromptableNet(nn.Identity(), prompt_encoder, mask_decoder, IMAGE_SIZE, "decoding")
    return randomised(net).eval()


def random_features(batch, extras):
    """Features as `decoding_net` takes them."""
    generator = torch.Generator().manual_seed(batch)
    embedding = torch.randn(batch, WIDTH, GRID, GRID, generator=generator)
    if not extras:
        return ImageFeatures(embedding)
    stride8 = torch.randn(batch, WIDTH // 4, 2 * GRID, 2 * GRID, generator=generator)
    stride4 = torch.randn(batch, WIDTH // 8, 4 * GRID, 4 * GRID, generator=generator)
    return ImageFeatures(embedding, (stride8, stride4))


# One point; two points; a box; a box and a point; nothing (a mask prompt alone), five slots each.
KINDS = (
    [1, -2, -2, -2, -2],
    [0, -2, 1, -2, -2],
    [2, 3, -2, -2, -2],
    [-2, 1, 2, 3, 0],
    [-2, -2, -2, -2, -2],
)


def mixed_prompts(counts, masks=True):
    """Prompts of all kinds for images with the given numbers of prompts; odd rows have masks."""
    total = sum(counts)
    generator = torch.Generator().manual_seed(total)
    first_xy = torch.rand(total, 5, 2, generator=generator) * IMAGE_SIZE / 2
    points_xy = first_xy + torch.rand(total, 5, 2, generator=generator) * IMAGE_SIZE / 2
    labels = torch.tensor([KINDS[row % len(KINDS)] for row in range(total)]).reshape(total, 5)
    for row in range(total):  # a box needs its corners in order
        if 3 in KINDS[row % len(KINDS)]:
            corner = KINDS[row % len(KINDS)].index(2)
            points_xy[row, corner] = first_xy[row, corner] / 2
    mask_logits = 4 * torch.randn(total, 1, 4 * GRID, 4 * GRID, generator=generator)
    has_mask = torch.arange(total) % 2 == 1
    if total == 5:
        has_mask[4] = True
    if not masks:
        return PromptBatch(points_xy, labels, tuple(counts))
    return PromptBatch(points_xy, labels, tuple(counts), mask_logits, has_mask)


def one_by_one(net, features, prompts):
    """Decode each prompt in a call of its own, without empty slots; yields the outputs."""
    images = [image for image, count in enumerate(prompts.counts) for _ in range(count)]
    for row, image in enumerate(images):
        kept = prompts.point_labels[row] != -2
        has_mask = prompts.has_mask is not None and bool(prompts.has_mask[row])
        alone = PromptBatch(
            prompts.points_xy[row : row + 1, kept],
            prompts.point_labels[row : row + 1, kept],
            (1,),
            prompts.mask_logits[row : row + 1] if has_mask else None,
        )
        part = slice(image, image + 1)
        high_res = features.high_res
        if high_res is not None:
            high_res = (high_res[0][part], high_res[1][part])
        yield net.decode(ImageFeatures(features.embedding[part], high_res), alone)
