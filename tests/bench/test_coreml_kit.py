import ast
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeseg.bench import coreml_kit
from edgeseg.bench.coreml_kit import (
    compute_unit_shares,
    declare_pixels_as_array,
    first_line,
    open_model,
    random_inputs,
)
from edgeseg.errors import BenchError, MissingExtraError
from edgeseg.export_manifest import ExportedFile, ExportedTensor
from edgeseg.exporter.coreml_tools import load_coremltools

INPUTS = {
    "image_rgb": ((64, 64, 3), "uint8"),
    "points_xy_model": ((1, 6, 2), "float32"),
    "point_labels": ((1, 6), "int32"),
    "has_mask": ((1,), "float32"),
    "image_embedding": ((1, 32, 4, 4), "float32"),
}


def file_with_inputs():
    tensors = [
        ExportedTensor(name=name, shape=shape, dtype=dtype)
        for name, (shape, dtype) in INPUTS.items()
    ]
    return ExportedFile(
        path="a.mlpackage", role="encoder", sha256="0" * 64, size_bytes=1,
        inputs=tuple(tensors), outputs=(),
    )  # fmt: skip


def test_inputs_are_a_picture_and_clicks_on_it():
    pytest.importorskip("PIL")

    inputs = random_inputs(file_with_inputs(), 64, as_image=True)

    assert (inputs["image_rgb"].mode, inputs["image_rgb"].size) == ("RGB", (64, 64))
    assert inputs["points_xy_model"].shape == (1, 6, 2)
    assert 16 < inputs["points_xy_model"].max() < 64  # somewhere on 64 pixels, not only near 0
    assert inputs["point_labels"].dtype == np.int32
    assert (inputs["point_labels"] == 1).all()
    assert not inputs["has_mask"].any()
    assert inputs["image_embedding"].shape == (1, 32, 4, 4)
    assert inputs["image_embedding"].dtype == np.float32


def test_pixels_can_be_numbers_in_the_order_of_the_program():
    pytest.importorskip("PIL")
    picture = np.asarray(random_inputs(file_with_inputs(), 64, as_image=True)["image_rgb"])

    pixels = random_inputs(file_with_inputs(), 64, as_image=False)["image_rgb"]

    assert pixels.shape == (1, 3, 64, 64)
    assert pixels.dtype == np.float32
    assert pixels[0, 2, 5, 7] == picture[5, 7, 2]
    assert pixels.flags.c_contiguous  # its bytes are sent in this order


def operation(unit, cost):
    device = None if unit is None else type(unit, (), {})()
    return SimpleNamespace(
        compute_device_usage=device and SimpleNamespace(preferred_compute_device=device),
        measurement=SimpleNamespace(statistics=cost and SimpleNamespace(average=cost)),
    )


def test_shares_are_those_of_operations_and_of_cost():
    operations = [
        operation("MLCPUComputeDevice", 6.0),
        operation("MLNeuralEngineComputeDevice", 1.0),
        operation("MLNeuralEngineComputeDevice", 1.0),
        operation("MLGPUComputeDevice", 2.0),
        operation(None, None),  # a constant
    ]

    assert compute_unit_shares(operations) == (
        "neural engine 50 %, cpu 25 %, gpu 25 % of operations "
        "(cpu 60 %, neural engine 20 %, gpu 20 % of estimated cost)"
    )


def test_operations_without_an_estimate_still_count():
    operations = [operation("MLNeuralEngineComputeDevice", 4.0)] * 2
    operations.append(operation("MLCPUComputeDevice", None))

    assert compute_unit_shares(operations) == (
        "neural engine 67 %, cpu 33 % of operations "
        "(neural engine 100 %, cpu 0 % of estimated cost)"
    )


def test_without_any_estimate_only_operations_are_told():
    assert compute_unit_shares([operation("MLGPUComputeDevice", None)]) == "gpu 100 % of operations"


def test_an_unknown_unit_keeps_its_name_and_an_empty_plan_is_told():
    assert compute_unit_shares([operation("MLOther", 1.0)]).startswith(
        "MLOther 100 % of operations"
    )
    assert compute_unit_shares([operation(None, None)]) == "compute plan empty"


def test_an_error_becomes_one_line():
    assert first_line(ValueError("\nfirst\nsecond")) == "first"
    assert first_line(ValueError()) == "ValueError"


def test_without_coremltools_the_command_to_install_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'edgeseg\[export\]'"):
        coreml_kit.load_kit()


def test_images_are_declared_as_the_arrays_of_the_program():
    coremltools = quiet_coremltools()
    spec = image_program(coremltools, rows=2, columns=5)

    declare_pixels_as_array(spec)

    array = spec.description.input[0].type.multiArrayType
    assert spec.description.input[0].type.WhichOneof("Type") == "multiArrayType"
    assert list(array.shape) == [1, 3, 2, 5]
    assert array.dataType == array.ArrayDataType.Value("FLOAT16")  # as the program has it
    assert spec.description.input[1].type.WhichOneof("Type") == "multiArrayType"
    assert list(spec.description.input[1].type.multiArrayType.shape) == [7]


def test_a_package_that_is_not_there_is_reported(tmp_path):
    quiet_coremltools()

    with pytest.raises(
        BenchError, match="coremltools cannot read .*none.mlpackage: .*export it ag"
    ):
        open_model(tmp_path / "none.mlpackage", "cpu_only", True)


def quiet_coremltools():
    """Import it, if it is installed, without the warnings it has for other systems than macOS."""
    try:
        return load_coremltools()
    except MissingExtraError as error:
        pytest.skip(str(error))


def image_program(coremltools, rows, columns):
    """The head of an ML Program with an image and an array as inputs."""
    spec = coremltools.proto.Model_pb2.Model()
    function = spec.mlProgram.functions["main"]
    half = coremltools.proto.MIL_pb2.DataType.Value("FLOAT16")
    for name, sizes in (("numbers", [7]), ("image_rgb", [1, 3, rows, columns])):
        tensor = function.inputs.add(name=name).type.tensorType
        tensor.dataType = half
        for size in sizes:
            tensor.dimensions.add().constant.size = size
    image = spec.description.input.add(name="image_rgb").type.imageType
    image.height, image.width = rows, columns
    spec.description.input.add(name="numbers").type.multiArrayType.shape.append(7)
    return spec


# What coremltools is called with, and what is read of its answers. The source is read instead of
# imported: importing takes seconds, and half of it exists on macOS only.
FUNCTIONS = {
    ("perf_utils.py", "MLModelBenchmarker.__init__"): ["self", "model", "device"],
    ("perf_utils.py", "MLModelBenchmarker.benchmark_predict"): [
        "self", "inputs", "iterations", "warmup",
    ],
    ("perf_utils.py", "MLModelBenchmarker.benchmark_operation_execution"): [
        "self", "inputs", "iterations", "warmup",
    ],
    ("async_wrapper.py", "MLModelAsyncWrapper.unload"): ["self"],
    ("remote_device.py", "Device.get_connected_devices"): ["device_type"],
    ("remote_device.py", "Device.prepare_for_model_debugging"): [
        "self", "credentials", "working_directory", "clean",
    ],
    ("remote_device.py", "_AppSession.stop"): ["self"],
}  # fmt: skip
FIELDS = {
    ("perf_utils.py", "Statistics"): {"average"},
    ("perf_utils.py", "Measurement"): {"statistics", "samples"},
    ("perf_utils.py", "OperationExecutionInfo"): {"compute_device_usage", "measurement"},
    ("remote_device.py", "Device"): {"udid", "os_version", "session"},
    ("remote_device.py", "AppSigningCredentials"): {
        "development_team", "provisioning_profile_uuid", "bundle_identifier",
    },
    ("../../compute_plan.py", "MLComputePlanDeviceUsage"): {"preferred_compute_device"},
}  # fmt: skip


def source_of(name):
    spec = importlib.util.find_spec("coremltools")
    if spec is None:
        pytest.skip("coremltools is not installed")
    folder = Path(spec.origin).parent / "models" / "ml_program" / "experimental"
    return ast.parse((folder / name).read_text("utf-8"))


@pytest.mark.parametrize(("place", "arguments"), FUNCTIONS.items())
def test_coremltools_still_takes_what_it_is_given(place, arguments):
    name, dotted = place
    owner, method = dotted.split(".")
    (owner_node,) = classes(source_of(name), owner)

    (function,) = (node for node in owner_node.body if getattr(node, "name", "") == method)

    assert [argument.arg for argument in function.args.args] == arguments


@pytest.mark.parametrize(("place", "fields"), FIELDS.items())
def test_coremltools_still_has_what_is_read(place, fields):
    name, owner = place
    (owner_node,) = classes(source_of(name), owner)

    annotated = {node.target.id for node in owner_node.body if isinstance(node, ast.AnnAssign)}

    assert fields <= annotated


def classes(tree, name):
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name]


def test_coremltools_still_keeps_the_loaded_model_where_it_is_unloaded():
    (owner,) = classes(source_of("perf_utils.py"), "MLModelBenchmarker")

    assert "self._loaded_model" in ast.unparse(owner)


@pytest.mark.parametrize("device", coreml_kit._UNITS)
def test_compute_units_still_have_these_names(device):
    assert len(classes(source_of("../../compute_device.py"), device)) == 1
