import shutil

import pytest
from mil_programs import MODEL, block_of, edited, operation_of, save_assorted

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.package import load_package


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save_assorted(tmp_path_factory.mktemp("package") / "a.mlpackage")


@pytest.fixture
def path(original, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(original, tmp_path / "copy.mlpackage")


def test_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"Manifest\.json: cannot read .* give a \.mlpackage"):
        load_package(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": 1}}']
)
def test_broken_manifest_is_refused(path, text):
    (path / "Manifest.json").write_text(text)

    with pytest.raises(ExportError, match=r"Manifest\.json: "):
        load_package(path)


def test_model_that_is_no_specification_is_refused(path):
    (path / MODEL).write_bytes(b"\xff\xff\xff")

    with pytest.raises(ExportError, match=r"model\.mlmodel: not a Core ML specification"):
        load_package(path)


def test_missing_model_is_refused(path):
    (path / MODEL).unlink()

    with pytest.raises(ExportError, match=r"model\.mlmodel: cannot read the model"):
        load_package(path)


def test_missing_weights_are_refused(path):
    shutil.rmtree(path / "Data/com.apple.CoreML/weights")

    with pytest.raises(ExportError, match=r"weight\.bin: cannot read the weight file"):
        load_package(path)


def break_type(model):
    model.neuralNetwork.SetInParent()


def break_functions(model):
    model.description.functions.add(name="other")


def break_second_function(model):
    model.mlProgram.functions["second"].opset = "CoreML6"


def break_opset_without_block(model):
    model.mlProgram.functions["main"].opset = "CoreML7"


def break_string_input(model):
    model.description.input[0].type.stringType.SetInParent()


def break_renamed_input(model):
    model.description.input[0].name = "image"


def break_renamed_output(model):
    model.description.output[0].name = "mask"


def break_weight_path(model):
    weight = next(
        o for o in block_of(model).operations if o.attributes["val"].HasField("blobFileValue")
    )
    weight.attributes["val"].blobFileValue.fileName = "@model_path/../secret.bin"


def break_bfloat16(model):
    operation_of(model, "linear").outputs[0].type.tensorType.dataType = 13


def break_open_rank(model):
    operation_of(model, "linear").outputs[0].type.tensorType.rank = -1


def break_tuple_type(model):
    operation_of(model, "linear").outputs[0].type.tupleType.SetInParent()


def break_variadic(model):
    dimension = operation_of(model, "linear").outputs[0].type.tensorType.dimensions[0]
    dimension.unknown.variadic = True


def break_open_constant(model):
    value = operation_of(model, "const").attributes["val"]
    value.type.tensorType.dimensions[0].unknown.variadic = False


def break_dictionary(model):
    value = operation_of(model, "cast").attributes["name"]
    value.immediateValue.dictionary.SetInParent()


def break_missing_value(model):
    value = operation_of(model, "softmax").attributes["extra"]
    value.type.tensorType.dataType = 23
    value.immediateValue.tensor.ints.SetInParent()


def break_colours(model):
    model.description.input[0].type.imageType.SetInParent()


def break_array_type(model):
    model.description.input[0].type.multiArrayType.dataType = 0


def break_wrong_field(model):
    value = operation_of(model, "const").attributes["val"]
    value.immediateValue.tensor.longInts.values.append(1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_type, "the model is of type neuralNetwork; only ML Programs"),
        (break_functions, "several functions or a state"),
        (break_second_function, r"functions \['main', 'second'\]; export one, `main`"),
        (break_opset_without_block, "no block for its own opset CoreML7"),
        (break_string_input, "'x' has type stringType; only arrays and images"),
        (break_renamed_input, r"description names the inputs \['image'\], the program \['x'\]"),
        (break_renamed_output, r"names the outputs \['mask'\], which the program does not give"),
        (break_weight_path, r"operation const .*secret\.bin, not @model_path"),
        (break_bfloat16, "operation linear with output 'product': element type 13"),
        (break_open_rank, "rank -1, 3 dimensions"),
        (break_tuple_type, "a value has type tupleType"),
        (break_variadic, "a variable number of dimensions"),
        (break_open_constant, r"a constant has the open shape fp32\[\?, 3\]"),
        (break_dictionary, "a constant is stored as dictionary"),
        (break_missing_value, r"a constant of type int32\[\] holds 0 values"),
        (break_colours, "'x' has the colour layout INVALID_COLOR_SPACE"),
        (break_array_type, "'x' has the array type INVALID_ARRAY_DATA_TYPE"),
        (break_wrong_field, "is stored in longInts, expected"),
    ],
)
def test_specification_that_says_something_unknown_is_refused(path, damage, message):
    with edited(path) as model:
        damage(model)

    with pytest.raises(ExportError, match=message):
        load_package(path)
