"""Reductions and searches of MIL: sums, means, extremes, norms, sorting.

Source: the section on reduction, `topk`, `argsort` and `cumsum` of the MIL operation reference.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from edgeseg.exporter.mil.arguments import Function, Ints, Tensors

_INDEX_TYPES = ("int32", "uint16")


def _over_axes(function: Callable[[Tensor, Ints, bool], Tensor]) -> Function:
    def call(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
        over = tuple(range(x.ndim)) if axes is None else axes
        if not over:
            raise ValueError("axes must name a dimension or be left out, got none")
        return function(x, over, keep_dims)

    return call


def _sum(x: Tensor, axes: Ints, keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep)


def _product(x: Tensor, axes: Ints, keep: bool) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x if keep else x.squeeze(axes)


def _log_sum_exp(x: Tensor, axes: Ints, keep: bool) -> Tensor:
    return torch.logsumexp(x, axes, keepdim=keep)


def _largest(x: Tensor, axes: Ints, keep: bool) -> Tensor:
    return x.amax(axes, keepdim=keep)


def _smallest(x: Tensor, axes: Ints, keep: bool) -> Tensor:
    return x.amin(axes, keepdim=keep)


def _mean(x: Tensor, axes: Ints, keep: bool) -> Tensor:
    return x.mean(axes, keepdim=keep)


def _index_of(function: Callable[..., Tensor]) -> Function:
    def call(
        x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
    ) -> Tensor:
        _check_index_type(output_dtype)
        return function(x, axis, keepdim=keep_dims)

    return call


def _check_index_type(dtype: str) -> None:
    if dtype not in _INDEX_TYPES:
        raise ValueError(f"indices must be one of {_INDEX_TYPES}, got '{dtype}'")


def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    """Return the indices that sort x along an axis; equal values keep their order."""
    return torch.argsort(x, dim=axis, descending=not ascending, stable=True)


def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensors:
    """Return the k largest (smallest if `ascending`) values along an axis, and their indices."""
    if not sort:
        raise ValueError("topk without sort has no defined order; export it with sort = true")
    _check_index_type(output_indices_dtype)
    if not 0 < k <= x.shape[axis]:
        raise ValueError(f"k must be between 1 and {x.shape[axis]}, got {k}")
    indices = argsort(x, axis, ascending).narrow(axis, 0, k)
    values = torch.gather(x, axis, indices)
    return (values, indices) if return_indices else (values,)


def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Return running sums along an axis, each without its own element if `exclusive`."""
    turned = x.flip(axis) if reverse else x
    sums = turned.cumsum(axis)
    if exclusive:
        zero = torch.zeros_like(sums.narrow(axis, 0, 1))
        sums = torch.cat([zero, sums.narrow(axis, 0, x.shape[axis] - 1)], axis)
    return sums.flip(axis) if reverse else sums


OPERATIONS: Mapping[str, Function] = {
    "reduce_sum": _over_axes(_sum),
    "reduce_mean": _over_axes(_mean),
    "reduce_max": _over_axes(_largest),
    "reduce_min": _over_axes(_smallest),
    "reduce_prod": _over_axes(_product),
    "reduce_l1_norm": _over_axes(lambda x, axes, keep: _sum(x.abs(), axes, keep)),
    "reduce_l2_norm": _over_axes(lambda x, axes, keep: _sum(x.square(), axes, keep).sqrt()),
    "reduce_sum_square": _over_axes(lambda x, axes, keep: _sum(x.square(), axes, keep)),
    "reduce_log_sum": _over_axes(lambda x, axes, keep: _sum(x, axes, keep).log()),
    "reduce_log_sum_exp": _over_axes(_log_sum_exp),
    "reduce_argmax": _index_of(torch.argmax),
    "reduce_argmin": _index_of(torch.argmin),
    "argsort": argsort,
    "topk": topk,
    "cumsum": cumsum,
}
