import shutil

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from mil_programs import IOS16, IOS18, edited, save_assorted, save_program

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.features import bind_inputs
from edgeseg.exporter.mil.package import load_package

X = np.zeros((1, 2, 3), np.float32)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save_assorted(tmp_path_factory.mktemp("package") / "a.mlpackage")


@pytest.fixture
def path(original, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(original, tmp_path / "copy.mlpackage")


def test_inputs_and_outputs_have_names_shapes_and_types(original):
    package = load_package(original)

    assert [str(feature) for feature in package.inputs] == ["'x' fp32 (1, 2, 3)"]
    assert [(f.name, f.dtype, f.shape) for f in package.outputs] == [
        ("product", "fp32", (1, 2, 4)),
        ("half", "fp32", (2,)),
        ("part", "fp32", (1, 1, 3)),
    ]
    assert package.specification_version == 7
    assert package.program.opset == "CoreML6"


def test_operations_can_be_walked_with_types_ranks_and_constants(original):
    package = load_package(original)

    linear = next(each for each in package.operations if each.kind == "linear")
    weight = package.constant(linear.inputs["weight"][0])

    assert linear.inputs["x"] == ("x",)
    assert [(each.name, str(each.type), each.type.rank) for each in linear.outputs] == [
        ("product", "fp32[1, 2, 4]", 3)
    ]
    assert weight.value.tolist() == np.arange(12.0).reshape(4, 3).tolist()  # from the weight file
    assert package.types[linear.inputs["x"][0]].shape == (1, 2, 3)
    assert package.constant("product") is None  # computed


def test_constants_written_into_the_program_are_decoded(original):
    package = load_package(original)

    cast, part, softmax = (
        next(each for each in package.operations if each.kind == kind)
        for kind in ("cast", "slice_by_index", "softmax")
    )
    values = {
        name: package.constant(part.inputs[name][0]).value for name in part.inputs if name != "x"
    }

    assert package.constant(softmax.inputs["axis"][0]).value.tolist() == -2
    assert package.constant(cast.inputs["dtype"][0]).value == "fp32"
    assert package.constant(cast.inputs["x"][0]).value.tolist() == [0.5, 70.0]  # stored as bytes
    assert values["begin"].tolist() == [0, 1, 0]
    assert values["end_mask"].tolist() == [True, False, False]


def test_packed_constants_in_the_program_are_decoded(tmp_path):
    from coremltools.converters.mil.mil import types

    def build(x):
        data = np.array([[-8, 7, 3]], types.np_int4_dtype)
        scale = np.float32([[0.5]])
        return {"w": mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=data, scale=scale))}

    x = np.zeros((1, 3), np.float32)
    package = load_package(save_program(tmp_path / "a.mlpackage", build, x, target=IOS18))

    stored = next(each for each in package.operations if each.is_stored and each.kind != "const")
    data = stored.inputs["data"][0]
    assert str(data.type) == "int4[1, 3]"
    assert data.value.tolist() == [[-8, 7, 3]]


def test_metadata_is_read(path):
    with edited(path) as model:
        model.description.metadata.author = "A. Author"
        model.description.metadata.userDefined["input"] = "RGB"

    metadata = load_package(path).metadata

    assert metadata["author"] == "A. Author"
    assert metadata["input"] == "RGB"


def test_image_inputs_are_read_with_their_colours(path):
    with edited(path) as model:
        image = model.description.input[0].type.imageType
        image.width, image.height, image.colorSpace = 3, 2, image.ColorSpace.Value("BGR")

    (feature,) = load_package(path).inputs

    assert (feature.shape, feature.dtype, feature.colors) == ((2, 3, 3), "uint8", "BGR")
    assert feature.is_image


def test_flexible_image_sizes_are_read(path):
    with edited(path) as model:
        listed = model.description.input[0].type.imageType
        listed.width, listed.height, listed.colorSpace = 3, 2, listed.ColorSpace.Value("RGB")
        for width, height in ((3, 2), (30, 20)):
            listed.enumeratedSizes.sizes.add(width=width, height=height)
        ranged = model.description.output[0].type.imageType
        ranged.colorSpace = ranged.ColorSpace.Value("GRAYSCALE")
        ranged.imageSizeRange.widthRange.lowerBound, ranged.imageSizeRange.widthRange.upperBound = (
            3,
            5,
        )
        (
            ranged.imageSizeRange.heightRange.lowerBound,
            ranged.imageSizeRange.heightRange.upperBound,
        ) = 1, -1
    package = load_package(path)

    listed, ranged = package.inputs[0], package.outputs[0]

    assert str(listed) == "'x' RGB image (2, 3, 3) or (20, 30, 3)"  # rows, columns, channels
    assert [listed.accepts(shape) for shape in ((20, 30, 3), (30, 20, 3))] == [True, False]
    assert [ranged.accepts(shape) for shape in ((99, 5), (5, 99))] == [True, False]


def test_flexible_shapes_are_read(path):
    with edited(path) as model:
        array = model.description.input[0].type.multiArrayType
        for low, high in ((1, 1), (2, 5), (3, -1)):  # -1 is no limit
            array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
        enumerated = model.description.output[0].type.multiArrayType.enumeratedShapes
        for shape in ((1, 2), (3, 4)):
            enumerated.shapes.add(shape=shape)
    package = load_package(path)

    ranged, listed = package.inputs[0], package.outputs[0]

    assert [ranged.accepts(shape) for shape in ((1, 5, 99), (1, 6, 3), (1, 1, 3), (1, 2))] == [
        True,
        False,
        False,
        False,
    ]
    assert [listed.accepts(shape) for shape in ((3, 4), (3, 2))] == [True, False]
    with pytest.raises(ExportError, match=r"input 'x' fp32 \(1, 2\.\.5, 3\.\.\) got an array of"):
        bind_inputs(package.inputs, {"x": np.zeros((2, 2, 3), np.float32)})


def test_targets_are_told_apart(tmp_path):
    packages = [
        load_package(
            save_program(tmp_path / f"{i}.mlpackage", lambda x: {"y": mb.relu(x=x)}, X, target=t)
        )
        for i, t in enumerate((IOS16, IOS18))
    ]

    assert [(p.program.opset, p.specification_version) for p in packages] == [
        ("CoreML6", 7),
        ("CoreML8", 9),
    ]
