"""Arguments of MIL operations: from values of a program to parameters of Python functions.

An operation is implemented by a function whose parameters carry the names of the MIL operation's;
a parameter without default is required. What a parameter is annotated with says how its value is
handed over: `Tensor` as computed, `Tensors` as a list of them, and numbers, flags, tuples and
strings as plain Python values.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

Value = Tensor | str
"""What a name of a program stands for while it runs."""
Ints = tuple[int, ...]
Bools = tuple[bool, ...]
Tensors = tuple[Tensor, ...]
Result = Tensor | Tensors
Function = Callable[..., Result]


@dataclass(frozen=True)
class Parameter:
    """One parameter of an implementation.

    Attributes:
        annotation: What its value is converted to.
        is_required: Whether the operation must state it.
    """

    annotation: Any
    is_required: bool


@dataclass(frozen=True)
class Implementation:
    """A function that executes one kind of operation.

    Attributes:
        function: The function.
        parameters: Its parameters by name.
    """

    function: Function
    parameters: Mapping[str, Parameter]

    def check_names(self, given: set[str]) -> None:
        """Check that exactly known parameters are given.

        Raises:
            ValueError: One is not known here, or a required one is missing.
        """
        unknown = given - set(self.parameters)
        if unknown:
            raise ValueError(
                f"argument {', '.join(sorted(unknown))} is not known; known are "
                f"{', '.join(self.parameters)}"
            )
        missing = {name for name, each in self.parameters.items() if each.is_required} - given
        if missing:
            raise ValueError(f"argument {', '.join(sorted(missing))} is missing")

    def __call__(self, arguments: Mapping[str, tuple[Value, ...]]) -> Tensors:
        """Execute the operation.

        Args:
            arguments: The values bound to each parameter.

        Returns:
            Its results, in order.

        Raises:
            ValueError: An argument has a type or value that the function does not take.
        """
        plain = {
            name: _convert(name, values, self.parameters[name].annotation)
            for name, values in arguments.items()
        }
        result = self.function(**plain)
        return result if isinstance(result, tuple) else (result,)


def implementation(function: Function) -> Implementation:
    """Describe a function by its signature.

    >>> def clip(x: Tensor, alpha: float = 0.0) -> Tensor: ...
    >>> implementation(clip).parameters["alpha"]
    Parameter(annotation=<class 'float'>, is_required=False)
    """
    hints = get_type_hints(function)
    return Implementation(
        function,
        {
            name: Parameter(
                _without_none(hints[name]), parameter.default is inspect.Parameter.empty
            )
            for name, parameter in inspect.signature(function).parameters.items()
        },
    )


def place_of(axis: int, rank: int) -> int:
    """Return an axis counted from the front.

    Raises:
        ValueError: There is no such axis.

    >>> place_of(-1, 3)
    2
    """
    if not -rank <= axis < rank:
        raise ValueError(f"axis must lie between {-rank} and {rank - 1}, got {axis}")
    return axis % rank


def _without_none(annotation: Any) -> Any:  # noqa: ANN401 - annotations are any objects
    if isinstance(annotation, UnionType):
        (annotation,) = (kind for kind in get_args(annotation) if kind is not NoneType)
    return annotation


def _convert(name: str, values: tuple[Value, ...], annotation: Any) -> Any:  # noqa: ANN401
    if annotation == Tensors:
        return tuple(_tensor(name, value) for value in values)
    if len(values) != 1:
        raise ValueError(f"argument {name} must be one value, got {len(values)}")
    if annotation is str:
        if not isinstance(values[0], str):
            raise ValueError(f"argument {name} must be a string, got a tensor")
        return values[0]
    tensor = _tensor(name, values[0])
    return tensor if annotation is Tensor else _PLAIN[annotation](name, tensor)


def _tensor(name: str, value: Value) -> Tensor:
    if isinstance(value, str):
        raise ValueError(f"argument {name} must be a tensor, got the string '{value}'")
    return value


def _int(name: str, tensor: Tensor) -> int:
    (value,) = _ints(name, _single(name, tensor))
    return value


def _ints(name: str, tensor: Tensor) -> Ints:
    if tensor.dtype not in (torch.int32, torch.int64) or tensor.ndim > 1:
        raise ValueError(f"argument {name} must be integers, got {_described(tensor)}")
    return tuple(tensor.reshape(-1).tolist())


def _bool(name: str, tensor: Tensor) -> bool:
    (value,) = _bools(name, _single(name, tensor))
    return value


def _bools(name: str, tensor: Tensor) -> Bools:
    if tensor.dtype != torch.bool or tensor.ndim > 1:
        raise ValueError(f"argument {name} must be true or false, got {_described(tensor)}")
    return tuple(tensor.reshape(-1).tolist())


def _float(name: str, tensor: Tensor) -> float:
    if tensor.dtype == torch.bool:
        raise ValueError(f"argument {name} must be a number, got {_described(tensor)}")
    return float(_single(name, tensor).item())


def _single(name: str, tensor: Tensor) -> Tensor:
    if tensor.numel() != 1:
        raise ValueError(f"argument {name} must be a single value, got {_described(tensor)}")
    return tensor


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


_PLAIN: Mapping[Any, Callable[[str, Tensor], Any]] = {
    int: _int,
    Ints: _ints,
    bool: _bool,
    Bools: _bools,
    float: _float,
}
