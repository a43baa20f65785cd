import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from mil_programs import IOS16, IOS17, edited, operation_of, run_program, save_program

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package

X = np.float32([[[1, -2, 3], [4, 5, -6]], [[0.5, 0, 2], [-1, 8, 1]]])  # (2, 2, 3)
REDUCTIONS = {
    "reduce_sum": lambda x, axes: x.sum(axes),
    "reduce_mean": lambda x, axes: x.mean(axes),
    "reduce_max": lambda x, axes: x.max(axes),
    "reduce_min": lambda x, axes: x.min(axes),
    "reduce_prod": lambda x, axes: x.prod(axes),
    "reduce_l1_norm": lambda x, axes: np.abs(x).sum(axes),
    "reduce_l2_norm": lambda x, axes: (x * x).sum(axes) ** 0.5,
    "reduce_sum_square": lambda x, axes: (x * x).sum(axes),
    "reduce_log_sum_exp": lambda x, axes: np.log(np.exp(x).sum(axes)),
}


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("axes", [(0,), (-1,), (0, 2)])
def test_reduction_over_axes(tmp_path, kind, axes):
    def build(x):
        options = {"x": x, "axes": axes}
        reduce = getattr(mb, kind)
        return {"dropped": reduce(**options), "kept": reduce(keep_dims=True, **options)}

    outputs = run_program(tmp_path / "a.mlpackage", build, X)

    expected = REDUCTIONS[kind](X, axes)
    np.testing.assert_allclose(outputs["dropped"], expected, rtol=1e-5)
    np.testing.assert_allclose(outputs["kept"], np.expand_dims(expected, axes), rtol=1e-5)


def test_reduction_without_axes_is_over_all(tmp_path):
    def build(x):
        return {"sum": mb.expand_dims(x=mb.reduce_sum(x=x), axes=[0])}

    path = save_program(tmp_path / "a.mlpackage", build, X)
    with edited(path) as model:
        operation_of(model, "reduce_sum").inputs.pop("axes", None)

    assert Interpreter(load_package(path)).run({"x": X})["sum"].tolist() == [15.5]


def test_log_of_a_sum(tmp_path):
    x = np.float32([[1, 2], [4, 4]])

    outputs = run_program(
        tmp_path / "a.mlpackage", lambda x: {"y": mb.reduce_log_sum(x=x, axes=[1])}, x
    )

    np.testing.assert_allclose(outputs["y"], np.log([3, 8]), rtol=1e-6)


def test_sums_of_integers_stay_integers(tmp_path):
    outputs = run_program(
        tmp_path / "a.mlpackage",
        lambda x: {"y": mb.reduce_sum(x=x, axes=[0])},
        np.int32([[1], [2]]),
    )

    assert outputs["y"].tolist() == [3]
    assert outputs["y"].dtype == np.int32


def test_sum_beyond_the_integer_type_is_refused(tmp_path):
    x = np.int32([2**31 - 1, 1])

    with pytest.raises(ExportError, match="2147483648 to 2147483648, which int32 cannot hold"):
        run_program(
            tmp_path / "a.mlpackage",
            lambda x: {"y": mb.reduce_sum(x=x, axes=[0], keep_dims=True)},
            x,
        )


@pytest.mark.parametrize("target", [IOS16, IOS17])
def test_place_of_the_extremes(tmp_path, target):
    def build(x):
        return {
            "largest": mb.reduce_argmax(x=x, axis=1),
            "smallest": mb.reduce_argmin(x=x, axis=-1, keep_dims=True),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, X, target=target)

    assert outputs["largest"].tolist() == [[1, 1, 0], [0, 1, 0]]
    assert outputs["smallest"].tolist() == [[[1], [2]], [[1], [0]]]


def test_largest_values_come_with_their_places(tmp_path):
    x = np.float32([[3, 9, 5, 7], [1, -2, 8, 0]])

    def build(x):
        top, place = mb.topk(x=x, k=2, axis=1)
        low, low_place = mb.topk(x=x, k=1, axis=0, ascending=True)
        return {"top": top, "place": place, "low": low, "low_place": low_place}

    outputs = run_program(tmp_path / "a.mlpackage", build, x)

    assert {name: value.tolist() for name, value in outputs.items()} == {
        "top": [[9, 7], [8, 1]],
        "place": [[1, 3], [2, 0]],
        "low": [[1, -2, 5, 0]],
        "low_place": [[1, 1, 0, 1]],
    }


def test_unsorted_largest_values_are_refused(tmp_path):
    x = np.float32([1, 2, 3])

    with pytest.raises(ExportError, match="topk without sort has no defined order"):
        run_program(
            tmp_path / "a.mlpackage",
            lambda x: {"y": mb.topk(x=x, k=2, sort=False, return_indices=False)},
            x,
        )


def test_sorting_gives_the_order(tmp_path):
    x = np.float32([[3, 1, 2]])

    def build(x):
        return {"down": mb.argsort(x=x, axis=1), "up": mb.argsort(x=x, axis=1, ascending=True)}

    outputs = run_program(tmp_path / "a.mlpackage", build, x)

    assert outputs["down"].tolist() == [[0, 2, 1]]
    assert outputs["up"].tolist() == [[1, 2, 0]]


def test_running_sums(tmp_path):
    x = np.float32([[1, 10], [2, 20], [3, 30]])

    def build(x):
        return {
            "down": mb.cumsum(x=x, axis=0),
            "exclusive": mb.cumsum(x=x, axis=0, exclusive=True),
            "backwards": mb.cumsum(x=x, axis=1, reverse=True),
            "both": mb.cumsum(x=x, axis=0, exclusive=True, reverse=True),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, x)

    assert {name: value.tolist() for name, value in outputs.items()} == {
        "down": [[1, 10], [3, 30], [6, 60]],
        "exclusive": [[0, 0], [1, 10], [3, 30]],
        "backwards": [[11, 10], [22, 20], [33, 30]],
        "both": [[5, 50], [3, 30], [0, 0]],
    }
