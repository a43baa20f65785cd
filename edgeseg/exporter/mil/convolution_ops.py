"""Convolutions and poolings of MIL, over one, two or three spatial dimensions.

Source: the sections on convolution and pooling of the MIL operation reference. Where its text on
`same` contradicts itself, this follows its formula for the output size: the padding is the least
that gives ceil(size / stride) outputs, and an odd one has its extra element at the end (`same`) or
at the start (`same_lower`).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.exporter.mil.arguments import Function, Ints

_CONVOLUTIONS: Mapping[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: Mapping[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
_AVERAGES: Mapping[int, Callable[..., Tensor]] = {
    1: F.avg_pool1d,
    2: F.avg_pool2d,
    3: F.avg_pool3d,
}
_MAXIMA: Mapping[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve (B, C, *spatial) with a (C_out, C / groups, *kernel) weight."""
    rank = _spatial_rank(x)
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    kernel = _extents(weight.shape[2:], dilations)
    padding = _padding(pad_type, pad, x.shape[2:], kernel, strides)
    if all(before == after for before, after in padding):
        even = tuple(before for before, _ in padding)
        return _CONVOLUTIONS[rank](x, weight, bias, strides, even, dilations, groups)
    padded = F.pad(x, _for_torch(padding))
    return _CONVOLUTIONS[rank](padded, weight, bias, strides, 0, dilations, groups)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve backwards (B, C, *spatial) with a (C, C_out / groups, *kernel) weight.

    Padding takes away from the border of the full result. An output shape decides how far the
    result reaches at the end; beyond the full result there is nothing but the bias.
    """
    rank = _spatial_rank(x)
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    full = _TRANSPOSED[rank](x, weight, None, strides, 0, 0, groups, dilations)
    sizes = full.shape[2:]
    if pad_type not in ("valid", "custom", "same"):
        raise ValueError(f"pad_type must be valid, custom or same, got '{pad_type}'")
    if pad_type == "same":
        _check_unpadded(pad_type, pad)
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        begins = [max(0, size - out) // 2 for size, out in zip(sizes, wanted, strict=True)]
    else:
        padding = _padding(pad_type, pad, sizes, (1,) * rank, (1,) * rank)
        begins = [before for before, _ in padding]
        wanted = [
            size - before - after for size, (before, after) in zip(sizes, padding, strict=True)
        ]
    if output_shape is not None:
        if output_shape[:2] != full.shape[:2] or len(output_shape) != full.ndim:
            raise ValueError(f"output_shape must begin with {full.shape[:2]}, got {output_shape}")
        wanted = list(output_shape[2:])
    ends = [size - begin - out for size, begin, out in zip(sizes, begins, wanted, strict=True)]
    cropped = F.pad(full, _for_torch([(-b, -e) for b, e in zip(begins, ends, strict=True)]))
    return cropped if bias is None else cropped + bias.view(-1, *[1] * rank)


def avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """Average over windows; elements that `ceil_mode` adds beyond the padding never count."""
    rank = _spatial_rank(x)
    strides = strides or (1,) * rank
    padding = _padding(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    beyond = _beyond(pad_type, padding, x.shape[2:], kernel_sizes, strides, ceil_mode)
    counted = torch.ones_like(x[:1, :1])
    counted = F.pad(
        counted, _for_torch(padding), value=0.0 if exclude_padding_from_average else 1.0
    )
    counted = F.pad(counted, _for_torch(beyond))
    padded = F.pad(F.pad(x, _for_torch(padding)), _for_torch(beyond))
    pool = _AVERAGES[rank]
    return pool(padded, kernel_sizes, strides) / pool(counted, kernel_sizes, strides)


def max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Return the largest element of each window; padding never wins."""
    rank = _spatial_rank(x)
    strides = strides or (1,) * rank
    padding = _padding(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    beyond = _beyond(pad_type, padding, x.shape[2:], kernel_sizes, strides, ceil_mode)
    total = [
        (b + more_b, a + more_a) for (b, a), (more_b, more_a) in zip(padding, beyond, strict=True)
    ]
    padded = F.pad(x, _for_torch(total), value=-math.inf)
    return _MAXIMA[rank](padded, kernel_sizes, strides)


def _spatial_rank(x: Tensor) -> int:
    if not 3 <= x.ndim <= 5:
        raise ValueError(f"x must have 1 to 3 spatial dimensions, got shape {tuple(x.shape)}")
    return x.ndim - 2


def _extents(kernel: Sequence[int], dilations: Ints) -> Ints:
    return tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))


def _check_unpadded(pad_type: str, pad: Ints | None) -> None:
    if any(pad or ()):
        raise ValueError(f"pad must not be given with pad_type '{pad_type}', got {pad}")


def _padding(
    pad_type: str, pad: Ints | None, sizes: Sequence[int], kernel: Ints, strides: Ints
) -> list[tuple[int, int]]:
    """Return how many elements come before and after each spatial dimension."""
    if pad_type == "custom":
        pad = pad or (0, 0) * len(sizes)
        if len(pad) != 2 * len(sizes):
            raise ValueError(f"pad must have {2 * len(sizes)} values, got {pad}")
        return list(zip(pad[::2], pad[1::2], strict=True))
    _check_unpadded(pad_type, pad)
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type not in ("same", "same_lower"):
        raise ValueError(f"pad_type must be valid, custom, same or same_lower, got '{pad_type}'")
    padding = []
    for size, extent, stride in zip(sizes, kernel, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + extent - size)
        smaller, larger = total // 2, total - total // 2
        padding.append((smaller, larger) if pad_type == "same" else (larger, smaller))
    return padding


def _beyond(
    pad_type: str,
    padding: list[tuple[int, int]],
    sizes: Sequence[int],
    kernel: Ints,
    strides: Ints,
    ceil_mode: bool,
) -> list[tuple[int, int]]:
    """Return what `ceil_mode` adds at the end, so that the last windows are whole."""
    if not ceil_mode:
        return [(0, 0)] * len(sizes)
    if pad_type in ("same", "same_lower") or any(before != after for before, after in padding):
        raise ValueError(f"ceil_mode needs pad_type valid or an even pad, got {pad_type} {padding}")
    added = []
    for (before, after), size, extent, stride in zip(padding, sizes, kernel, strides, strict=True):
        length = size + before + after
        outputs = math.ceil((length - extent) / stride) + 1
        if (outputs - 1) * stride >= size + before:
            if before + after == 0:
                raise ValueError(f"a window lies outside of {size} elements with ceil_mode")
            outputs -= 1
        added.append((0, max(0, (outputs - 1) * stride + extent - length)))
    return added


def _for_torch(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Return the padding from the last dimension to the first, as `F.pad` takes it."""
    return [amount for pair in reversed(padding) for amount in pair]


OPERATIONS: Mapping[str, Function] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "avg_pool": avg_pool,
    "max_pool": max_pool,
}
