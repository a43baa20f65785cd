"""A last look at the prompt, at the resolution of the masks.

The two-way transformer sees a prompt on a grid of 16 x 16 pixel cells. Few training images teach it
slowly where the edge of a box runs inside a cell. This block draws the prompt, and the mask that is
being refined, at a quarter of the input's side, where the masks are made, as interactive
segmentation did on the image itself (Sofiiuk et al. 2021, arXiv:2102.06583). Its last convolution
starts at zero, so SAM's weights answer as before.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.prompt_encoder import PROMPT_MAP_CHANNELS, draw_prompt_map

KERNEL_SIZE = 5
LOGIT_SCALE = 8.0
"""Mask logits beyond this value are as sure as can be."""


class MaskRefinement(nn.Module):
    """Depthwise separable residual block over upscaled features and drawn prompts.

    The block's last convolution is applied to the kernels of the masks instead of to the features,
    so that nothing as wide as the features is computed a second time.

    Args:
        width: Channels C of the upscaled features.
        hidden_width: Channels R between.
    """

    def __init__(self, width: int, hidden_width: int = 16) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, hidden_width, 1)
        self.prompt = nn.Conv2d(PROMPT_MAP_CHANNELS + 1, hidden_width, 1, bias=False)
        self.mix = nn.Conv2d(
            hidden_width, hidden_width, KERNEL_SIZE, padding=KERNEL_SIZE // 2, groups=hidden_width
        )
        self.out = nn.Conv2d(hidden_width, width, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, kernels: Tensor, x: Tensor, drawn: Tensor) -> Tensor:
        """Return what the block adds to the mask logits.

        Args:
            kernels: (T, 4, C), one kernel a mask.
            x: (T, 4H * 4W, C) features, pixels in reading order.
            drawn: (T, 7, 4H, 4W), what `draw_prompts` gave.

        Returns:
            (T, 4, 4H, 4W).
        """
        map_hw = drawn.shape[2], drawn.shape[3]
        reduced = (self.reduce.weight.flatten(1) @ x.transpose(1, 2)).unflatten(2, map_hw)
        # The second convolution adds the bias of the first, which costs nothing there.
        seen = F.conv2d(drawn, self.prompt.weight, self.reduce.bias)
        hidden = F.gelu(self.mix(reduced + seen))
        added = (kernels @ self.out.weight.flatten(1)) @ hidden.flatten(2)
        return added.unflatten(2, map_hw)


def draw_prompts(prompts: PromptBatch, image_size: int, map_hw: tuple[int, int]) -> Tensor:
    """Draw prompts and mask prompts at the resolution of the masks.

    Returns:
        (T, 7, *map_hw) float32: the channels of `draw_prompt_map`, then the logits of the mask
        prompt scaled to -1...1, zero where there is none.
    """
    drawn = draw_prompt_map(prompts, image_size, map_hw)
    if prompts.mask_logits is None:
        return F.pad(drawn, (0, 0, 0, 0, 0, 1))
    mask = (prompts.mask_logits / LOGIT_SCALE).clamp(-1, 1).to(drawn.dtype)
    if prompts.has_mask is not None:
        mask = mask * prompts.has_mask[:, None, None, None]
    return torch.cat([drawn, mask], dim=1)
