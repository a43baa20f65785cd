"""Bicubic upsampling as two matrix products, which every runtime has and runs fast.

Core ML has no bicubic upsampling, and ONNX Runtime's took 148 of 940 ms of the EdgeSAM encoder. At
a fixed size, interpolation along an axis is a product with a constant matrix, so the numbers stay
the same.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.modeling.encoders.repvit import Interpolation, UpsampleLevel


class MatrixUpsampling(nn.Module):
    """Double the resolution of (B, C, n, n) maps as `torch.nn.functional.interpolate` does.

    Args:
        size: Side n of the maps.
        interpolation: Any mode that handles rows and columns apart.
    """

    matrix: Tensor

    def __init__(self, size: int, interpolation: Interpolation) -> None:
        super().__init__()
        self.register_buffer("matrix", doubling_matrix(size, interpolation))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, n, n) to (B, C, 2n, 2n)."""
        return self.matrix @ (x @ self.matrix.T)


def doubling_matrix(size: int, interpolation: Interpolation) -> Tensor:
    """Return the (2n, n) float32 matrix that interpolates n values to 2n.

    >>> doubling_matrix(2, "bilinear").tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    units = torch.eye(size, dtype=torch.float64)[None, :, :, None]  # each channel a unit column
    columns = units.expand(1, size, size, 4)  # constant along x, where nothing is to happen
    doubled = F.interpolate(columns, scale_factor=2, mode=interpolation, align_corners=False)
    return doubled[0, :, :, 0].T.float().contiguous()


def replace_bicubic(encoder: nn.Module, image_size: int) -> None:
    """Replace bicubic upsampling from stride 32 by `MatrixUpsampling`, in place.

    Args:
        encoder: Image encoder; one without bicubic levels is left as it is.
        image_size: Side of its input in pixels.
    """
    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, UpsampleLevel) and child.interpolation == "bicubic":
                doubling = MatrixUpsampling(image_size // 32, child.interpolation)
                setattr(parent, name, nn.Sequential(child.op_list[0], doubling))
