"""Parameters and work of the networks, by one counter for all.

Work is what `torch.utils.flop_counter` counts (matrix products and convolutions), halved to
multiply-accumulates; the network lies on the `meta` device, so nothing is computed.
"""

from dataclasses import dataclass
from functools import lru_cache

COUNTER = "torch.utils.flop_counter, halved"
"""The counter, for tables."""


@dataclass(frozen=True)
class Product:
    """One convolution, matrix product or attention.

    Attributes:
        macs: Multiply-accumulates.
        num_read: Numbers of its inputs, weights included.
        num_written: Numbers of its output.
    """

    macs: int
    num_read: int
    num_written: int


@dataclass(frozen=True)
class NetworkCounts:
    """What a network consists of.

    Attributes:
        num_parameters: Stored numbers without norm statistics, by part.
        macs: Multiply-accumulates of one call by part; the decoder for one prompt of one click.
        num_activations: Numbers that convolutions and matrix products write in one call, by part.
    """

    num_parameters: dict[str, int]
    macs: dict[str, int]
    num_activations: dict[str, int]


@lru_cache(maxsize=32)
def count_network(name: str, image_size: int) -> NetworkCounts:
    """Count a registered network with branches and norms folded, as it is deployed.

    Raises:
        ConfigError: The name is unknown.
        ModuleNotFoundError: PyTorch is not installed.
    """
    from edgeseg.bench.pytorch_counts import count_parts

    return count_parts(name, image_size)
