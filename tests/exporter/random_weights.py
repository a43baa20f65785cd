"""A tiny network with random numbers everywhere, so that no term can hide."""

import torch

from edgeseg.modeling.registry import build_model


def randomised_tiny(image_size=64, seed=0, name="edgeseg_tiny", proposes=False):
    """Build a tiny network; zero-initialised parts and norms are drawn at random, too."""
    net = build_model(name, image_size)
    if proposes:
        net.add_proposal_head()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if key.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(noise / max(1, parameter[0].numel()) ** 0.5)
        for key, buffer in net.named_buffers():
            noise = torch.randn(buffer.shape, generator=generator)
            if key.endswith("running_var"):
                buffer.copy_(1 + 0.2 * noise.abs())
            elif key.endswith("running_mean"):
                buffer.copy_(0.2 * noise)
    return net.eval()
