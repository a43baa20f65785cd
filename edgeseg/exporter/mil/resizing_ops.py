"""Resizing of images in MIL.

Source: the section on image resizing of the MIL operation reference, whose formulas for the
sampled positions are taken over. Nearest-neighbour enlargement is executed for whole factors only:
which neighbour a fractional one takes is not documented.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from edgeseg.exporter.mil.arguments import Function, Ints


def _unaligned(size: int, places: Tensor, count: int) -> Tensor:
    return (places + 0.5) * size / count - 0.5


def _strictly_aligned(size: int, places: Tensor, count: int) -> Tensor:
    return places * (size - 1) / max(count - 1, 1)


def _aligned(size: int, places: Tensor, count: int) -> Tensor:
    return _strictly_aligned(size, places, count) if count > 1 else places + (size - 1) / 2


def _from_corner(size: int, places: Tensor, count: int) -> Tensor:
    return places * size / count


def _offset(size: int, places: Tensor, count: int) -> Tensor:
    return (places + 0.5) * max(1, size - 1) / count


_POSITIONS: Mapping[str, Callable[[int, Tensor, int], Tensor]] = {
    "DEFAULT": _from_corner,
    "STRICT_ALIGN_CORNERS": _strictly_aligned,
    "ALIGN_CORNERS": _aligned,
    "UNALIGN_CORNERS": _unaligned,
    "OFFSET_CORNERS": _offset,
}


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1.0,
    scale_factor_width: float = 1.0,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Enlarge the last two dimensions; the exact factor follows from the rounded-down sizes."""
    centred = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and centred:
        raise ValueError("align_corners and half_pixel_centers exclude each other")
    mode = "UNALIGN_CORNERS" if centred else "DEFAULT"
    mode = "STRICT_ALIGN_CORNERS" if align_corners else mode
    x = _linear(x, -2, int(x.shape[-2] * scale_factor_height), mode)
    return _linear(x, -1, int(x.shape[-1] * scale_factor_width), mode)


def resize_bilinear(
    x: Tensor,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Resize the last two dimensions to these sizes."""
    x = _linear(x, -2, target_size_height, sampling_mode)
    return _linear(x, -1, target_size_width, sampling_mode)


def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: float = 1.0, scale_factor_width: float = 1.0
) -> Tensor:
    """Repeat every row and column a whole number of times."""
    x = _repeat(x, -2, x.shape[-2] * scale_factor_height)
    return _repeat(x, -1, x.shape[-1] * scale_factor_width)


def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    """Repeat every row and column so often that the sizes are reached."""
    return _repeat(_repeat(x, -2, target_size_height), -1, target_size_width)


def resize(
    x: Tensor,
    shape: Ints,
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Resize the last `resized_dims` dimensions to the last sizes of `shape`; 0 keeps one."""
    if not 0 < resized_dims <= min(2, len(shape)):
        raise ValueError(f"resized_dims must be 1 or 2 within shape {shape}, got {resized_dims}")
    for axis in range(-resized_dims, 0):
        size = shape[axis] or x.shape[axis]
        if interpolation_mode == "LINEAR":
            x = _linear(x, axis, size, sampling_mode)
        elif interpolation_mode == "NEAREST_NEIGHBOR" and sampling_mode in (
            "DEFAULT",
            "UNALIGN_CORNERS",  # both give whole factors their plain repetition
        ):
            x = _repeat(x, axis, size)
        else:
            raise ValueError(
                f"interpolation_mode '{interpolation_mode}' with sampling_mode "
                f"'{sampling_mode}' is not known"
            )
    return x


def _linear(x: Tensor, axis: int, count: int, mode: str) -> Tensor:
    """Sample `count` positions along an axis, mixing the two neighbours of each."""
    if mode not in _POSITIONS:
        raise ValueError(f"sampling_mode must be one of {list(_POSITIONS)}, got '{mode}'")
    if not x.is_floating_point():
        raise ValueError(f"x must be floats to be interpolated, got {x.dtype}")
    size = x.shape[axis]
    if size == count and mode != "OFFSET_CORNERS":
        return x  # every other mode then samples the elements themselves
    places = torch.arange(count, dtype=torch.float64)
    position = _POSITIONS[mode](size, places, count).clamp(0, size - 1)
    lower = position.floor().to(torch.int64)
    upper = (lower + 1).clamp(max=size - 1)
    share = (position - lower).to(x.dtype).view(-1, *[1] * (-1 - axis))
    return x.index_select(axis, lower) * (1 - share) + x.index_select(axis, upper) * share


def _repeat(x: Tensor, axis: int, size: float) -> Tensor:
    times, rest = divmod(size, x.shape[axis])
    if rest or times < 1:
        raise ValueError(
            f"nearest neighbours are taken for whole factors only, got {x.shape[axis]} to {size}"
        )
    return x.repeat_interleave(int(times), axis)


OPERATIONS: Mapping[str, Function] = {
    "upsample_bilinear": upsample_bilinear,
    "resize_bilinear": resize_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
    "resize_nearest_neighbor": resize_nearest_neighbor,
}
OPERATIONS_IOS17: Mapping[str, Function] = {"resize": resize}
