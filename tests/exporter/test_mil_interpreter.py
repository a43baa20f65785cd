import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from mil_programs import block_of, edited, operation_of, save_doubling, save_module, save_program

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package

X = np.float32([[1, 2, 3]])


def saved(tmp_path, build, x=X, y=None):
    return save_program(tmp_path / "a.mlpackage", build, x, y)


def half(variable):
    return mb.cast(x=variable, dtype="fp16")


def single(variable):
    return mb.cast(x=variable, dtype="fp32")


@pytest.fixture
def doubling(tmp_path):
    return save_doubling(tmp_path / "a.mlpackage")


def test_outputs_come_by_name_in_the_declared_kind(doubling):
    outputs = Interpreter(load_package(doubling)).run({"x": X, "y": np.int32([7])})

    assert outputs["twice"].tolist() == [[2, 4, 6]]
    assert outputs["twice"].dtype == np.float32
    assert outputs["same"].tolist() == [7]
    assert outputs["same"].dtype == np.int32


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": X}, r"inputs must be \['x', 'y'\], got \['x'\]; missing: \['y'\]"),
        ({"x": X, "y": np.int32([1]), "z": X}, r"unexpected: \['z'\]"),
        ({"x": X.T, "y": np.int32([1])}, r"'x' fp32 \(1, 3\) got an array of shape \(3, 1\)"),
        ({"x": X.astype(np.int32), "y": np.int32([1])}, "type int32; .* with floating values"),
        ({"x": X, "y": np.float32([1])}, "'y' int32 .* type float32; .* with integer values"),
        ({"x": X, "y": np.int64([2**31])}, "from 2147483648 to 2147483648; they must lie between"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(doubling, inputs, message):
    interpreter = Interpreter(load_package(doubling))

    with pytest.raises(ExportError, match=message):
        interpreter.run(inputs)


def test_wider_arrays_are_taken(doubling):
    interpreter = Interpreter(load_package(doubling))

    outputs = interpreter.run({"x": X.astype(np.float64), "y": np.int64([7])})

    assert outputs["twice"].tolist() == [[2, 4, 6]]
    assert outputs["same"].dtype == np.int32


def test_given_arrays_are_not_changed_and_runs_do_not_depend_on_each_other(doubling):
    interpreter = Interpreter(load_package(doubling))
    x = X.copy()

    first, second = (interpreter.run({"x": x, "y": np.int32([1])}) for _ in range(2))

    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(first["twice"], second["twice"])


def test_float16_rounds_every_result_that_the_program_declares_as_half(tmp_path):
    # 2048 + 1 = 2049 is no half: it is rounded to 2048 at once, so adding again changes nothing.
    def build(x):
        one = np.float16(1)
        return {"y": single(mb.add(x=mb.add(x=half(x), y=one), y=one))}

    package = load_package(saved(tmp_path, build, np.float32([2048])))
    x = {"x": np.float32([2048])}

    assert Interpreter(package, "float32").run(x)["y"].tolist() == [2050]
    assert Interpreter(package, "float16").run(x)["y"].tolist() == [2048]


def test_float16_leaves_single_precision_alone(tmp_path):
    package = load_package(saved(tmp_path, lambda x: {"y": mb.add(x=x, y=np.float32(1))}))

    outputs = Interpreter(package, "float16").run({"x": np.float32([[2048, 0.1, 1e6]])})

    assert outputs["y"].tolist() == np.float32([[2049, 1.1, 1000001]]).tolist()


def test_sums_inside_an_operation_are_not_rounded(tmp_path):
    # Adding 1 to 2048 one by one in half precision would never leave 2048.
    x = np.float32([[2048, 1, 1, 1, 1]])
    package = load_package(
        saved(tmp_path, lambda x: {"y": single(mb.reduce_sum(x=half(x), axes=[1]))}, x)
    )

    assert Interpreter(package, "float16").run({"x": x})["y"].tolist() == [2052]


def test_weights_stored_in_half_precision_are_widened_exactly(tmp_path):
    weight = np.float16([[0.1, 0.2, 0.3]] * 4)  # 12 values, which go to the weight file
    package = load_package(
        saved(tmp_path, lambda x: {"y": single(mb.linear(x=half(x), weight=weight))})
    )

    y = Interpreter(package).run({"x": X})["y"]

    expected = X.astype(np.float64) @ weight.T.astype(np.float64)
    np.testing.assert_allclose(y, expected, rtol=1e-7)


def overflowing(tmp_path):
    def build(x):
        return {"y": single(mb.sub(x=mb.square(x=half(x), name="big"), y=mb.square(x=half(x))))}

    return load_package(saved(tmp_path, build))


def test_overflow_is_reported_where_it_first_shows(tmp_path):
    execution = Interpreter(overflowing(tmp_path), "float16").execute(
        {"x": np.float32([[1, 300, 400]])}
    )

    assert np.isnan(execution.outputs["y"]).tolist() == [[False, True, True]]  # inf - inf
    found = execution.first_non_finite
    assert (found.kind, found.output, found.num_inf, found.num_nan) == ("square", "big", 2, 0)
    assert str(found) == "square 'big' has 2 inf and 0 nan"


def test_finite_runs_report_nothing(tmp_path):
    package = overflowing(tmp_path)

    assert Interpreter(package).execute({"x": np.float32([[1, 300, 400]])}).first_non_finite is None
    assert Interpreter(package, "float16").execute({"x": X}).first_non_finite is None


def test_inputs_that_are_not_finite_are_reported_as_given(tmp_path):
    execution = Interpreter(overflowing(tmp_path)).execute({"x": np.float32([[1, np.nan, np.inf]])})

    assert str(execution.first_non_finite) == "input 'x' has 1 inf and 1 nan"


def test_failure_after_an_overflow_names_the_overflow(tmp_path):
    package = load_package(
        saved(tmp_path, lambda x: {"y": mb.cast(x=mb.square(x=half(x), name="big"), dtype="int32")})
    )

    with pytest.raises(
        ExportError, match=r"int32 cannot hold .*\(before that, square 'big' has 1 inf"
    ):
        Interpreter(package, "float16").run({"x": np.float32([[1, 2, 400]])})


def test_intermediate_values_can_be_kept(tmp_path):
    def build(x):
        return {"y": mb.exp(x=mb.mul(x=mb.add(x=x, y=np.float32(1), name="more"), y=np.float32(0)))}

    interpreter = Interpreter(load_package(saved(tmp_path, build)))

    execution = interpreter.execute({"x": X}, keep=["more", "x"])

    assert execution.kept["more"].tolist() == [[2, 3, 4]]
    assert execution.kept["x"].tolist() == X.tolist()
    assert set(execution.outputs) == {"y"}
    with pytest.raises(ExportError, match=r"no values are named \['less'\]"):
        interpreter.execute({"x": X}, keep=["less"])


class Negation(torch.nn.Module):
    def forward(self, x):
        return -x


@pytest.mark.parametrize(("layout", "order"), [("RGB", [0, 1, 2]), ("BGR", [2, 1, 0])])
def test_images_are_given_as_rgb_and_reach_the_program_as_declared(tmp_path, layout, order):
    scale, bias = 1 / 64, [-1.0, -2.0, -3.0]  # by channel of the program
    exported = save_module(
        tmp_path / "a.mlpackage",
        Negation(),
        (torch.zeros(1, 3, 2, 4),),
        inputs=[ct.ImageType("x", (1, 3, 2, 4), scale=scale, bias=bias, color_layout=layout)],
    )
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 3), np.uint8)
    package = load_package(exported)

    answer = Interpreter(package).run({"x": image})["answer"]

    expected = image[..., order].astype(np.float32) * scale + np.float32(bias)
    np.testing.assert_allclose(-answer, expected.transpose(2, 0, 1)[None], rtol=1e-6, atol=1e-6)
    with pytest.raises(ExportError, match=rf"'x' {layout} image \(2, 4, 3\) got an array of shape"):
        Interpreter(package).run({"x": image.transpose(2, 0, 1)})


def test_grey_images_have_no_channels(tmp_path):
    exported = save_module(
        tmp_path / "a.mlpackage",
        Negation(),
        (torch.zeros(1, 1, 2, 3),),
        inputs=[ct.ImageType("x", (1, 1, 2, 3), color_layout="G")],
    )
    image = np.uint8([[0, 1, 2], [253, 254, 255]])

    answer = Interpreter(load_package(exported)).run({"x": image})["answer"]

    assert (-answer).tolist() == [[image.tolist()]]


def test_constants_written_in_place_of_names_are_taken(doubling):
    with edited(doubling) as model:
        mul = operation_of(model, "mul")
        value = operation_of(model, "const").attributes["val"]
        binding = mul.inputs["y"].arguments[0]
        binding.value.CopyFrom(value)
        binding.value.immediateValue.tensor.floats.values[0] = 5
        assert len(block_of(model).operations) == 3

    outputs = Interpreter(load_package(doubling)).run({"x": X, "y": np.int32([1])})

    assert outputs["twice"].tolist() == [[5, 10, 15]]


def test_unknown_arithmetic_is_refused(doubling):
    with pytest.raises(ExportError, match="arithmetic must be float32 or float16, got 'int8'"):
        Interpreter(load_package(doubling), "int8")
