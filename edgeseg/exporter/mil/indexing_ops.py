"""MIL operations that pick values by position, and those that make tensors of positions.

Source: the sections on scatter / gather, tensor transformation and tensor operation of the MIL
operation reference. A position outside of a tensor has no documented result and is refused.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from edgeseg.exporter.mil.arguments import Bools, Function, Ints, place_of


def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """Slice as numpy does, x[begin:end:stride, ...].

    Args:
        x: The tensor.
        begin: First position in each dimension; negative counts from the end.
        end: Position after the last one.
        stride: Step; negative walks backwards.
        begin_mask: Where `begin` is ignored and the slice starts at the very beginning.
        end_mask: Where `end` is ignored.
        squeeze_mask: Where only `begin` is taken and the dimension is dropped.
    """
    nowhere = (False,) * x.ndim
    stride = stride or (1,) * x.ndim
    begin_mask, end_mask = begin_mask or nowhere, end_mask or nowhere
    squeeze_mask = squeeze_mask or nowhere
    if {len(each) for each in (begin, end, stride, begin_mask, end_mask, squeeze_mask)} != {x.ndim}:
        raise ValueError(f"begin, end, stride and masks must have {x.ndim} values each")
    dropped = 0
    for axis, size in enumerate(x.shape):
        kept_axis = axis - dropped
        if squeeze_mask[axis]:
            x = x.select(kept_axis, 0 if begin_mask[axis] else begin[axis])
            dropped += 1
            continue
        first = None if begin_mask[axis] else begin[axis]
        last = None if end_mask[axis] else end[axis]
        places = range(size)[first : last : stride[axis]]
        if places != range(size):
            x = x.index_select(kept_axis, torch.tensor(list(places), dtype=torch.int64))
    return x


def slice_by_size(x: Tensor, begin: Ints, size: Ints) -> Tensor:
    """Take `size` elements from `begin` in each dimension; -1 takes the rest."""
    if len(begin) != x.ndim or len(size) != x.ndim:
        raise ValueError(f"begin and size must have {x.ndim} values, got {begin} and {size}")
    for axis, (first, length) in enumerate(zip(begin, size, strict=True)):
        start = first + x.shape[axis] if first < 0 else first
        x = x.narrow(axis, start, x.shape[axis] - start if length == -1 else length)
    return x


def gather(x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0) -> Tensor:
    """Take slices of x along an axis; negative indices count from the end."""
    axis = place_of(axis, x.ndim)
    if not 0 <= batch_dims <= min(axis, indices.ndim):
        raise ValueError(f"batch_dims must lie before axis {axis}, got {batch_dims}")
    places = _within(indices, x.shape[axis])
    if not batch_dims:
        picked = x.index_select(axis, places.reshape(-1))
        return picked.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])
    if x.shape[:batch_dims] != places.shape[:batch_dims]:
        raise ValueError(f"the first {batch_dims} dimensions of x and indices must be equal")
    pairs = zip(x.flatten(0, batch_dims - 1), places.flatten(0, batch_dims - 1), strict=True)
    picked = torch.stack([gather(each, at, axis - batch_dims) for each, at in pairs])
    return picked.reshape(*x.shape[:batch_dims], *picked.shape[1:])


def gather_from_start(
    x: Tensor,
    indices: Tensor,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> Tensor:
    """Take slices of x along an axis as iOS 17 does: indices must not be negative."""
    _check_not_negative(indices)
    return gather(x, indices, axis, batch_dims)


def gather_along_axis(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """Take for each element of `indices` the value of x at that position along an axis."""
    axis = place_of(axis, x.ndim)
    others = [size for place, size in enumerate(x.shape) if place != axis]
    if others != [size for place, size in enumerate(indices.shape) if place != axis]:
        raise ValueError(
            f"x and indices may differ in dimension {axis} only, got {tuple(x.shape)} and "
            f"{tuple(indices.shape)}"
        )
    return torch.gather(x, axis, _within(indices, x.shape[axis]))


def gather_along_axis_from_start(
    x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False
) -> Tensor:
    """Take values along an axis as iOS 17 does: indices must not be negative."""
    _check_not_negative(indices)
    return gather_along_axis(x, indices, axis)


def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0) -> Tensor:
    """Take the slices of x at the positions that the last dimension of `indices` spells out."""
    if batch_dims:
        if x.shape[:batch_dims] != indices.shape[:batch_dims]:
            raise ValueError(f"the first {batch_dims} dimensions of x and indices must be equal")
        pairs = zip(x.flatten(0, batch_dims - 1), indices.flatten(0, batch_dims - 1), strict=True)
        picked = torch.stack([gather_nd(each, at) for each, at in pairs])
        return picked.reshape(*x.shape[:batch_dims], *picked.shape[1:])
    depth = indices.shape[-1]
    return x[tuple(_within(indices[..., axis], x.shape[axis]) for axis in range(depth))]


def gather_nd_from_start(
    x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Take slices at spelled-out positions as iOS 17 does: indices must not be negative."""
    _check_not_negative(indices)
    return gather_nd(x, indices, batch_dims)


def shape(x: Tensor) -> Tensor:
    """Return the sizes of x."""
    return torch.tensor(x.shape, dtype=torch.int32)


def fill(shape: Ints, value: Tensor | None = None) -> Tensor:
    """Return a tensor of one value, 0.0 if none is given."""
    return (torch.zeros(()) if value is None else value.reshape(())).expand(shape).clone()


def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    """Return a tensor of one value in the shape of another."""
    return fill(tuple(ref_tensor.shape), value)


def range_1d(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    """Return start, start + step, ... up to but without end."""
    first, limit, distance = (float(bound.item()) for bound in (start, end, step))
    if not distance:
        raise ValueError("step must not be 0")
    count = max(0, math.ceil((limit - first) / distance))
    return start.reshape(()) + step.reshape(()) * torch.arange(count, dtype=start.dtype)


def non_zero(x: Tensor) -> Tensor:
    """Return (N, rank) positions of the elements that are not 0, row by row."""
    return torch.nonzero(x)


def one_hot(
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    """Return vectors that hold `on_value` at the index and `off_value` elsewhere."""
    places = torch.arange(one_hot_vector_size)
    hit = _within(indices, one_hot_vector_size).unsqueeze(-1) == places
    on = torch.tensor(1, dtype=torch.int32) if on_value is None else on_value.reshape(())
    off = torch.zeros_like(on) if off_value is None else off_value.reshape(())
    return torch.where(hit, on, off).movedim(-1, axis)


def _within(indices: Tensor, size: int) -> Tensor:
    """Return the indices counted from the start, as int64."""
    if indices.is_floating_point() or indices.dtype == torch.bool:
        raise ValueError(f"indices must be integers, got {indices.dtype}")
    places = indices.to(torch.int64)
    if not bool(((places >= -size) & (places < size)).all()):
        raise ValueError(f"indices must lie between {-size} and {size - 1}, got {places.tolist()}")
    return torch.where(places < 0, places + size, places)


def _check_not_negative(indices: Tensor) -> None:
    if bool((indices < 0).any()):
        raise ValueError("indices must not be negative from iOS 17 on; add the size to them")


OPERATIONS: Mapping[str, Function] = {
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gather_nd": gather_nd,
    "shape": shape,
    "fill": fill,
    "fill_like": fill_like,
    "range_1d": range_1d,
    "non_zero": non_zero,
    "one_hot": one_hot,
}
OPERATIONS_IOS17: Mapping[str, Function] = {
    "gather": gather_from_start,
    "gather_along_axis": gather_along_axis_from_start,
    "gather_nd": gather_nd_from_start,
}
