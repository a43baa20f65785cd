"""Weights of Core ML packages in fewer bits, through coremltools.optimize.

Weights of convolutions are compressed and nothing else: positional encodings are sines, which a
palette of a few values would bend. Depthwise convolutions stay as they are, too; they hold a
hundredth of the numbers and most of the damage. For the same reason palettes are for large weights
only; smaller ones, those of the first blocks, become 8-bit linear.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.exporter.coreml_tools import quiet_coremltools
from edgeseg.exporter.targets import CompressionConfig

_OPERATIONS = ("conv", "conv_transpose")
_NUM_BITS = {"palette6": 6, "palette4": 4}
_MAX_ROUNDS = 100


def compress(model: Any, config: CompressionConfig, folder: Path) -> Any:  # noqa: ANN401
    """Return a converted model with its weights in fewer bits.

    Args:
        model: A `coremltools.models.MLModel`.
        config: How, and which weights are too small to be worth it.
        folder: Existing; for temporary files.
    """
    with quiet_coremltools(folder) as coremltools:
        optimize = coremltools.optimize.coreml
        threshold = max(0, config.min_values - 1)  # weights with more numbers are compressed
        weights = optimize.get_weights_metadata(model, threshold)
        sizes = {name: each.val.size for name, each in weights.items() if _is_worth_it(each)}
        large = [name for name, size in sizes.items() if size >= config.palette_min_values]
        if config.kind == "linear8":
            large = []
        if len(large) < len(sizes):
            linear = optimize.OpLinearQuantizerConfig(
                mode="linear_symmetric", weight_threshold=threshold
            )
            small = [name for name in sizes if name not in large]
            settings = optimize.OptimizationConfig(op_name_configs=dict.fromkeys(small, linear))
            model = optimize.linear_quantize_weights(model, settings)
        if large:
            num_bits = _NUM_BITS[config.kind]
            palettes = optimize.OpPalettizerConfig(
                mode="custom",
                lut_function=lambda weight: palette(weight, num_bits),
                weight_threshold=threshold,
            )
            settings = optimize.OptimizationConfig(op_name_configs=dict.fromkeys(large, palettes))
            model = optimize.palettize_weights(model, settings)
        return model


def _is_worth_it(weight: Any) -> bool:  # noqa: ANN401 - coremltools' CoreMLWeightMetaData
    """Whether a constant is the weight of convolutions that mix channels, and nothing else."""
    shape = weight.val.shape
    convolves = all(child.op_type in _OPERATIONS for child in weight.child_ops)
    return convolves and len(shape) == 4 and shape[1] > 1


def palette(weight: NDArray[Any], num_bits: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Choose 2 ** `num_bits` values for a weight by k-means, and the index of each number.

    coremltools would call scikit-learn, which is not needed to cluster numbers on a line: borders
    lie half way between neighbouring centres. The start are quantiles, so the result is always the
    same.

    Source: Lloyd 1982, Least Squares Quantization in PCM.

    Returns:
        The palette, (2 ** num_bits,) of the weight's type in ascending order, and the indices,
        (weight.size,) uint8.

    >>> palette(np.array([5, 1, 5.5, 1.5, 1.25], np.float32), 1)[0].tolist()
    [1.25, 5.25]
    """
    values, places, counts = np.unique(weight, return_inverse=True, return_counts=True)
    values = values.astype(np.float64)
    upto = np.concatenate([[0.0], np.cumsum(counts)])
    sums = np.concatenate([[0.0], np.cumsum(counts * values)])
    num_centers = 2**num_bits
    shares = (np.arange(num_centers) + 0.5) / num_centers
    centers = values[np.searchsorted(upto[1:], shares * weight.size).clip(max=len(values) - 1)]
    for _ in range(_MAX_ROUNDS):
        borders = np.searchsorted(values, (centers[1:] + centers[:-1]) / 2)
        edges = np.concatenate([[0], borders, [len(values)]])
        total = np.diff(upto[edges])
        moved = np.where(total > 0, np.diff(sums[edges]) / np.maximum(total, 1), centers)
        if np.array_equal(moved, centers):
            break
        centers = moved
    centers = np.sort(centers).astype(weight.dtype)
    borders = (centers[1:].astype(np.float64) + centers[:-1]) / 2
    nearest = np.searchsorted(borders, values).astype(np.uint8)
    return centers, nearest[places.reshape(-1)]
