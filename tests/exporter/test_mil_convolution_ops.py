import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from mil_programs import block_of, edited, operation_of, run_program, save_program

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package

RANDOM = np.random.default_rng(0)


def drawn(*shape):
    """Small whole numbers, so that sums are exact."""
    return RANDOM.integers(-4, 5, shape).astype(np.float32)


def convolved(x, weight, padding, strides, dilations, groups=1):
    """Convolution by its definition: one product after the other."""
    x = np.pad(x, [(0, 0), (0, 0), *padding])
    batch, channels = x.shape[:2]
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    sizes = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, strides, strict=True)]
    y = np.zeros((batch, weight.shape[0], *sizes), np.float32)
    per_group_in, per_group_out = channels // groups, weight.shape[0] // groups
    for b, o, *at in np.ndindex(y.shape):
        first = (o // per_group_out) * per_group_in
        for c, *k in np.ndindex(weight.shape[1:]):
            source = [a * s + i * d for a, s, i, d in zip(at, strides, k, dilations, strict=True)]
            y[(b, o, *at)] += x[(b, first + c, *source)] * weight[(o, c, *k)]
    return y


def spread(x, weight, strides, dilations, groups=1):
    """Transposed convolution by its definition: every input is spread over the output."""
    per_group_in, per_group_out = x.shape[1] // groups, weight.shape[1]
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    sizes = [(n - 1) * s + r for n, s, r in zip(x.shape[2:], strides, reach, strict=True)]
    y = np.zeros((x.shape[0], per_group_out * groups, *sizes), np.float32)
    for b, c, *at in np.ndindex(x.shape):
        first = (c // per_group_in) * per_group_out
        for o, *k in np.ndindex(weight.shape[1:]):
            target = [a * s + i * d for a, s, i, d in zip(at, strides, k, dilations, strict=True)]
            y[(b, first + o, *target)] += x[(b, c, *at)] * weight[(c, o, *k)]
    return y


def outputs_of(tmp_path, build, x):
    return run_program(tmp_path / "a.mlpackage", lambda x: {"y": build(x)}, x)["y"]


def test_convolution_with_uneven_padding_strides_dilations_groups_and_bias(tmp_path):
    x, weight, bias = drawn(2, 4, 7, 9), drawn(6, 2, 3, 2), drawn(6)

    y = outputs_of(
        tmp_path,
        lambda x: mb.conv(
            x=x,
            weight=weight,
            bias=bias,
            strides=[2, 1],
            pad_type="custom",
            pad=[1, 0, 2, 3],  # top, bottom, left, right
            dilations=[1, 2],
            groups=2,
        ),
        x,
    )

    expected = convolved(x, weight, [(1, 0), (2, 3)], [2, 1], [1, 2], groups=2)
    np.testing.assert_array_equal(y, expected + bias[:, None, None])


def test_depthwise_convolution(tmp_path):
    x, weight = drawn(1, 3, 4, 5), drawn(3, 1, 3, 3)

    y = outputs_of(
        tmp_path,
        lambda x: mb.conv(x=x, weight=weight, pad_type="custom", pad=[1, 1, 1, 1], groups=3),
        x,
    )

    expected = convolved(x, weight, [(1, 1), (1, 1)], [1, 1], [1, 1], groups=3)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("rank", [1, 3])
def test_convolution_of_other_ranks_without_padding(tmp_path, rank):
    x, weight = drawn(1, 2, *[5, 4, 6][:rank]), drawn(3, 2, *[2, 3, 2][:rank])

    y = outputs_of(tmp_path, lambda x: mb.conv(x=x, weight=weight, pad_type="valid"), x)

    np.testing.assert_array_equal(y, convolved(x, weight, [(0, 0)] * rank, [1] * rank, [1] * rank))


@pytest.mark.parametrize(
    ("pad_type", "padding"),
    # Height 5 with stride 2 gives 3 outputs, which a kernel of 4 covers with 2 * 2 + 4 = 8
    # elements: 3 more than there are. Width 6 with stride 1 and a kernel of 3 needs 2 more.
    [("same", [(1, 2), (1, 1)]), ("same_lower", [(2, 1), (1, 1)])],
)
def test_same_padding_gives_the_size_over_the_stride(tmp_path, pad_type, padding):
    x, weight = drawn(1, 1, 5, 6), drawn(1, 1, 4, 3)

    y = outputs_of(
        tmp_path, lambda x: mb.conv(x=x, weight=weight, strides=[2, 1], pad_type=pad_type), x
    )

    assert y.shape == (1, 1, 3, 6)
    np.testing.assert_array_equal(y, convolved(x, weight, padding, [2, 1], [1, 1]))


def test_transposed_convolution_with_strides_groups_padding_and_bias(tmp_path):
    x, weight, bias = drawn(2, 4, 3, 2), drawn(4, 3, 3, 2), drawn(6)

    y = outputs_of(
        tmp_path,
        lambda x: mb.conv_transpose(
            x=x,
            weight=weight,
            bias=bias,
            pad=[1, 0, 0, 2],
            pad_type="custom",
            strides=[2, 3],
            dilations=[2, 1],
            groups=2,
        ),
        x,
    )

    # Full height (3 - 1) * 2 + 5 = 9 and width (2 - 1) * 3 + 2 = 5, minus the padding.
    expected = spread(x, weight, [2, 3], [2, 1], groups=2)[:, :, 1:, :-2]
    assert y.shape == (2, 6, 8, 3)
    np.testing.assert_array_equal(y, expected + bias[:, None, None])


def test_transposed_convolution_that_doubles(tmp_path):
    x, weight = drawn(1, 2, 2, 3), drawn(2, 1, 2, 2)

    y = outputs_of(tmp_path, lambda x: mb.conv_transpose(x=x, weight=weight, strides=[2, 2]), x)

    # Kernel and stride are equal: every pixel becomes a tile of its own.
    tiles = np.einsum("bchw,coij->bohiwj", x, weight).reshape(1, 1, 4, 6)
    np.testing.assert_array_equal(y, tiles)


def test_output_shape_reaches_over_the_full_result_with_the_bias(tmp_path):
    x, weight, bias = drawn(1, 1, 2, 2), drawn(1, 1, 1, 2), np.float32([7])

    y = outputs_of(
        tmp_path,
        lambda x: mb.conv_transpose(
            x=x, weight=weight, bias=bias, strides=[2, 2], output_shape=[1, 1, 4, 4]
        ),
        x,
    )

    full = spread(x, weight, [2, 2], [1, 1])  # 3 rows of 4
    expected = np.pad(full, [(0, 0), (0, 0), (0, 1), (0, 0)]) + 7
    np.testing.assert_array_equal(y, expected)


def test_transposed_convolution_with_same_padding(tmp_path):
    x, weight = drawn(1, 1, 3, 3), drawn(1, 1, 4, 2)

    y = outputs_of(
        tmp_path,
        lambda x: mb.conv_transpose(x=x, weight=weight, strides=[1, 2], pad_type="same"),
        x,
    )

    # Full result 6 x 6; 3 rows are wanted, so 1 goes at the top and 2 at the bottom.
    np.testing.assert_array_equal(y, spread(x, weight, [1, 2], [1, 1])[:, :, 1:4])


def change_text(path, old, new):
    """Replace one string constant of a saved program."""
    with edited(path) as model:
        constants = (each for each in block_of(model).operations if each.type == "const")
        texts = (each.attributes["val"].immediateValue.tensor.strings.values for each in constants)
        (text,) = (each for each in texts if list(each) == [old])
        text[0] = new


def test_unknown_pad_type_is_refused(tmp_path):
    x, weight = drawn(1, 1, 3, 3), drawn(1, 1, 2, 2)
    path = save_program(
        tmp_path / "a.mlpackage", lambda x: {"y": mb.conv(x=x, weight=weight, pad_type="valid")}, x
    )
    change_text(path, "valid", "circular")

    with pytest.raises(ExportError, match="conv with output 'y' .* same_lower, got 'circular'"):
        Interpreter(load_package(path)).run({"x": x})


def test_transposed_convolution_knows_no_same_lower(tmp_path):
    x, weight = drawn(1, 1, 3, 3), drawn(1, 1, 2, 2)
    path = save_program(
        tmp_path / "a.mlpackage",
        lambda x: {"y": mb.conv_transpose(x=x, weight=weight, pad_type="valid")},
        x,
    )
    change_text(path, "valid", "same_lower")

    with pytest.raises(ExportError, match="must be valid, custom or same, got 'same_lower'"):
        Interpreter(load_package(path)).run({"x": x})


def test_padding_that_contradicts_its_type_is_refused(tmp_path):
    x, weight = drawn(1, 1, 3, 3), drawn(1, 1, 2, 2)
    path = save_program(
        tmp_path / "a.mlpackage",
        lambda x: {"y": mb.conv(x=x, weight=weight, pad_type="custom", pad=[1, 0, 0, 0])},
        x,
    )
    change_text(path, "custom", "valid")

    with pytest.raises(ExportError, match=r"pad must not be given with pad_type 'valid', got \(1"):
        Interpreter(load_package(path)).run({"x": x})


def test_argument_that_is_not_known_is_refused_before_running(tmp_path):
    x, weight = drawn(1, 1, 3, 3), drawn(1, 1, 2, 2)
    path = save_program(tmp_path / "a.mlpackage", lambda x: {"y": mb.conv(x=x, weight=weight)}, x)
    with edited(path) as model:
        conv = operation_of(model, "conv")
        conv.inputs["output_padding"].CopyFrom(conv.inputs["groups"])

    with pytest.raises(ExportError, match="conv with output 'y' .* argument output_padding is not"):
        Interpreter(load_package(path))
