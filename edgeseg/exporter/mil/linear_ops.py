"""Matrix products of MIL: linear layers, matmul, einsum, attention.

Source: the sections on linear operations and transformers of the MIL operation reference.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.exporter.mil.arguments import Function, Tensors

_EQUATIONS = {"abcd,adce->abce", "abc,cbd->abd"}
"""The two products that MIL documents, with the letters in order of appearance."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map (..., D_in) by a (D_out, D_in) weight to (..., D_out)."""
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Return the matrix product of the last two dimensions, the others broadcast."""
    if transpose_x and x.ndim < 2 or transpose_y and y.ndim < 2:
        raise ValueError("a vector cannot be transposed; transpose_x and transpose_y need matrices")
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


def einsum(values: Tensors, equation: str) -> Tensor:
    """Return one of the two documented products of two tensors, by its equation."""
    letters: dict[str, str] = {}
    for letter in filter(str.isalpha, equation):
        letters.setdefault(letter, "abcdefghijklmnopqrstuvwxyz"[len(letters)])
    canonical = "".join(letters.get(character, character) for character in equation)
    if canonical.replace(" ", "") not in _EQUATIONS:
        raise ValueError(f"equation must be one of {sorted(_EQUATIONS)}, got '{equation}'")
    return torch.einsum(equation, *values)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """Attend from (..., L, E) queries to (..., S, E) keys and (..., S, V) values: (..., L, V).

    A bool mask says which keys take part; a float mask is added to the scores.
    """
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.softmax(scores, -1) @ value


OPERATIONS: Mapping[str, Function] = {"linear": linear, "matmul": matmul, "einsum": einsum}
OPERATIONS_IOS18: Mapping[str, Function] = {
    "scaled_dot_product_attention": scaled_dot_product_attention
}
