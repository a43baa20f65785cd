"""Activation functions of MIL.

Source: the section on activations of the MIL operation reference.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.exporter.mil.arguments import Function


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """Return the Gaussian error linear unit of x, exact or by a documented approximation."""
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise ValueError(f"mode of gelu is not known, got '{mode}'")


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Return exp(x) over its sum along an axis."""
    return torch.softmax(x, axis)


def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    """Return x, times alpha where it is negative."""
    return torch.where(x >= 0, x, alpha * x)


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """Return (B, C, ...) x, times the channel's alpha where it is not positive."""
    return torch.where(x > 0, x, _per_channel(alpha, x) * x)


def elu(x: Tensor, alpha: float) -> Tensor:
    """Return x, and alpha * (exp(x) - 1) where it is not positive."""
    return torch.where(x > 0, x, alpha * torch.expm1(x))


def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Return min(x, beta), with alpha * x in place of a negative x."""
    return leaky_relu(x, alpha).clamp(max=beta)


def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    """Return x where it is at least alpha, else 0."""
    return torch.where(x >= alpha, x, torch.zeros_like(x))


def linear_activation(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Return alpha * x + beta."""
    return alpha * x + beta


def scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Return alpha * tanh(beta * x)."""
    return alpha * torch.tanh(beta * x)


def sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Return alpha * x + beta limited to the range from 0 to 1."""
    return (alpha * x + beta).clamp(0.0, 1.0)


def _per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    if parameter.shape != (x.shape[1],):
        raise ValueError(f"alpha must have {x.shape[1]} values, got {tuple(parameter.shape)}")
    return parameter.view(-1, *[1] * (x.ndim - 2))


def _of_one(function: Callable[[Tensor], Tensor]) -> Function:
    def call(x: Tensor) -> Tensor:
        return function(x)

    return call


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _softsign(x: Tensor) -> Tensor:
    return x / (1.0 + x.abs())


def _relu6(x: Tensor) -> Tensor:
    return x.clamp(0.0, 6.0)


OPERATIONS: Mapping[str, Function] = {
    "relu": _of_one(torch.relu),
    "relu6": _of_one(_relu6),
    "sigmoid": _of_one(torch.sigmoid),
    "silu": _of_one(F.silu),
    "softplus": _of_one(_softplus),
    "softsign": _of_one(_softsign),
    "gelu": gelu,
    "softmax": softmax,
    "leaky_relu": leaky_relu,
    "prelu": prelu,
    "elu": elu,
    "clamped_relu": clamped_relu,
    "thresholded_relu": thresholded_relu,
    "linear_activation": linear_activation,
    "scaled_tanh": scaled_tanh,
    "sigmoid_hard": sigmoid_hard,
}
