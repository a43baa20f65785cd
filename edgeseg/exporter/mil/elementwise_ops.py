"""Element-wise MIL operations: arithmetic, comparisons, logic, rounding, functions, casts.

Source: elementwise_unary, elementwise_binary and `select` of the MIL operation reference. Two
operands are broadcast as numpy does.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from edgeseg.exporter.mil.arguments import Function
from edgeseg.exporter.mil.element_types import element_type


def _of_one(function: Callable[[Tensor], Tensor]) -> Function:
    def call(x: Tensor) -> Tensor:
        return function(x)

    return call


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    def call(x: Tensor, y: Tensor) -> Tensor:
        if x.is_floating_point() != y.is_floating_point():
            raise ValueError(f"x and y must have one kind of type, got {x.dtype} and {y.dtype}")
        return function(x, y)

    return call


def _of_flags(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    def call(x: Tensor, y: Tensor) -> Tensor:
        return function(_flags(x), _flags(y))

    return call


def _flags(x: Tensor) -> Tensor:
    if x.dtype != torch.bool:
        raise ValueError(f"operands must be bool, got {x.dtype}")
    return x


def real_div(x: Tensor, y: Tensor) -> Tensor:
    """Return x / y of floats; how integers are rounded is not documented."""
    if not x.is_floating_point() or not y.is_floating_point():
        raise ValueError(f"x and y must be floats, got {x.dtype} and {y.dtype}")
    return x / y


def logical_not(x: Tensor) -> Tensor:
    """Return the opposite of each flag."""
    return ~_flags(x)


def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return `a` where `cond` is true, else `b`."""
    return torch.where(_flags(cond), a, b)


def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Return x limited to the range from alpha to beta."""
    return x.clamp(alpha, beta)


def threshold(x: Tensor, alpha: Tensor) -> Tensor:
    """Return max(x, alpha)."""
    return torch.maximum(x, alpha)


def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    """Return the natural logarithm of x + epsilon."""
    return torch.log(x + epsilon)


def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """Return one over the square root of x + epsilon."""
    return torch.rsqrt(x + epsilon)


def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Return 1 / (x + epsilon)."""
    return torch.reciprocal(x + epsilon)


def cast(x: Tensor, dtype: str) -> Tensor:
    """Return x in another type, floats cut towards zero where it is an integer type.

    Rounding to half precision is left to the interpreter, which does it for every result.

    Raises:
        ValueError: A value does not fit the integer type; what happens then is not documented.
    """
    element = element_type(dtype)
    if element.is_float:
        return x.to(torch.float32)
    if element.kind == "bool":
        return x != 0
    if element.kind != "int":
        raise ValueError(f"dtype must be a type of numbers or flags, got '{dtype}'")
    low, high = element.bounds
    cut = x.trunc() if x.is_floating_point() else x
    wide = cut.to(torch.float64) if x.is_floating_point() else cut
    if not bool(((wide >= low) & (wide <= high)).all()):
        raise ValueError(f"x has a value that {dtype} cannot hold (limits {low} and {high})")
    return cut.to(torch.int64)


def _power(x: Tensor, y: Tensor) -> Tensor:
    if not x.is_floating_point() and bool((y < 0).any()):
        raise ValueError("integers to a negative power have no documented result")
    return torch.pow(x, y)


OPERATIONS: Mapping[str, Function] = {
    "abs": _of_one(torch.abs),
    "acos": _of_one(torch.acos),
    "asin": _of_one(torch.asin),
    "atan": _of_one(torch.atan),
    "atanh": _of_one(torch.atanh),
    "ceil": _of_one(torch.ceil),
    "cos": _of_one(torch.cos),
    "cosh": _of_one(torch.cosh),
    "erf": _of_one(torch.erf),
    "exp": _of_one(torch.exp),
    "exp2": _of_one(torch.exp2),
    "floor": _of_one(torch.floor),
    "identity": _of_one(torch.Tensor.contiguous),
    "round": _of_one(torch.round),  # halves to the even neighbour
    "sign": _of_one(torch.sign),
    "sin": _of_one(torch.sin),
    "sinh": _of_one(torch.sinh),
    "sqrt": _of_one(torch.sqrt),
    "square": _of_one(torch.square),
    "tan": _of_one(torch.tan),
    "tanh": _of_one(torch.tanh),
    "add": _of_two(torch.add),
    "sub": _of_two(torch.sub),
    "mul": _of_two(torch.mul),
    "floor_div": _of_two(torch.floor_divide),
    "mod": _of_two(torch.remainder),  # with the sign of y, as in Python
    "pow": _of_two(_power),
    "maximum": _of_two(torch.maximum),
    "minimum": _of_two(torch.minimum),
    "equal": _of_two(torch.eq),
    "not_equal": _of_two(torch.ne),
    "greater": _of_two(torch.gt),
    "greater_equal": _of_two(torch.ge),
    "less": _of_two(torch.lt),
    "less_equal": _of_two(torch.le),
    "logical_and": _of_flags(torch.logical_and),
    "logical_or": _of_flags(torch.logical_or),
    "logical_xor": _of_flags(torch.logical_xor),
    "logical_not": logical_not,
    "real_div": real_div,
    "select": select,
    "clip": clip,
    "threshold": threshold,
    "log": log,
    "rsqrt": rsqrt,
    "inverse": inverse,
    "cast": cast,
}
