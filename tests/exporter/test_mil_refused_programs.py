import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from mil_programs import edited, operation_of, save_doubling, save_program

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package

X = np.float32([[1, 2, 3]])


@pytest.fixture
def doubling(tmp_path):
    return save_doubling(tmp_path / "a.mlpackage")


def change_kind(model):
    operation_of(model, "mul").type = "magic"


def add_argument(model):
    mul = operation_of(model, "mul")
    mul.inputs["z"].CopyFrom(mul.inputs["y"])


def drop_argument(model):
    del operation_of(model, "mul").inputs["y"]


def add_attribute(model):
    mul = operation_of(model, "mul")
    mul.attributes["fast"].CopyFrom(mul.attributes["name"])


def add_block(model):
    operation_of(model, "mul").blocks.add()


def use_later_value(model):
    operation_of(model, "mul").inputs["x"].arguments[0].name = "later"


def repeat_name(model):
    operation_of(model, "identity").outputs[0].name = "x"


def give_image(model):
    image = model.description.output[0].type.imageType
    image.width, image.height, image.colorSpace = 3, 2, image.ColorSpace.Value("RGB")


def contradict_constant(model):
    operation_of(model, "const").outputs[0].type.tensorType.dataType = 10


def use_older_opset(model):
    main = model.mlProgram.functions["main"]
    main.block_specializations["CoreML5"].CopyFrom(main.block_specializations["CoreML6"])
    main.opset = "CoreML5"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_kind, "operation magic with output 'twice' is not supported; export without it"),
        (
            add_argument,
            "operation mul with output 'twice' .* argument z is not known; known are x, y",
        ),
        (drop_argument, "operation mul with output 'twice' .* argument y is missing"),
        (add_attribute, r"operation mul with output 'twice' has unknown attributes \['fast'\]"),
        (add_block, "operation mul with output 'twice' is not supported"),
        (use_later_value, r"'twice' uses \['later'\], which nothing before it gives"),
        (repeat_name, "two values of the program have one name"),
        (give_image, r"output 'twice' RGB image \(2, 3, 3\) is not supported"),
        (contradict_constant, "holds fp32.*, declared is fp16"),
        (use_older_opset, "opset CoreML5 is not supported; export for iOS 16 or newer"),
    ],
)
def test_program_with_something_unknown_is_refused_before_running(doubling, damage, message):
    with edited(doubling) as model:
        damage(model)
    package = load_package(doubling)

    with pytest.raises(ExportError, match=message):
        Interpreter(package)


def test_result_of_another_shape_than_declared_is_refused(doubling):
    with edited(doubling) as model:
        operation_of(model, "mul").outputs[0].type.tensorType.dimensions[1].constant.size = 4

    with pytest.raises(ExportError, match=r"has shape \(1, 3\), declared is fp32\[1, 4\]"):
        Interpreter(load_package(doubling)).run({"x": X, "y": np.int32([1])})


def test_result_of_another_kind_than_declared_is_refused(doubling):
    with edited(doubling) as model:
        operation_of(model, "mul").outputs[0].type.tensorType.dataType = 23  # int32

    with pytest.raises(ExportError, match=r"the result is float, declared is int32\[1, 3\]"):
        Interpreter(load_package(doubling)).run({"x": X, "y": np.int32([1])})


def test_inputs_whose_description_contradicts_the_program_are_refused(doubling):
    with edited(doubling) as model:
        model.mlProgram.functions["main"].inputs[0].type.tensorType.dimensions[1].constant.size = 2

    with pytest.raises(ExportError, match=r"do not fit its program: .* declared is fp32\[1, 2\]"):
        Interpreter(load_package(doubling)).run({"x": X, "y": np.int32([1])})


def test_text_where_a_number_belongs_is_refused(tmp_path):
    path = save_program(tmp_path / "a.mlpackage", lambda x: {"y": mb.softmax(x=x, axis=1)}, X)
    with edited(path) as model:
        axis = operation_of(model, "const")
        axis.outputs[0].type.tensorType.dataType = 2  # string
        axis.attributes["val"].type.tensorType.dataType = 2
        axis.attributes["val"].immediateValue.tensor.strings.values.append("last")

    with pytest.raises(ExportError, match="argument axis must be a tensor, got the string 'last'"):
        Interpreter(load_package(path)).run({"x": X})
