"""Where prompts are, for Core ML graphs: the part that half precision would ruin.

Half precision holds whole pixels only up to 2048, and the phases of positional encodings are sines
of many turns. What turns coordinates into encodings and into profiles along the two axes is a few
thousand numbers a prompt, so it stays in single precision: `edgeseg.exporter.coreml_files` exempts
the modules of this file from half precision. Everything of the size of an image belongs elsewhere.

Shapes have four dimensions, (N, channels, height, width), and nothing is gathered by index.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.modeling.prompt_encoder import PositionEmbeddingRandom
from edgeseg.prompts import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PADDING

KINDS = (PADDING, 1, 0, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)
"""Labels in the order of `SlotKinds.kinds`: clicks on the object come first, as they are drawn."""
_CLICKS, _CORNERS = slice(1, 3), slice(3, 5)


class SlotKinds(NamedTuple):
    """What is in the slots of N prompts, as numbers 0 and 1.

    Attributes:
        kinds: (N, 5, 1, P + 1) float, one-hot in the order of `KINDS`. The last slot is SAM's
            padding point.
        absent: (N, 1, 1, P + 1) float, 1 where there is nothing.
    """

    kinds: Tensor
    absent: Tensor


class SlotReading(nn.Module):
    """Labels to what is in the slots."""

    labels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(
            "labels", torch.tensor(KINDS, dtype=torch.float32)[None, :, None, None]
        )

    def forward(self, point_labels: Tensor) -> SlotKinds:
        """Read (N, P) int labels, and decide whether the padding point counts.

        It takes part where there are clicks and no box, as in `PromptEncoder`.
        """
        labels = point_labels.float()[:, None, None]  # (N, 1, 1, P)
        kinds = torch.relu(1 - (labels - self.labels).abs())  # (N, 5, 1, P)
        has_click = kinds[:, _CLICKS].sum(dim=(1, 3), keepdim=True).clamp(max=1)
        has_corner = kinds[:, _CORNERS].sum(dim=(1, 3), keepdim=True).clamp(max=1)
        needs_padding = has_click * (1 - has_corner)  # (N, 1, 1, 1)
        padding_point = F.pad(needs_padding, (0, 0, 0, 0, 0, len(KINDS) - 1))  # (N, 5, 1, 1)
        kinds = torch.cat([kinds, padding_point], dim=3)
        return SlotKinds(kinds, 1 - kinds.sum(dim=1, keepdim=True))


class PointEncoding(nn.Module):
    """Random Fourier features of the points of prompts.

    Sine and cosine repeat with every turn, so whole turns are taken off first: what is left is
    small, and no device's sine has to be good at large arguments.

    Args:
        pe_layer: The encoding of the network.
        image_size: Side S of the model input, in pixels.
    """

    along_x: Tensor
    along_y: Tensor

    def __init__(self, pe_layer: PositionEmbeddingRandom, image_size: int) -> None:
        super().__init__()
        along_x, along_y = pe_layer.positional_encoding_gaussian_matrix.unbind(0)
        self.register_buffer("along_x", along_x.clone()[None, :, None, None])
        self.register_buffer("along_y", along_y.clone()[None, :, None, None])
        self.image_size = image_size

    def forward(self, points_xy: Tensor, kinds: Tensor) -> Tensor:
        """Encode (N, P, 2) points in model pixels: (N, D, 1, P + 1), zero where no point is."""
        signed_xy = _by_axis(points_xy) * (2 / self.image_size) - 1
        turns = signed_xy[:, :1] * self.along_x + signed_xy[:, 1:] * self.along_y
        phase = 2 * math.pi * (turns - torch.floor(turns + 0.5))  # -pi...pi
        encoding = torch.cat([phase.sin(), phase.cos()], dim=1)
        is_point = kinds[:, 1:, :, :-1].sum(dim=1, keepdim=True)
        return F.pad(encoding * is_point, (0, 1))  # the padding point is nowhere


class PromptProfiles(NamedTuple):
    """What drawings of N prompts are products of, on maps of (side, side) cells.

    Attributes:
        cover_xy: (N, 2, 1, side), share of each column and of each row inside the box.
        offset_xy: (N, 2, 1, side), distance to the centre of the box in box sizes, -1...1.
        has_box: (N, 1, 1, 1).
        near_x: (N, 1, P, side), Gaussian at each point over the columns.
        near_y: (N, 2, P, side), the same over the rows, for clicks on and clicks off the object.
    """

    cover_xy: Tensor
    offset_xy: Tensor
    has_box: Tensor
    near_x: Tensor
    near_y: Tensor


class PromptDrawing(nn.Module):
    """Draw prompts along both axes, as `draw_prompt_map` does.

    Args:
        image_size: Side S of the model input, in pixels.
        side: Rows and columns of the map, in cells.
    """

    center: Tensor

    def __init__(self, image_size: int, side: int) -> None:
        super().__init__()
        self.cell = image_size / side
        center = (torch.arange(side, dtype=torch.float32) + 0.5) * self.cell
        self.register_buffer("center", center[None, None, None])

    def forward(self, points_xy: Tensor, slots: SlotKinds) -> PromptProfiles:
        """Return the profiles of (N, P, 2) points in model pixels."""
        place = _by_axis(points_xy)  # (N, 2, 1, P)
        num, num_slots = place.shape[0], place.shape[3]
        kinds = slots.kinds[..., :-1]
        first, last = kinds[:, _CORNERS].split(1, dim=1)  # (N, 1, 1, P) each
        has_box = first.sum(dim=3, keepdim=True)
        start = (place * first).sum(dim=3, keepdim=True)  # (N, 2, 1, 1)
        end = (place * last).sum(dim=3, keepdim=True)
        half = self.cell / 2
        inside = torch.minimum(end, self.center + half) - torch.maximum(start, self.center - half)
        offset = (self.center - (start + end) * 0.5) / (end - start).clamp(min=1)

        away = (self.center - place.reshape(num, 2, num_slots, 1)) * (1 / self.cell)
        near = torch.exp(-0.5 * away * away)  # (N, 2, P, side)
        clicks = kinds[:, _CLICKS].reshape(num, 2, num_slots, 1)  # on, off
        return PromptProfiles(
            cover_xy=torch.relu(inside) * (1 / self.cell) * has_box,
            offset_xy=offset.clamp(-1, 1),
            has_box=has_box,
            near_x=near[:, :1],
            near_y=near[:, 1:] * clicks,
        )


class ImageToModelFrame(nn.Module):
    """Bring points from pixels of the image into those of the model, as `edgeseg.geometry` scales.

    Rounding is a division of whole numbers, which float32 holds exactly up to 8192 pixels a side.

    Args:
        image_size: Side S of the model input, in pixels.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size

    def forward(self, points_xy: Tensor, image_hw: Tensor) -> Tensor:
        """Scale (N, P, 2) points of an image whose (2,) height and width are given."""
        longest = image_hw.amax(dim=0, keepdim=True)
        rounded = torch.floor((2 * self.image_size * image_hw + longest) / (2 * longest))
        scale_hw = rounded.clamp(min=1) / image_hw
        return points_xy * torch.cat([scale_hw[1:], scale_hw[:1]])


def _by_axis(points_xy: Tensor) -> Tensor:
    """Rearrange (N, P, 2) to (N, 2, 1, P)."""
    return points_xy.transpose(1, 2)[:, :, None]
