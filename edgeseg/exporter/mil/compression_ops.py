"""Compressed constants of MIL: quantised, palettized, sparse and half-precision weights.

Source: `constexpr_*` in the MIL operation reference, in the form of iOS 16 and that of iOS 18.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from edgeseg.exporter.mil.arguments import Function, Ints, place_of
from edgeseg.exporter.mil.element_types import element_type, unpack_elements


def affine_dequantize(
    quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int
) -> Tensor:
    """Return scale * (quantized_data - zero_point), both per tensor or along an axis."""
    shape = [1] * quantized_data.ndim
    shape[axis] = -1
    steps = quantized_data - _along(zero_point, shape, quantized_data.shape[axis])
    return _along(scale, shape, quantized_data.shape[axis]) * steps


def blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """Return scale * (data - offset), each of them constant over blocks of `data`."""
    if offset is not None:
        if offset.shape != scale.shape:
            raise ValueError(f"offset must have shape {tuple(scale.shape)}, got {offset.shape}")
        data = data - _over_blocks(offset, tuple(data.shape))
    return _over_blocks(scale, tuple(data.shape)) * data


def cast_constant(source_val: Tensor, output_dtype: str) -> Tensor:
    """Return a half-precision constant in single precision."""
    if output_dtype != "fp32":
        raise ValueError(f"output_dtype must be fp32, got '{output_dtype}'")
    return source_val


def lut_to_dense(indices: Tensor, lut: Tensor, shape: Ints) -> Tensor:
    """Return the palette's colours at indices packed into bytes, as iOS 16 stores them."""
    num_bits = _num_bits(lut.numel(), (1, 2, 4, 6, 8))
    places = _unpacked(indices, f"uint{num_bits}", shape)
    return lut.index_select(0, places).reshape(shape)


def grouped_lut_to_dense(indices: Tensor, lut: Tensor, vector_axis: int | None = None) -> Tensor:
    """Return the palettes' colours at indices, as iOS 18 stores them.

    Args:
        indices: (*K) integer.
        lut: (*G, palette size, vector size); each of G divides the one of K. A group of indices
            has its own palette.
        vector_axis: Dimension along which the elements of a colour lie; None for single numbers.
    """
    vector_size = lut.shape[-1]
    if lut.ndim != indices.ndim + 2 or (vector_axis is None and vector_size != 1):
        raise ValueError(
            f"lut must be groups of {indices.ndim} dimensions, palette and vector (with a "
            f"vector_axis), got shape {tuple(lut.shape)} and vector_axis {vector_axis}"
        )
    num_bits = _num_bits(lut.shape[-2], (1, 2, 3, 4, 6, 8))
    if indices.numel() and int(indices.max()) >= 2**num_bits:
        raise ValueError(f"indices reach {int(indices.max())} in palettes of {2**num_bits} colours")
    groups = torch.arange(math.prod(lut.shape[:-2])).reshape(lut.shape[:-2])
    group = _over_blocks(groups, tuple(indices.shape))
    vectors = lut.reshape(-1, vector_size)[group * 2**num_bits + indices]  # (*K, vector size)
    if vector_axis is None:
        return vectors.squeeze(-1)
    axis = place_of(vector_axis, indices.ndim)
    return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1)


def sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Ints) -> Tensor:
    """Return values at the bits set in a packed mask, zeros elsewhere, as iOS 16 stores them."""
    return masked_to_dense(nonzero_data, _unpacked(mask, "uint1", shape).reshape(shape))


def masked_to_dense(nonzero_data: Tensor, mask: Tensor) -> Tensor:
    """Return values where a mask is set, zeros elsewhere, as iOS 18 stores them."""
    kept = mask != 0
    if int(kept.sum()) != nonzero_data.numel():
        raise ValueError(f"mask must have {nonzero_data.numel()} bits set, got {int(kept.sum())}")
    dense = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    dense[kept] = nonzero_data.reshape(-1)
    return dense


def _along(parameter: Tensor, shape: list[int], size: int) -> Tensor:
    if parameter.numel() not in (1, size) or parameter.ndim > 1:
        raise ValueError(
            f"scale and zero_point must have 1 or {size} values, got {tuple(parameter.shape)}"
        )
    return parameter.reshape(shape if parameter.ndim else ())


def _over_blocks(parameter: Tensor, shape: Ints) -> Tensor:
    """Repeat each element over its block, so that the result has `shape`."""
    if parameter.ndim != len(shape) or any(
        size % count for size, count in zip(shape, parameter.shape, strict=True)
    ):
        raise ValueError(f"blocks of {tuple(parameter.shape)} do not divide a tensor of {shape}")
    for axis, size in enumerate(shape):
        parameter = parameter.repeat_interleave(size // parameter.shape[axis], axis)
    return parameter


def _num_bits(palette_size: int, known: Ints) -> int:
    if palette_size not in [2**bits for bits in known]:
        raise ValueError(f"a palette must have 2 to the power of {known} colours: {palette_size}")
    return palette_size.bit_length() - 1


def _unpacked(packed: Tensor, dtype: str, shape: Ints) -> Tensor:
    stored = packed.to(torch.uint8).numpy().tobytes()
    values = unpack_elements(stored, element_type(dtype), math.prod(shape))
    return torch.from_numpy(values.astype(np.int64))


OPERATIONS: Mapping[str, Function] = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_cast": cast_constant,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_sparse_to_dense": sparse_to_dense,
}
OPERATIONS_IOS18: Mapping[str, Function] = {
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_lut_to_dense": grouped_lut_to_dense,
    "constexpr_sparse_to_dense": masked_to_dense,
}
