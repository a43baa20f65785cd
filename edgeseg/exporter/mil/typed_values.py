"""Tensors in the types that a program declares.

Floats of every width are computed as float32, integers below 32 bits and int32 as int32, wider
ones as int64.
"""

import numpy as np
import torch
from torch import Tensor

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.arguments import Value
from edgeseg.exporter.mil.element_types import ElementType
from edgeseg.exporter.mil.values import Constant, TensorType


def value_of(constant: Constant) -> Value:
    """Return a constant as operations take it.

    Raises:
        ExportError: It is a list.
    """
    value = constant.value
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) or constant.type is None:
        raise ExportError("a list of constants is not known as an argument; use a tensor")
    element = constant.type.element
    if element.kind == "bool":
        return torch.from_numpy(value.copy())
    if element.is_float:
        return torch.from_numpy(value.astype(np.float32))
    return torch.from_numpy(value.astype(np.int64)).to(_working_dtype(element))


def conformed(result: Tensor, declared: TensorType, rounds: bool) -> Tensor:
    """Return the result of an operation in its declared type.

    Args:
        result: As computed.
        declared: What the program says about it.
        rounds: Whether half-precision results are rounded to half precision.

    Raises:
        ValueError: It has another shape or kind than declared, or a value the type cannot hold.
    """
    if not declared.allows(tuple(result.shape)):
        raise ValueError(f"the result has shape {tuple(result.shape)}, declared is {declared}")
    element = declared.element
    kind = "float" if result.is_floating_point() else "int"
    kind = "bool" if result.dtype == torch.bool else kind
    if kind != element.kind:
        raise ValueError(f"the result is {kind}, declared is {declared}")
    if kind == "int":
        return _within_bounds(result, element)
    if element.name == "fp16" and rounds:
        return result.to(torch.float16).to(torch.float32)
    return result


def array_of(tensor: Tensor, declared: TensorType) -> np.ndarray:
    """Return a value as apps get it: float32 for every float, else the declared type."""
    element = declared.element
    return tensor.numpy().astype(np.float32 if element.is_float else element.numpy)


def _within_bounds(result: Tensor, element: ElementType) -> Tensor:
    low, high = element.bounds
    if result.numel() and (int(result.min()) < low or int(result.max()) > high):
        raise ValueError(
            f"the result has values from {int(result.min())} to {int(result.max())}, which "
            f"{element.name} cannot hold"
        )
    return result.to(_working_dtype(element))


def _working_dtype(element: ElementType) -> torch.dtype:
    return torch.int32 if element.bits < 32 or element.name == "int32" else torch.int64
