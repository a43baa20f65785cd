"""How some PyTorch operators are written in ONNX, so that runtimes recognise and fuse them.

Figures are of ONNX Runtime 1.31 on one x86 core. GELU in PyTorch's translation,
`x * (0.5 * (1 + erf))`, matches none of ONNX Runtime's patterns and cost 256 of the 890 ms of the
EdgeSAM encoder at 1024 pixels, in five passes; in the form below it is one operator of 125 ms.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from onnxscript import opset18

op: Any = opset18  # its types describe single operators, not how they are put together
Value: TypeAlias = Any


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return our translations by PyTorch operator, for `torch.onnx.export`."""
    return {torch.ops.aten.gelu.default: _gelu, torch.ops.aten.layer_norm.default: _layer_norm}


def _gelu(x: Value, approximate: str = "none") -> Value:
    assert approximate == "none"
    bell = op.Erf(op.Div(x, op.Constant(value_float=math.sqrt(2))))
    doubled = op.Mul(x, op.Add(bell, op.Constant(value_float=1.0)))
    return op.Mul(doubled, op.Constant(value_float=0.5))


def _layer_norm(
    x: Value,
    normalized_shape: Value,
    weight: Value,
    bias: Value,
    eps: float = 1e-5,
    cudnn_enable: bool = False,
) -> Value:
    """Write a norm over the last axis; of three axes, through an axis of one.

    ONNX Runtime fuses a sum of three axes and the norm after it into one operator, which is slower
    than the two: 29 instead of 14 ms for the cells of 16 prompts.
    """
    assert len(normalized_shape) == 1
    if len(x.shape) != 3:
        return op.LayerNormalization(x, weight, bias, axis=-1, epsilon=eps)[0]
    axis = op.Constant(value_ints=[0])
    placed = op.Unsqueeze(x, axis)
    normed, _, _ = op.LayerNormalization(placed, weight, bias, axis=-1, epsilon=eps)
    return op.Squeeze(normed, axis)
