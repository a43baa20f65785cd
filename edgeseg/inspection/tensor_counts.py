"""Sums over the tensors of a weight file."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeseg.inspection.description import TensorFacts

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of tensors that norms collect and nobody learns."""


@dataclass(frozen=True)
class TensorCounts:
    """How much a weight file holds.

    Attributes:
        num_tensors: Tensors.
        num_parameters: Numbers without norm statistics, as model cards count.
        numbers_by_type: All numbers, by element type.
        parameters_by_part: Parameters by the first word of their names.
    """

    num_tensors: int
    num_parameters: int
    numbers_by_type: Mapping[str, int]
    parameters_by_part: Mapping[str, int]


def count_tensors(tensors: Iterable[TensorFacts]) -> TensorCounts:
    """Count the numbers of tensors whose sizes are all known."""
    num_tensors = 0
    by_type: Counter[str] = Counter()
    by_part: Counter[str] = Counter()
    for tensor in tensors:
        num_tensors += 1
        count = math.prod(size for size in tensor.shape if isinstance(size, int))
        by_type[tensor.dtype] += count
        if not tensor.name.endswith(STATISTICS):
            by_part[tensor.name.partition(".")[0]] += count
    return TensorCounts(num_tensors, sum(by_part.values()), dict(by_type), dict(by_part))
