"""Programs of a few operations, each with one thing that the Neural Engine would not take."""

from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import ExportError
from edgeseg.exporter.lint import Finding, check_lint, lint_coreml
from edgeseg.exporter.mil.features import Feature
from edgeseg.exporter.mil.package import MilPackage
from edgeseg.exporter.mil.program import MilOperation, MilProgram, MilTensor
from edgeseg.exporter.mil.values import Constant, TensorType

HALF = TensorType("fp16", (1, 8, 4, 4))
IMAGE = Feature("x", "fp32", (1, 8, 4, 4), (((1, 1), (8, 8), (4, 4), (4, 4)),))


def operation(kind, output, result=HALF, num_blocks=0, **inputs):
    """An operation with one result; a string names an operand, a constant stands for itself."""
    bound = {
        name: value if isinstance(value, tuple) else (value,) for name, value in inputs.items()
    }
    return MilOperation(kind, output, bound, (MilTensor(output, result),), {}, num_blocks)


def stored(output, shape, dtype="fp16"):
    """A weight of a package."""
    declared = TensorType(dtype, shape)
    constant = Constant(declared, np.zeros(shape, np.float32))
    tensor = MilTensor(output, declared)
    return MilOperation("const", output, {}, (tensor,), {"val": constant})


def text(value):
    return Constant(TensorType("string", ()), value)


def numbers(*values):
    return Constant(TensorType("int32", (len(values),)), np.array(values))


def package(*operations, features=(IMAGE,)):
    """A package whose first operation makes half precision of the input `x`."""
    tensors = tuple(MilTensor(f.name, TensorType(f.dtype, f.shape)) for f in features)
    half = operation("cast", "x16", x="x", dtype=text("fp16"))
    everything = (half, *operations)
    program = MilProgram("CoreML6", tensors, (everything[-1].outputs[0].name,), everything)
    return MilPackage(Path("test.mlpackage"), 7, features, (), program)


def errors(*operations, **settings):
    found = lint_coreml(package(*operations, **settings))
    return [(each.operation, each.name, each.reason) for each in found if each.is_error]


def test_a_convolution_and_an_activation_are_taken():
    weight = stored("weight", (8, 8, 3, 3))
    conv = operation("conv", "y", x="x16", weight="weight")

    assert lint_coreml(package(weight, conv, operation("gelu", "z", x="y"))) == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gather", "done by the CPU"),
        ("scatter_nd", "no hardware path"),
        ("reduce_prod", "no hardware path"),
        ("lstm", "recurrent"),
        ("non_zero", "depends on the data"),
        ("sin", "A15"),
        ("cumsum", "not known to run there"),
        ("no_such_operation", "not known to run there"),
    ],
)
def test_operations_without_a_place_on_the_engine_are_named(kind, reason):
    ((operation_kind, name, why),) = errors(operation(kind, "y", x="x16"))

    assert (operation_kind, name) == (kind, "y")
    assert reason in why


def test_control_flow_is_refused():
    ((kind, _, why),) = errors(operation("relu", "y", num_blocks=2, x="x16"))

    assert kind == "relu"
    assert "control flow" in why


def test_five_dimensions_are_refused():
    result = TensorType("fp16", (1, 8, 2, 2, 4))

    ((_, _, why),) = errors(operation("reshape", "y", result, x="x16"))

    assert "fp16[1, 8, 2, 2, 4]; four dimensions" in why


@pytest.mark.parametrize(
    ("shape", "is_taken"),
    [
        ((1, 4, 1, 16384), True),
        ((1, 4, 1, 16385), False),
        ((1, 4, 16385, 1), False),
        ((1, 16385, 1, 4), True),  # channels may be more
        ((1, 65537, 1, 4), False),
        ((16385,), False),
    ],
)
def test_long_dimensions_are_refused(shape, is_taken):
    found = errors(operation("reshape", "y", TensorType("fp16", shape), x="x16"))

    assert (found == []) == is_taken


def test_open_sizes_are_refused():
    result = TensorType("fp16", (1, None, 4, 4))

    ((_, _, why),) = errors(operation("relu", "y", result, x="x16"))

    assert "fp16[1, ?, 4, 4] of open size" in why


def test_inputs_of_several_shapes_are_refused():
    flexible = Feature("x", "fp32", (1, 8, 4, 4), (((1, 1), (8, 8), (4, 64), (4, 4)),))

    ((kind, name, why),) = errors(operation("relu", "y", x="x16"), features=(flexible,))

    assert (kind, name) == ("input", "x")
    assert "several shapes" in why


def test_inputs_of_enumerated_shapes_are_refused():
    shapes = tuple(((1, 1), (8, 8), (n, n), (4, 4)) for n in (4, 8))
    enumerated = Feature("x", "fp32", (1, 8, 4, 4), shapes)

    assert errors(operation("relu", "y", x="x16"), features=(enumerated,))[0][0] == "input"


def test_large_results_in_single_precision_are_refused():
    result = TensorType("fp32", (1, 8, 96, 96))  # 73,728 numbers

    ((_, name, why),) = errors(operation("relu", "y", result, x="x"))

    assert name == "y"
    assert "73728 numbers in single precision" in why


def test_a_small_beginning_in_single_precision_is_a_note():
    small = TensorType("fp32", (1, 8, 4, 4))
    first, second = operation("sin", "y", small, x="x"), operation("mul", "z", small, x="y", y="y")

    (note,) = lint_coreml(package(first, second, operation("relu", "r", x="x16")))

    assert (note.operation, note.name, note.is_error) == ("sin", "y", False)
    assert "1 other operations" in note.reason
    assert "128 numbers" in note.reason


def test_single_precision_in_the_middle_is_refused():
    """Each change between processors costs more than the operation."""
    small = TensorType("fp32", (1, 8, 4, 4))
    back = operation("cast", "y", small, x="x16")

    ((kind, name, _),) = errors(back, operation("exp", "z", small, x="y"))

    assert (kind, name) == ("exp", "z")


def test_a_program_without_half_precision_is_refused():
    small = TensorType("fp32", (1, 8, 4, 4))
    whole = package(operation("relu", "y", small, x="x"))
    single = MilProgram("CoreML6", whole.program.inputs, ("y",), whole.operations[1:])
    whole = MilPackage(whole.path, 7, whole.inputs, (), single)

    assert "no half precision" in lint_coreml(whole)[0].reason


def test_integers_are_refused_but_casts_are_not():
    indices = TensorType("int32", (1, 8, 4, 4))
    cast = operation("cast", "y", indices, x="x16")

    ((kind, _, why),) = errors(cast, operation("add", "z", indices, x="y", y="y"))

    assert kind == "add"
    assert "computes int32" in why


def test_flags_are_a_note():
    flags = operation("greater", "y", TensorType("bool", (1, 8, 4, 4)), x="x16", y="x16")

    (note,) = lint_coreml(package(flags))

    assert not note.is_error
    assert "flags" in note.reason


def test_computed_weights_are_refused():
    ((kind, _, why),) = errors(operation("conv", "y", x="x16", weight="x16"))

    assert kind == "conv"
    assert "must be stored" in why


def test_compressed_weights_count_as_stored():
    weight = operation("constexpr_lut_to_dense", "weight", TensorType("fp16", (8, 8, 3, 3)))

    assert errors(weight, operation("conv", "y", x="x16", weight="weight")) == []


@pytest.mark.parametrize(("side", "num_errors"), [(13, 0), (15, 1)])
def test_large_kernels_are_refused(side, num_errors):
    weight = stored("weight", (8, 1, 1, side))

    assert len(errors(weight, operation("conv", "y", x="x16", weight="weight"))) == num_errors


@pytest.mark.parametrize(("side", "num_errors"), [(13, 0), (14, 1)])
def test_large_pooling_windows_are_refused(side, num_errors):
    pool = operation("max_pool", "y", x="x16", kernel_sizes=numbers(2, side))

    assert len(errors(pool)) == num_errors


def test_padding_other_than_by_a_constant_is_refused():
    assert errors(operation("pad", "y", x="x16", mode=text("constant"))) == []
    ((_, _, why),) = errors(operation("pad", "y", x="x16", mode=text("reflect")))
    assert "'reflect'" in why


def test_other_runtimes_are_refused():
    with pytest.raises(ExportError, match="checked for neural_engine, got 'tensorrt'"):
        lint_coreml(package(), "tensorrt")


def test_missing_package_is_refused():
    with pytest.raises(ExportError, match=r"give a \.mlpackage folder"):
        lint_coreml(Path("nowhere.mlpackage"))


def finding(name, is_error=True):
    return Finding("gather", name, "is done by the CPU", "neural_engine", is_error)


def test_notes_alone_pass():
    check_lint([finding("a", is_error=False)])


def test_errors_are_listed_up_to_six():
    findings = [finding("note", is_error=False), *(finding(f"op{number}") for number in range(8))]

    with pytest.raises(ExportError) as raised:
        check_lint(findings)

    message = str(raised.value)
    assert message.startswith("8 operations would not run on neural_engine: gather 'op0': is done")
    assert "'op5'" in message
    assert "'op6'" not in message
    assert "note" not in message
    assert "and 2 more; change the graph, or take the runtime out of the target's" in message
