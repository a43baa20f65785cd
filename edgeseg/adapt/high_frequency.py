"""The fine detail of an image: what a square low-pass of its spectrum leaves out.

Source: the high-frequency component of CAD (Kim et al. 2024, arXiv:2409.15889), from explicit
visual prompting (Liu et al. 2023, arXiv:2303.10883). They go through a Fourier transform, which
neither ONNX Runtime's older exporters nor Core ML take; the low-pass is separable, so the same
numbers come out of constant matrices along rows and columns.
"""

import math

import torch
from torch import Tensor, nn

LOW_PASS_AREA = 0.25
"""Part of the spectrum that the low-pass keeps, and the high-frequency component lacks."""

# Padding is zero, or the whole bytes nearest to the mean (`edgeseg.signature.PADDING_RGB`), whose
# largest channel, blue, is 0.0082 after normalisation. The byte below that is at 0.0092.
_PADDING_LEVEL = 0.0087
_STEEPNESS = 1e4  # 5 at the first byte above the level, 3e4 at the largest: half precision holds it


class HighFrequency(nn.Module):
    """Absolute difference between an image and its low-pass, without a Fourier operator.

    The low-pass keeps the frequencies -c to c - 1 of rows and of columns, c half the square's side
    rounded down; the sides are those of a square with a quarter of the spectrum's area. Frequency
    -c has no partner at c, so the low-passed image is complex and its real part counts: a symmetric
    product of matrices, and a product of rank two for the imaginary parts.

    A constant offset does not change the result, and a factor scales it: it is the same, up to the
    unit, of bytes and of normalised pixels. Both borders of an image meet as in any Fourier
    transform; padding has a border of its own, see `replicate_padding`.

    Args:
        height: Rows of the images, in pixels.
        width: Columns of the images, in pixels. Where an image is more than four times as long as
            wide, the square is wider than its spectrum, and the short side passes as a whole.
    """

    row_pass: Tensor
    row_left: Tensor
    row_right: Tensor
    column_pass: Tensor
    column_left: Tensor
    column_right: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        half_side = int(math.sqrt(LOW_PASS_AREA * height * width) // 2)
        for name, length in (("row", height), ("column", width)):
            real, left, right = _low_pass(length, half_side)
            self.register_buffer(f"{name}_pass", real.float()[None, None], persistent=False)
            self.register_buffer(f"{name}_left", left.float()[None, None], persistent=False)
            self.register_buffer(f"{name}_right", right.float()[None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, height, width) to the same shape, zero or more, in the unit of the input."""
        real = self.row_pass @ images @ self.column_pass  # symmetric, so no transposition
        corner = self.row_right.mT @ images @ self.column_right  # (B, C, 2, 2)
        return (images - real + self.row_left @ corner @ self.column_left.mT).abs()


def _low_pass(length: int, half_side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the real part of a one-dimensional low-pass, and factors of its imaginary part.

    Returns:
        (length, length) float64, and L and R, (length, 2) float64, with L R^T the imaginary part.
    """
    position = torch.arange(length, dtype=torch.float64)
    if 2 * half_side >= length:
        nothing = torch.zeros(length, 2, dtype=torch.float64)
        return torch.eye(length, dtype=torch.float64), nothing, nothing
    frequencies = torch.arange(-half_side, half_side, dtype=torch.float64)
    angles = (2 * math.pi / length) * torch.outer(frequencies, position)  # (2c, length)
    real = angles.cos().mT @ angles.cos() + angles.sin().mT @ angles.sin()
    edge = (2 * math.pi / length) * half_side * position  # only -c has no partner that cancels it
    left = torch.stack([edge.sin(), edge.cos()], dim=1) / length
    right = torch.stack([-edge.cos(), edge.sin()], dim=1)
    return real / length, left, right


def replicate_padding(images: Tensor) -> Tensor:
    """Continue the last row and column of every image over its padding.

    Else the step from content to padding is a line of fine detail that no image has. Measured at
    256 pixels in the four pixels before it, of 255, beside the same pixels of the image without any
    border: 8.5 instead of 0.9 on dark microscopy, 7.8 instead of 1.1 on streets, 8.7 instead of 5.2
    on photographs. Continued, they have the same to 0.2.

    What is padding is read off the pixels: rows and columns at the end in which every pixel is
    zero, which normalisation makes of no byte, or of the one colour that pads bytes.

    Args:
        images: (B, 3, H, W) float, normalised, padded at the right and bottom.

    Returns:
        The same with other numbers in the padding. Arithmetic only, so that every exporter takes
        it, and within what half precision holds up to 2048 pixels.
    """
    level = images.abs().amax(dim=1, keepdim=True)  # (B, 1, H, W)
    for dim, other in ((2, 3), (3, 2)):
        largest = level.amax(dim=other, keepdim=True)  # of every row, then of every column
        is_content = (_STEEPNESS * (largest - _PADDING_LEVEL)).clamp(0, 1)
        images = _continue_end(images, is_content, dim)
    return images


def _continue_end(images: Tensor, is_content: Tensor, dim: int) -> Tensor:
    """Put the last row, or column, that has content in place of all after it."""
    length = images.shape[dim]
    number = torch.arange(1, length + 1, dtype=images.dtype, device=images.device)  # from one
    number = number.view(-1, 1) if dim == 2 else number
    last = (is_content * number).amax(dim=dim, keepdim=True)  # 0 if all is padding
    before = (last - number).clamp(0, 1)
    is_last = (1 - (last - number).abs()).clamp(0, 1)
    end = (images * is_last).sum(dim=dim, keepdim=True)
    return images * before + end * (1 - before)
