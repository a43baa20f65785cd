import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from mil_programs import IOS16, IOS18, edited, operation_of, run_program, save_program

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package


def decompressed(tmp_path, build, shape, target=IOS16):
    """Return a compressed constant as the interpreter sees it, added to zeros."""
    zeros = np.zeros(shape, np.float32)
    path = tmp_path / "a.mlpackage"
    return run_program(path, lambda x: {"y": mb.add(x=x, y=build())}, zeros, target=target)["y"]


def test_quantised_weights_have_a_scale_and_zero_point_along_an_axis(tmp_path):
    weight = decompressed(
        tmp_path,
        lambda: mb.constexpr_affine_dequantize(
            quantized_data=np.uint8([[0, 10, 255], [1, 2, 3]]),
            zero_point=np.uint8([10, 2]),
            scale=np.float32([0.5, 2.0]),
            axis=0,
        ),
        (2, 3),
    )

    assert weight.tolist() == [[-5, 0, 122.5], [-2, 0, 2]]


def test_quantised_weights_may_share_one_scale(tmp_path):
    weight = decompressed(
        tmp_path,
        lambda: mb.constexpr_affine_dequantize(
            quantized_data=np.int8([[-128, 127]]),
            zero_point=np.int8(-1),
            scale=np.float32(0.25),
            axis=1,
        ),
        (1, 2),
    )

    assert weight.tolist() == [[-31.75, 32.0]]


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_palettes_of_every_size(tmp_path, bits):
    palette = np.random.default_rng(bits).normal(size=2**bits).astype(np.float32)
    places = np.random.default_rng(9).integers(0, 2**bits, 15)
    # The bits of all indices in a row, lowest bit first, eight of them to a byte.
    row = "".join(format(place, f"0{bits}b")[::-1] for place in places)
    stored = np.uint8([int(row[i : i + 8][::-1], 2) for i in range(0, len(row), 8)])

    weight = decompressed(
        tmp_path,
        lambda: mb.constexpr_lut_to_dense(indices=stored, lut=palette, shape=np.uint32([3, 5])),
        (3, 5),
    )

    np.testing.assert_array_equal(weight, palette[places].reshape(3, 5))


def test_sparse_weights_are_filled_with_zeros(tmp_path):
    weight = decompressed(
        tmp_path,
        lambda: mb.constexpr_sparse_to_dense(
            nonzero_data=np.float32([3, 5]), mask=np.uint8([0b00001100]), shape=np.uint32([5])
        ),
        (5,),
    )

    assert weight.tolist() == [0, 0, 3, 5, 0]


def test_half_precision_constants_are_widened(tmp_path):
    value = np.float16([0.1, -3.0])

    weight = decompressed(
        tmp_path, lambda: mb.constexpr_cast(source_val=value, output_dtype="fp32"), (2,)
    )

    np.testing.assert_array_equal(weight, value.astype(np.float32))


def test_block_wise_quantised_weights_of_ios_18(tmp_path):
    data = np.array([[-8, 7, 1, 2], [3, 4, 5, 6]], types.np_int4_dtype)
    scale = np.float32([[1, 10], [100, 1000]])  # blocks of 1 x 2
    offset = np.array([[1, 0], [0, 2]], types.np_int4_dtype)

    weight = decompressed(
        tmp_path,
        lambda: mb.constexpr_blockwise_shift_scale(data=data, scale=scale, offset=offset),
        (2, 4),
        IOS18,
    )

    assert weight.tolist() == [[-9, 6, 10, 20], [300, 400, 3000, 4000]]


def test_grouped_palettes_of_ios_18(tmp_path):
    places = np.array([[2, 3], [3, 0], [1, 0], [3, 0], [2, 1], [0, 3]], types.np_uint2_dtype)
    palettes = np.float32([1, 5, 9, 13, 2, 10, 18, 26]).reshape(2, 1, 4, 1)

    weight = decompressed(
        tmp_path, lambda: mb.constexpr_lut_to_dense(indices=places, lut=palettes), (6, 2), IOS18
    )

    # The example of the operation reference: three rows for each palette.
    assert weight.tolist() == [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]


@pytest.mark.parametrize("axis", [1, 2])
def test_vector_palettes_of_ios_18(tmp_path, axis):
    places = np.array([[[0, 0], [1, 0]], [[1, 1], [0, 0]]], types.np_uint1_dtype)
    palette = np.float32([[1, 2, 3], [-1, -2, -3]]).reshape(1, 1, 1, 2, 3)
    shape = (2, 6, 2) if axis == 1 else (2, 2, 6)

    weight = decompressed(
        tmp_path,
        lambda: mb.constexpr_lut_to_dense(indices=places, lut=palette, vector_axis=axis),
        shape,
        IOS18,
    )

    a, b = [1, 2, 3], [-1, -2, -3]  # the two colours, as in the operation reference
    if axis == 1:
        columns = [[a + b, a + a], [b + a, b + a]]  # for each element, its two columns
        expected = [np.transpose(pair).tolist() for pair in columns]
    else:
        expected = [[a + a, b + a], [b + b, a + a]]
    assert weight.tolist() == expected


def test_palettes_may_be_quantised_themselves_in_ios_18(tmp_path):
    places = np.array([[1, 0, 1]], types.np_uint1_dtype)
    palette = np.int8([2, 4]).reshape(1, 1, 2, 1)

    def build():
        dense = mb.constexpr_lut_to_dense(indices=places, lut=palette)
        return mb.constexpr_blockwise_shift_scale(data=dense, scale=np.float32([[0.5]]))

    assert decompressed(tmp_path, build, (1, 3), IOS18).tolist() == [[2, 1, 2]]


def test_masked_weights_of_ios_18(tmp_path):
    mask = np.array([[0, 1], [1, 0]], types.np_uint1_dtype)

    weight = decompressed(
        tmp_path,
        lambda: mb.constexpr_sparse_to_dense(nonzero_data=np.float32([3, 5]), mask=mask),
        (2, 2),
        IOS18,
    )

    assert weight.tolist() == [[0, 3], [5, 0]]


def test_decompressed_weights_are_rounded_to_their_type(tmp_path):
    def build(x):
        weight = mb.constexpr_affine_dequantize(
            quantized_data=np.uint8([33]),
            zero_point=np.uint8([0]),
            scale=np.float16([0.1]),
            axis=0,
        )
        return {"y": mb.add(x=x, y=mb.cast(x=weight, dtype="fp32"))}

    outputs = run_program(tmp_path / "a.mlpackage", build, np.zeros(1, np.float32))

    exact = 33 * float(np.float16(0.1))  # 3.29919...
    assert outputs["y"].item() == float(np.float16(exact)) != exact


def test_damaged_compression_is_refused(tmp_path):
    def build(x):
        weight = mb.constexpr_lut_to_dense(
            indices=np.uint8([0b0110]), lut=np.float32([1, 2]), shape=np.uint32([4])
        )
        return {"y": mb.add(x=x, y=weight)}

    path = save_program(tmp_path / "a.mlpackage", build, np.zeros(4, np.float32))
    with edited(path) as model:
        lut = operation_of(model, "constexpr_lut_to_dense").attributes["lut"]
        lut.type.tensorType.dimensions[0].constant.size = 3
        lut.immediateValue.tensor.floats.values.append(3)

    with pytest.raises(ExportError, match="constexpr_lut_to_dense .* a palette must have 2 to the"):
        Interpreter(load_package(path))
