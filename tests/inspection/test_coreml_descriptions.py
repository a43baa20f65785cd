import os
import shutil
import sys

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.proto import Model_pb2

from edgeseg.errors import EdgesegError, ExportError
from edgeseg.exporter.coreml_tools import quiet_coremltools
from edgeseg.inspection import coreml_packages
from edgeseg.inspection.coreml_packages import UnreadCoremlFacts, describe_coreml
from edgeseg.inspection.coreml_weights import StoredNumbers
from edgeseg.inspection.description import TensorFacts

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


def save(path, program):
    """Save a program as it is written."""
    with quiet_coremltools(path.parent):
        convert(program).save(str(path))
    return path


def convert(program):
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
    )
    model.user_defined_metadata["edgeseg.model"] = "edgeseg_s"
    model.author = "Somebody"
    return model


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A package of one linear layer with 64 * 32 weights, and a relu."""

    @mb.program(input_specs=[mb.TensorSpec((1, 32), types.fp32)], opset_version=ct.target.iOS16)
    def program(x):
        weight = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
        return mb.relu(x=mb.linear(x=x, weight=weight, bias=np.ones(64, np.float32)), name="answer")

    return save(tmp_path_factory.mktemp("plain") / "a.mlpackage", program)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """A package with a weight of 64 * 32 numbers from a palette of four, and one of 8 bits."""

    @mb.program(input_specs=[mb.TensorSpec((1, 32), types.fp32)], opset_version=ct.target.iOS16)
    def program(x):
        palette = mb.constexpr_lut_to_dense(
            lut=np.float32([1, 2, 3, 4]),
            indices=np.zeros(64 * 32 * 2 // 8, np.uint8),  # two bits each
            shape=np.uint32([64, 32]),
        )
        linear = mb.constexpr_affine_dequantize(
            quantized_data=np.ones((16, 64), np.int8),
            zero_point=np.int8(0),
            scale=np.float32(0.5),
            axis=np.int32(0),
        )
        return mb.linear(x=mb.linear(x=x, weight=palette), weight=linear, name="answer")

    return save(tmp_path_factory.mktemp("packed") / "a.mlpackage", program)


@pytest.fixture
def copy(plain, tmp_path):
    """A package that a test may damage."""
    return shutil.copytree(plain, tmp_path / "copy.mlpackage")


def change_manifest(package, new):
    manifest = package / "Manifest.json"
    manifest.write_text(manifest.read_text().replace("com.apple.CoreML/model.mlmodel", new))


def test_a_package_tells_what_it_takes_gives_computes_and_holds(plain):
    facts, notes = describe_coreml(plain)

    assert (facts.model_type, facts.specification_version, facts.opset) == (
        "mlProgram",
        7,
        "CoreML6",
    )
    assert facts.inputs == (TensorFacts("x", (1, 32), "float32"),)
    assert [tensor.name for tensor in facts.outputs] == ["answer"]
    assert facts.operations == {"linear": 1, "relu": 1}
    assert facts.num_parameters == 64 * 32 + 64
    assert facts.numbers_by_type == {"float32": 64 * 32 + 64}
    assert (facts.compression, notes) == ({}, ())
    assert facts.metadata["author"] == "Somebody"
    assert facts.summary == (
        "Core ML package of `edgeseg_s`, specification 7 (iOS 16), 2 operations, 2,112 parameters "
        "(2,112 float32)"
    )


def test_compressed_weights_count_as_the_numbers_they_stand_for(compressed):
    facts, _ = describe_coreml(compressed)

    biases = 64 + 16  # a linear layer always has them
    assert facts.num_parameters == 64 * 32 + 16 * 64 + biases
    assert facts.numbers_by_type["uint8"] == 64 * 32 * 2 // 8
    assert facts.numbers_by_type["int8"] == 16 * 64
    assert facts.compression == {"palette of 4 values": 1, "linear": 1}
    assert facts.operations == {"linear": 2}


def test_a_weight_file_that_is_cut_off_is_refused(copy):
    weights = copy / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-8])

    with pytest.raises(ExportError, match=r"weight\.bin: not a weight file as written"):
        describe_coreml(copy)


def test_weights_too_large_to_be_walked_are_told(copy, monkeypatch):
    monkeypatch.setattr(coreml_packages, "MAX_WEIGHT_BYTES", 100)

    _, notes = describe_coreml(copy)

    assert notes == ("weight.bin with 0.0 GB was not checked",)


@pytest.mark.parametrize("name", ["/dev/zero", "../../../secret", "com.apple.CoreML", "nowhere"])
def test_a_manifest_that_leads_outside_is_refused(copy, name):
    change_manifest(copy, name)

    with pytest.raises(ExportError, match="which is no file of the package"):
        describe_coreml(copy)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"rootModelIdentifier": 1}'])
def test_a_broken_manifest_is_refused(copy, text):
    (copy / "Manifest.json").write_text(text)

    with pytest.raises(ExportError, match=r"Manifest\.json is no manifest of a package"):
        describe_coreml(copy)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_in_the_place_of_a_file_is_refused(copy):
    (copy / MODEL).unlink()
    (copy / MODEL).symlink_to("/dev/zero")

    with pytest.raises(EdgesegError, match=r"model\.mlmodel is a link"):
        describe_coreml(copy)


def test_a_specification_that_is_none_is_refused(copy):
    (copy / MODEL).write_bytes(b"\xff\xff\xff")

    with pytest.raises(ExportError, match=r"model\.mlmodel is no Core ML specification"):
        describe_coreml(copy)


def test_an_input_of_unknown_type_is_refused_with_the_name_of_the_package(copy):
    model = Model_pb2.Model()
    model.ParseFromString((copy / MODEL).read_bytes())
    model.description.input[0].type.stringType.SetInParent()
    (copy / MODEL).write_bytes(model.SerializeToString())

    with pytest.raises(ExportError, match=r"copy\.mlpackage: input or output 'x' has type string"):
        describe_coreml(copy)


def test_another_type_of_model_is_told_without_operations(copy):
    model = Model_pb2.Model()
    model.ParseFromString((copy / MODEL).read_bytes())
    model.neuralNetwork.SetInParent()
    (copy / MODEL).write_bytes(model.SerializeToString())

    facts, _ = describe_coreml(copy)

    assert (facts.model_type, facts.operations) == ("neuralNetwork", {})
    assert facts.inputs == (TensorFacts("x", (1, 32), "float32"),)


@pytest.mark.parametrize("module", ["coremltools.proto", "edgeseg.exporter.mil.features"])
def test_without_its_readers_a_package_is_told_as_far_as_it_goes(plain, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)

    facts, notes = describe_coreml(plain)

    assert isinstance(facts, UnreadCoremlFacts)
    assert facts.kind == "core ml package"
    assert "python -m pip install 'edgeseg[export]'" in notes[0]


def test_a_weight_of_any_stated_size_takes_no_memory():
    from edgeseg.exporter.mil.element_types import element_type

    stored = StoredNumbers()

    array = stored.read("", 0, element_type("fp16"), (2**20, 2**20))

    assert (array.shape, array.dtype) == ((2**20, 2**20), np.float16)
    assert stored.by_type == {"float16": 2**40}
    with pytest.raises(ExportError, match="cannot have the shape"):
        stored.read("", 0, element_type("fp16"), (2**62, 2**62))
