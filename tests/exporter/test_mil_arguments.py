"""Arguments that no converter writes: each is refused with its name, value and what would do."""

import pytest
import torch
from torch import Tensor

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.arguments import implementation
from edgeseg.exporter.mil.operation_sets import implementations
from edgeseg.exporter.mil.typed_values import value_of
from edgeseg.exporter.mil.values import Constant

X = torch.arange(6.0).reshape(2, 3)
IMAGE = torch.zeros(1, 2, 3, 3)
ONES = {"x": IMAGE, "kernel_sizes": (1, 1)}


def tensor(value):
    return value if isinstance(value, str | Tensor) else torch.tensor(value)


def execute(kind, opset="CoreML6", **arguments):
    """Execute an operation on plain Python values; a list stands for several bindings."""
    bound = {
        name: tuple(map(tensor, value)) if isinstance(value, list) else (tensor(value),)
        for name, value in arguments.items()
    }
    return implementations(opset)[kind](bound)


REFUSED = {
    "number as text": ("softmax", {"x": X, "axis": "one"}, "axis must be a tensor, got the string"),
    "text as number": ("gelu", {"x": X, "mode": 1}, "mode must be a string, got a tensor"),
    "float as integer": ("softmax", {"x": X, "axis": 0.5}, "integers, got float32 of shape"),
    "integer as flag": ("reduce_sum", {"x": X, "keep_dims": 1}, "keep_dims must be true or false"),
    "flag as number": ("clip", {"x": X, "alpha": True, "beta": 1.0}, "alpha must be a number"),
    "several as one": (
        "clip",
        {"x": X, "alpha": (1.0, 2.0), "beta": 3.0},
        "alpha must be a single",
    ),
    "matrix as list": (
        "tile",
        {"x": X, "reps": ((1,), (1,))},
        "reps must be integers, got int64 of",
    ),
    "list as one": ("relu", {"x": [X, X]}, "x must be one value, got 2"),
    "axis too large": ("gather", {"x": X, "indices": (0,), "axis": 2}, "between -2 and 1, got 2"),
    "numbers as flags": ("logical_not", {"x": X}, "operands must be bool, got torch.float32"),
    "cast to text": ("cast", {"x": X, "dtype": "string"}, "dtype must be a type of numbers"),
    "prelu": ("prelu", {"x": IMAGE, "alpha": (0.1,)}, r"alpha must have 2 values, got \(1,\)"),
    "conv rank": ("conv", {"x": X, "weight": X}, r"1 to 3 spatial dimensions, got shape \(2, 3\)"),
    "conv pad": (
        "conv",
        {"x": IMAGE, "weight": IMAGE, "pad_type": "custom", "pad": (1, 1)},
        r"pad must have 4 values, got \(1, 1\)",
    ),
    "conv_transpose shape": (
        "conv_transpose",
        {"x": IMAGE, "weight": torch.zeros(2, 5, 1, 1), "output_shape": (1, 2, 3, 3)},
        "output_shape must begin with",
    ),
    "ceil_mode": ("max_pool", {**ONES, "pad_type": "same", "ceil_mode": True}, "ceil_mode needs"),
    "vector": (
        "matmul",
        {"x": X[0], "y": X.T, "transpose_x": True},
        "a vector cannot be transposed",
    ),
    "l2_norm": ("l2_norm", {"x": X}, r"at least 3 dimensions, got shape \(2, 3\)"),
    "no axes": ("reduce_sum", {"x": X, "axes": torch.zeros(0, dtype=torch.int32)}, "got none"),
    "index type": ("reduce_argmax", {"x": X, "output_dtype": "fp16"}, "indices must be one of"),
    "topk": ("topk", {"x": X, "k": 4}, "k must be between 1 and 3, got 4"),
    "slice": ("slice_by_index", {"x": X, "begin": (0,), "end": (1,)}, "must have 2 values each"),
    "slice_by_size": ("slice_by_size", {"x": X, "begin": (0,), "size": (1,)}, "must have 2 values"),
    "batch_dims": (
        "gather",
        {"x": X, "indices": ((0,), (1,)), "axis": 0, "batch_dims": 1},
        "batch_dims must lie before axis 0, got 1",
    ),
    "batches": (
        "gather",
        {"x": X, "indices": ((0,),), "axis": 1, "batch_dims": 1},
        "first 1 dimensions of x and indices must be equal",
    ),
    "batches of positions": (
        "gather_nd",
        {"x": X, "indices": ((0,),), "batch_dims": 1},
        "first 1 dimensions of x and indices must be equal",
    ),
    "other sizes": (
        "gather_along_axis",
        {"x": X, "indices": ((0,),), "axis": 1},
        "may differ in dimension 1 only",
    ),
    "float positions": ("gather", {"x": X, "indices": (0.0,)}, "indices must be integers"),
    "no step": ("range_1d", {"start": 0, "end": 1, "step": 0}, "step must not be 0"),
    "uneven split": (
        "split",
        {"x": X, "axis": 1, "num_splits": 2},
        "num_splits must divide 3, got 2",
    ),
    "two splits": (
        "split",
        {"x": X, "axis": 1, "num_splits": 3, "split_sizes": (1, 2)},
        r"num_splits 3 contradicts split_sizes \(1, 2\)",
    ),
    "tile": ("tile", {"x": X, "reps": (1,)}, r"reps must have 2 values, got \(1,\)"),
    "odd pad": ("pad", {"x": X, "pad": (1, 1, 1)}, "pad must have two amounts"),
    "negative pad": ("pad", {"x": X, "pad": (-1, 0)}, "pad must have two amounts"),
    "axes twice": (
        "expand_dims",
        {"x": X, "axes": (0, -4)},
        r"axes must be different, got \(0, -4\)",
    ),
    "offset": (
        "constexpr_blockwise_shift_scale",
        {"data": ((1, 2),), "scale": ((1.0, 1.0),), "offset": ((1,),)},
        r"offset must have shape \(1, 2\)",
    ),
    "blocks": (
        "constexpr_blockwise_shift_scale",
        {"data": ((1, 2, 3),), "scale": ((1.0, 1.0),)},
        r"blocks of \(1, 2\) do not divide a tensor of \(1, 3\)",
    ),
    "cast type": ("constexpr_cast", {"source_val": X, "output_dtype": "fp16"}, "must be fp32, got"),
    "palette": ("constexpr_lut_to_dense", {"indices": (0,), "lut": X}, "lut must be groups of 1"),
    "index beyond the palette": (
        "constexpr_lut_to_dense",
        {"indices": (0, 2), "lut": (((1.0,), (2.0,)),)},
        "indices reach 2 in palettes of 2 colours",
    ),
    "mask": (
        "constexpr_sparse_to_dense",
        {"nonzero_data": (1.0,), "mask": (1, 1)},
        "mask must have 1 bits set, got 2",
    ),
    "scale": (
        "constexpr_affine_dequantize",
        {"quantized_data": (1, 2, 3), "zero_point": 0, "scale": (1.0, 2.0), "axis": 0},
        r"must have 1 or 3 values, got \(2,\)",
    ),
    "resized_dims": (
        "resize",
        {"x": IMAGE, "shape": (2, 2, 2), "resized_dims": 3},
        "resized_dims must be 1 or 2",
    ),
    "nearest": (
        "resize",
        {
            "x": IMAGE,
            "shape": (6, 6),
            "resized_dims": 2,
            "interpolation_mode": "NEAREST_NEIGHBOR",
            "sampling_mode": "ALIGN_CORNERS",
        },
        "'NEAREST_NEIGHBOR' with sampling_mode 'ALIGN_CORNERS' is not known",
    ),
    "integers between": (
        "resize",
        {"x": IMAGE.int(), "shape": (6, 6), "resized_dims": 2},
        "x must be floats to be interpolated",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_cannot_be_meant_are_refused(case):
    kind, arguments, message = REFUSED[case]

    with pytest.raises(ValueError, match=message):
        execute(kind, "CoreML8", **arguments)


def test_parameters_are_read_from_the_signature():
    def call(x: Tensor, axis: int | None = None) -> Tensor:
        return x if axis is None else x.sum(axis)

    described = implementation(call)

    assert described.parameters["x"].is_required
    assert described.parameters["axis"].annotation is int
    assert described({"x": (X,), "axis": (torch.tensor(1),)})[0].tolist() == [3, 12]
    with pytest.raises(ValueError, match="argument x is missing"):
        described.check_names({"axis"})


def test_vectors_are_multiplied_with_matrices():
    # No program for it can be built: coremltools declares a wrong shape for this case.
    (product,) = execute("matmul", x=X[1], y=X.T.reshape(1, 3, 2))

    assert product.tolist() == [[14, 50]]  # 3*0 + 4*1 + 5*2, 3*3 + 4*4 + 5*5


def test_lists_of_constants_are_no_arguments():
    with pytest.raises(ExportError, match="a list of constants is not known as an argument"):
        value_of(Constant(None, (Constant(None, "a"),)))
