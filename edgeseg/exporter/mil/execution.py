"""What a run of a program gave."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from edgeseg.exporter.mil.arguments import Value


@dataclass(frozen=True)
class NonFinite:
    """Where a run first had an inf or nan.

    Attributes:
        kind: Kind of the operation; "input" if it was given.
        output: Name of the value.
        num_inf: How many of its elements are infinite.
        num_nan: How many are not a number.
    """

    kind: str
    output: str
    num_inf: int
    num_nan: int

    def __str__(self) -> str:
        return f"{self.kind} '{self.output}' has {self.num_inf} inf and {self.num_nan} nan"


@dataclass(frozen=True)
class Execution:
    """The values of one run.

    Attributes:
        outputs: By name: float32 for every floating type, else the declared integer or bool type.
        first_non_finite: Where inf or nan came up first; None if everything was finite. Constants
            of the program do not count, what is computed from them does.
        kept: The intermediate values that were asked for, in the same types.
    """

    outputs: Mapping[str, np.ndarray]
    first_non_finite: NonFinite | None = None
    kept: Mapping[str, np.ndarray] = field(default_factory=dict)


def find_non_finite(kind: str, values: Mapping[str, Value]) -> NonFinite | None:
    """Return the first of these values that has an inf or nan.

    Args:
        kind: What gave the values.
        values: By name.
    """
    for name, value in values.items():
        if isinstance(value, str) or not value.is_floating_point():
            continue
        if not bool(torch.isfinite(value).all()):
            return NonFinite(kind, name, int(value.isinf().sum()), int(value.isnan().sum()))
    return None
