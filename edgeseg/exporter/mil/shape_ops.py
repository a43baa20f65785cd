"""MIL operations that move values without changing them: shapes, order, joining, splitting.

Source: the sections on tensor transformation and tensor operation of the MIL operation reference.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.exporter.mil.arguments import Function, Ints, Tensors, place_of


def reshape(x: Tensor, shape: Ints) -> Tensor:
    """Return x in another shape; 0 keeps the size at that place, -1 takes what is left."""
    if 0 in shape and len(shape) != x.ndim:
        raise ValueError(f"shape with 0 must have {x.ndim} sizes, got {shape}")
    return x.reshape([size or x.shape[axis] for axis, size in enumerate(shape)])


def reshape_from_right(x: Tensor, shape: Ints) -> Tensor:
    """Return x in another shape as iOS 17 does: 0 keeps the size at that place from the right."""
    sizes = (1,) * len(shape) + tuple(x.shape)
    return x.reshape([size or sizes[place - len(shape)] for place, size in enumerate(shape)])


def transpose(x: Tensor, perm: Ints) -> Tensor:
    """Return x with its dimensions in the order `perm`."""
    return x.permute(perm)


def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    """Return x with dimensions of size 1 at these places of the result."""
    rank = x.ndim + len(axes)
    for axis in sorted(_places(axes, rank)):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Return x without the named dimensions (default: all) that have size 1."""
    return x.squeeze() if axes is None else x.squeeze(axes)


def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    """Join tensors along a dimension, one after the other or element by element."""
    if not interleave:
        return torch.cat(values, axis)
    axis = place_of(axis, values[0].ndim)
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


def stack(values: Tensors, axis: int) -> Tensor:
    """Join tensors along a new dimension."""
    return torch.stack(values, axis)


def split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> Tensors:
    """Split along a dimension into equal parts, or parts of the given sizes."""
    size = x.shape[axis]
    if split_sizes is None:
        if not num_splits or size % num_splits:
            raise ValueError(f"num_splits must divide {size}, got {num_splits}")
        split_sizes = (size // num_splits,) * num_splits
    if num_splits not in (None, len(split_sizes)):
        raise ValueError(f"num_splits {num_splits} contradicts split_sizes {split_sizes}")
    return tuple(x.split(list(split_sizes), axis))


def tile(x: Tensor, reps: Ints) -> Tensor:
    """Repeat x along each dimension."""
    if len(reps) != x.ndim:
        raise ValueError(f"reps must have {x.ndim} values, got {reps}")
    return x.repeat(reps)


def reverse(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Reverse the order along these dimensions (default: all)."""
    return x.flip(tuple(range(x.ndim)) if axes is None else axes)


def flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    """Return a matrix whose rows are the dimensions before `axis`."""
    return x.reshape(math.prod(x.shape[:axis]), -1)


def pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Pad the last dimensions, each by (before, after), the first of them first.

    Args:
        x: The tensor.
        pad: Two amounts for each of the last dimensions.
        mode: "constant", "reflect" (without the border element) or "replicate".
        constant_val: What "constant" pads with.

    Raises:
        ValueError: The mode is not known, or the amounts do not fit.
    """
    if len(pad) % 2 or len(pad) > 2 * x.ndim or min(pad, default=0) < 0:
        raise ValueError(f"pad must have two amounts for up to {x.ndim} dimensions, got {pad}")
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        return F.pad(x, [amount for pair in reversed(pairs) for amount in pair], value=constant_val)
    if mode not in ("reflect", "replicate"):
        raise ValueError(f"mode must be constant, reflect or replicate, got '{mode}'")
    for axis, (before, after) in enumerate(pairs, x.ndim - len(pairs)):
        last = x.shape[axis] - 1
        places = torch.arange(-before, last + after + 1)
        if mode == "replicate":
            places = places.clamp(0, last)
        elif max(before, after) > last:
            raise ValueError(
                f"reflect can pad {last + 1} elements by {last}, got {(before, after)}"
            )
        else:
            places = last - (last - places.abs()).abs()
        x = x.index_select(axis, places)
    return x


def crop(x: Tensor, crop_height: Ints, crop_width: Ints) -> Tensor:
    """Take away (before, after) rows and columns."""
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """Move channels of (B, C * f * f, H, W) into space: (B, C, H * f, W * f)."""
    return F.pixel_shuffle(x, upscale_factor)


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """Move space of (B, C, H * f, W * f) into channels: (B, C * f * f, H, W)."""
    return F.pixel_unshuffle(x, downscale_factor)


def band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """Set to zero what is further from the diagonal than these (negative: no limit)."""
    below = torch.arange(x.shape[-2])[:, None] - torch.arange(x.shape[-1])
    inside = (below <= (lower if lower >= 0 else x.shape[-2])) & (
        -below <= (upper if upper >= 0 else x.shape[-1])
    )
    return torch.where(inside, x, torch.zeros_like(x))


def _places(axes: Sequence[int], rank: int) -> list[int]:
    places = [place_of(axis, rank) for axis in axes]
    if len(set(places)) != len(places):
        raise ValueError(f"axes must be different, got {tuple(axes)}")
    return places


OPERATIONS: Mapping[str, Function] = {
    "reshape": reshape,
    "transpose": transpose,
    "expand_dims": expand_dims,
    "squeeze": squeeze,
    "concat": concat,
    "stack": stack,
    "split": split,
    "tile": tile,
    "reverse": reverse,
    "flatten2d": flatten2d,
    "pad": pad,
    "crop": crop,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "band_part": band_part,
}
OPERATIONS_IOS17: Mapping[str, Function] = {"reshape": reshape_from_right}
