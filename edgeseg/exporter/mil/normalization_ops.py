"""Normalizations of MIL.

Source: the section on normalization of the MIL operation reference. Variances are biased; the
epsilon is added to the variance, to the sum of squares in `l2_norm`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from edgeseg.exporter.mil.arguments import Function, Ints, place_of


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalize (B, C, *spatial) by stored statistics of its channels."""
    shape = (-1, *[1] * (x.ndim - 2))
    centred = x - mean.view(shape)
    return _scaled(centred * torch.rsqrt(variance.view(shape) + epsilon), shape, gamma, beta)


def instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    """Normalize each channel of each element of (B, C, *spatial) by its own statistics."""
    shape = (-1, *[1] * (x.ndim - 2))
    return _scaled(_standardized(x, tuple(range(2, x.ndim)), epsilon), shape, gamma, beta)


def layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalize over `axes` (default: all); gamma and beta have the sizes of these axes."""
    over = range(x.ndim) if axes is None else sorted(place_of(axis, x.ndim) for axis in axes)
    shape = tuple(size if axis in over else 1 for axis, size in enumerate(x.shape))
    return _scaled(_standardized(x, tuple(over), epsilon), shape, gamma, beta)


def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Divide by the square root of the sum of squares over the last three dimensions."""
    if x.ndim < 3:
        raise ValueError(f"x must have at least 3 dimensions, got shape {tuple(x.shape)}")
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


def _standardized(x: Tensor, axes: Ints, epsilon: float) -> Tensor:
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + epsilon)


def _scaled(x: Tensor, shape: Ints, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    if gamma is not None:
        x = x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


OPERATIONS: Mapping[str, Function] = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "l2_norm": l2_norm,
}
