import math

import numpy as np
import pytest
import scipy.special
from coremltools.converters.mil import Builder as mb
from mil_programs import IOS17, block_of, edited, operation_of, run_program, save_program

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package

SIGNED = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.4], np.float32)


POSITIVE = np.array([0.01, 0.25, 1.0, 9.0], np.float32)


INSIDE = np.array([-0.9, 0.0, 0.4], np.float32)


FUNCTIONS = {
    "abs": (SIGNED, [2.5, 1.5, 0.5, 0.5, 1.5, 2.4]),
    "ceil": (SIGNED, [-2, -1, 0, 1, 2, 3]),
    "floor": (SIGNED, [-3, -2, -1, 0, 1, 2]),
    "round": (SIGNED, [-2, -2, 0, 0, 2, 2]),  # halves to the even neighbour
    "sign": (np.float32([-3, 0, 2]), [-1, 0, 1]),
    "square": (SIGNED, SIGNED * SIGNED),
    "sqrt": (POSITIVE, [0.1, 0.5, 1, 3]),
    "exp": (SIGNED, [math.exp(v) for v in SIGNED]),
    "exp2": (SIGNED, [2**v for v in SIGNED]),
    "sin": (SIGNED, [math.sin(v) for v in SIGNED]),
    "cos": (SIGNED, [math.cos(v) for v in SIGNED]),
    "tan": (SIGNED, [math.tan(v) for v in SIGNED]),
    "sinh": (SIGNED, [math.sinh(v) for v in SIGNED]),
    "cosh": (SIGNED, [math.cosh(v) for v in SIGNED]),
    "tanh": (SIGNED, [math.tanh(v) for v in SIGNED]),
    "asin": (INSIDE, [math.asin(v) for v in INSIDE]),
    "acos": (INSIDE, [math.acos(v) for v in INSIDE]),
    "atan": (SIGNED, [math.atan(v) for v in SIGNED]),
    "atanh": (INSIDE, [math.atanh(v) for v in INSIDE]),
    "erf": (SIGNED, [math.erf(v) for v in SIGNED]),
    "relu": (SIGNED, [0, 0, 0, 0.5, 1.5, np.float32(2.4)]),
    "relu6": (np.float32([-1, 3, 7]), [0, 3, 6]),
    "sigmoid": (SIGNED, scipy.special.expit(SIGNED)),
    "silu": (SIGNED, SIGNED * scipy.special.expit(SIGNED)),
    "softplus": (np.float32([-40, 0, 90]), [np.exp(-40.0), np.log(2.0), 90]),  # no overflow
    "softsign": (np.float32([-3, 0, 1]), [-0.75, 0, 0.5]),
    "identity": (SIGNED, SIGNED),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_function_of_one_tensor(tmp_path, kind):
    x, expected = FUNCTIONS[kind]

    outputs = run_program(tmp_path / "a.mlpackage", lambda x: {"y": getattr(mb, kind)(x=x)}, x)

    np.testing.assert_allclose(outputs["y"], np.float32(expected), rtol=1e-6, atol=1e-7)


def test_epsilon_is_added_before_the_function(tmp_path):
    def build(x):
        return {"log": mb.log(x=x, epsilon=0.25), "rsqrt": mb.rsqrt(x=x, epsilon=0.25)}

    outputs = run_program(tmp_path / "a.mlpackage", build, np.float32([0.0, 0.75]))

    np.testing.assert_allclose(outputs["log"], [math.log(0.25), 0.0], atol=1e-7)
    np.testing.assert_allclose(outputs["rsqrt"], [2.0, 1.0])


def test_epsilon_left_out_is_the_documented_one(tmp_path):
    def build(x):
        return {"log": mb.log(x=x), "rsqrt": mb.rsqrt(x=x), "inverse": mb.inverse(x=x)}

    path = save_program(tmp_path / "a.mlpackage", build, np.float32([0.0]))
    with edited(path) as model:
        for kind in ("log", "rsqrt", "inverse"):
            del operation_of(model, kind).inputs["epsilon"]
    outputs = Interpreter(load_package(path)).run({"x": np.float32([0.0])})

    assert outputs["rsqrt"].tolist() == pytest.approx([1e6])  # 1 / sqrt(1e-12)
    assert outputs["inverse"].tolist() == pytest.approx([1e4])  # 1 / 1e-4
    assert outputs["log"].tolist() == pytest.approx([-103.28], abs=0.01)  # log of 1.4e-45


# x is a column, y a row, so that both are broadcast.
X = np.float32([[-7.0], [2.0]])


Y = np.float32([[2.0, -3.0, 2.5]])


BINARY = {
    "add": [[-5, -10, -4.5], [4, -1, 4.5]],
    "sub": [[-9, -4, -9.5], [0, 5, -0.5]],
    "mul": [[-14, 21, -17.5], [4, -6, 5]],
    "real_div": [[-3.5, 7 / 3, -2.8], [1, -2 / 3, 0.8]],
    "floor_div": [[-4, 2, -3], [1, -1, 0]],  # towards minus infinity
    "mod": [[1, -1, 0.5], [0, -1, 2]],  # with the sign of the divisor
    "maximum": [[2, -3, 2.5], [2, 2, 2.5]],
    "minimum": [[-7, -7, -7], [2, -3, 2]],
    "equal": [[False, False, False], [True, False, False]],
    "not_equal": [[True, True, True], [False, True, True]],
    "greater": [[False, False, False], [False, True, False]],
    "greater_equal": [[False, False, False], [True, True, False]],
    "less": [[True, True, True], [False, False, True]],
    "less_equal": [[True, True, True], [True, False, True]],
}


@pytest.mark.parametrize("kind", BINARY)
def test_operation_of_two_tensors(tmp_path, kind):
    outputs = run_program(
        tmp_path / "a.mlpackage", lambda x, y: {"z": as_float(getattr(mb, kind)(x=x, y=y))}, X, Y
    )

    np.testing.assert_allclose(outputs["z"], np.float32(BINARY[kind]), rtol=1e-6)


def as_float(variable):
    """Core ML gives no flags to apps, so they leave the program as numbers."""
    return mb.cast(x=variable, dtype="fp32")


def test_power_of_floats(tmp_path):
    x, y = np.float32([[2.0], [9.0]]), np.float32([[3.0, -1.0, 0.5]])

    outputs = run_program(tmp_path / "a.mlpackage", lambda x, y: {"z": mb.pow(x=x, y=y)}, x, y)

    np.testing.assert_allclose(outputs["z"], [[8, 0.5, 2**0.5], [729, 1 / 9, 3]], rtol=1e-6)


def test_integers_stay_integers(tmp_path):
    x, y = np.int32([-7, 7, 9]), np.int32([2, 2, -4])

    def build(x, y):
        return {
            kind: getattr(mb, kind)(x=x, y=y)
            for kind in ("add", "mul", "floor_div", "mod", "maximum")
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, x, y)

    assert {kind: value.tolist() for kind, value in outputs.items()} == {
        "add": [-5, 9, 5],
        "mul": [-14, 14, -36],
        "floor_div": [-4, 3, -3],
        "mod": [1, 1, -3],
        "maximum": [2, 7, 9],
    }
    assert outputs["add"].dtype == np.int32


def test_division_of_integers_is_refused(tmp_path):
    x = np.int32([7])

    with pytest.raises(ExportError, match="operation real_div with output 'z' .* must be floats"):
        run_program(tmp_path / "a.mlpackage", lambda x: {"z": mb.real_div(x=x, y=x)}, x)


def test_integer_to_a_negative_power_is_refused(tmp_path):
    x = np.int32([2, -1])

    with pytest.raises(ExportError, match="integers to a negative power"):
        run_program(tmp_path / "a.mlpackage", lambda x: {"z": mb.pow(x=x, y=x)}, x)


def test_logic_and_selection(tmp_path):
    x, y = np.float32([0, 0, 1, 1]), np.float32([0, 1, 0, 1])

    def build(x, y):
        a, b = mb.cast(x=x, dtype="bool"), mb.cast(x=y, dtype="bool")
        return {
            "and": as_float(mb.logical_and(x=a, y=b)),
            "or": as_float(mb.logical_or(x=a, y=b)),
            "xor": as_float(mb.logical_xor(x=a, y=b)),
            "not": as_float(mb.logical_not(x=a)),
            "select": mb.select(cond=a, a=mb.add(x=y, y=np.float32(10)), b=y),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, x, y)

    assert {name: value.tolist() for name, value in outputs.items()} == {
        "and": [0, 0, 0, 1],
        "or": [0, 1, 1, 1],
        "xor": [0, 1, 1, 0],
        "not": [1, 1, 0, 0],
        "select": [0, 1, 10, 11],
    }


def test_cast_cuts_towards_zero(tmp_path):
    def build(x):
        return {
            "cut": mb.cast(x=x, dtype="int32"),
            "flag": as_float(mb.cast(x=x, dtype="bool")),
            "back": mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="fp32"),
            "short": mb.cast(x=mb.cast(x=x, dtype="int8"), dtype="int32"),
        }

    outputs = run_program(
        tmp_path / "a.mlpackage", build, np.float32([-2.7, 0.0, 0.4, 3.9]), target=IOS17
    )

    assert outputs["cut"].tolist() == outputs["short"].tolist() == [-2, 0, 0, 3]
    assert outputs["flag"].tolist() == [1, 0, 1, 1]
    assert outputs["back"].tolist() == [-2.0, 0.0, 0.0, 3.0]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int8", 128.0),
        ("int8", -129.0),
        ("uint8", -1.0),
        ("uint16", 65536.0),
        ("int32", 2.0**31),
        ("int32", np.nan),
    ],
)
def test_cast_of_a_value_that_does_not_fit_is_refused(tmp_path, dtype, value):
    def build(x):
        return {"y": mb.cast(x=mb.cast(x=x, dtype=dtype), dtype="fp32")}

    with pytest.raises(
        ExportError, match=f"operation cast .* has a value that {dtype} cannot hold"
    ):
        run_program(tmp_path / "a.mlpackage", build, np.float32([value]), target=IOS17)


def test_cast_keeps_the_largest_values_that_fit(tmp_path):
    def build(x):
        return {"y": mb.cast(x=mb.cast(x=x, dtype="uint16"), dtype="fp32")}

    outputs = run_program(tmp_path / "a.mlpackage", build, np.float32([65535.0, 0.0]), target=IOS17)

    assert outputs["y"].tolist() == [65535.0, 0.0]


def test_operands_of_two_kinds_are_refused(tmp_path):
    path = save_program(
        tmp_path / "a.mlpackage",
        lambda x, y: {"z": mb.add(x=x, y=x), "w": mb.add(x=y, y=y)},
        np.float32([1]),
        np.int32([1]),
    )
    with edited(path) as model:
        block_of(model).operations[0].inputs["y"].arguments[0].name = "y"

    with pytest.raises(ExportError, match="'z' cannot be executed: x and y must have one kind"):
        Interpreter(load_package(path)).run({"x": np.float32([1]), "y": np.int32([1])})
