import math

import numpy as np
import pytest
import scipy.special
from coremltools.converters.mil import Builder as mb
from mil_programs import edited, operation_of, run_program, save_program

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package

SIGNED = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.4], np.float32)
EIGHTH = np.float32(0.125)


PARAMETERS = {
    "clip": ({"alpha": -1.0, "beta": 0.5}, [-1, -1, -0.5, 0.5, 0.5, 0.5]),
    "threshold": ({"alpha": 0.25}, [0.25, 0.25, 0.25, 0.5, 1.5, 2.4]),
    "leaky_relu": ({"alpha": 0.1}, [-0.25, -0.15, -0.05, 0.5, 1.5, 2.4]),
    "elu": ({"alpha": 2.0}, [*(2 * np.expm1(SIGNED[:3])), 0.5, 1.5, 2.4]),
    "clamped_relu": ({"alpha": 2.0, "beta": 1.0}, [-5, -3, -1, 0.5, 1, 1]),
    "thresholded_relu": ({"alpha": 1.5}, [0, 0, 0, 0, 1.5, 2.4]),
    "linear_activation": ({"alpha": 2.0, "beta": 1.0}, [-4, -2, 0, 2, 4, 5.8]),
    "scaled_tanh": ({"alpha": 3.0, "beta": 0.5}, 3 * np.tanh(SIGNED / 2)),
    "sigmoid_hard": ({"alpha": 0.5, "beta": 0.5}, [0, 0, 0.25, 0.75, 1, 1]),
    "inverse": ({"epsilon": 0.125}, 1 / (SIGNED + EIGHTH)),
    "gelu": ({"mode": "EXACT"}, SIGNED * scipy.special.ndtr(SIGNED)),  # x times the normal CDF
}


@pytest.mark.parametrize("kind", PARAMETERS)
def test_function_with_parameters(tmp_path, kind):
    options, expected = PARAMETERS[kind]

    outputs = run_program(
        tmp_path / "a.mlpackage", lambda x: {"y": getattr(mb, kind)(x=x, **options)}, SIGNED
    )

    np.testing.assert_allclose(outputs["y"], np.float32(expected), rtol=1e-6, atol=1e-7)


def test_approximations_of_gelu_follow_their_formulas(tmp_path):
    def build(x):
        return {
            "tanh": mb.gelu(x=x, mode="TANH_APPROXIMATION"),
            "sigmoid": mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, SIGNED)

    x = SIGNED.astype(np.float64)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    np.testing.assert_allclose(outputs["tanh"], 0.5 * x * (1 + np.tanh(inner)), rtol=1e-5)
    np.testing.assert_allclose(outputs["sigmoid"], x / (1 + np.exp(-1.702 * x)), rtol=1e-5)


def test_prelu_has_one_slope_per_channel(tmp_path):
    x = np.float32([[[[-1.0]], [[-1.0]], [[2.0]]]])

    outputs = run_program(
        tmp_path / "a.mlpackage",
        lambda x: {"y": mb.prelu(x=x, alpha=np.float32([0.1, 0.5, 3.0]))},
        x,
    )

    np.testing.assert_allclose(outputs["y"].ravel(), [-0.1, -0.5, 2.0], rtol=1e-6)


def test_softmax_runs_along_its_axis(tmp_path):
    x = np.float32([[0.0, 1000.0], [math.log(3), 1000.0]])  # columns: 1 to 3, equal

    outputs = run_program(tmp_path / "a.mlpackage", lambda x: {"y": mb.softmax(x=x, axis=0)}, x)

    np.testing.assert_allclose(outputs["y"], [[0.25, 0.5], [0.75, 0.5]], rtol=1e-6)


def test_unknown_mode_of_gelu_is_refused(tmp_path):
    path = save_program(tmp_path / "a.mlpackage", lambda x: {"y": mb.gelu(x=x)}, SIGNED)
    with edited(path) as model:
        mode = operation_of(model, "const").attributes["val"].immediateValue.tensor.strings
        mode.values[0] = "FAST"

    with pytest.raises(ExportError, match="mode of gelu is not known, got 'FAST'"):
        Interpreter(load_package(path)).run({"x": SIGNED})
