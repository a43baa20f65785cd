"""Small Core ML packages made by coremltools, for tests of the interpreter."""

import contextlib
import warnings
from pathlib import Path
from unittest import mock

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.proto import Model_pb2

from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package

IOS16, IOS17, IOS18 = ct.target.iOS16, ct.target.iOS17, ct.target.iOS18
FP16, FP32, INT32 = types.fp16, types.fp32, types.int32
MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


@contextlib.contextmanager
def converter_warnings():
    """Let pass what coremltools 9.0 warns about: its own old names, its temporary folders."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Function _TORCH_OPS_REGISTRY", DeprecationWarning)
        warnings.filterwarnings("ignore", r"Implicitly cleaning up", ResourceWarning)
        # After every conversion it collects garbage, which takes longer than to convert.
        with mock.patch("coremltools.converters._converters_entry.gc"):
            yield


def save_program(path: Path, build, x, y=None, target=IOS16) -> Path:
    """Save a program whose outputs are what `build` returns: MIL variables by output name.

    Args:
        path: The package to write.
        build: Called with the variables x and y.
        x: The first input, as an array; its shape and type are declared.
        y: The second input.
        target: Whose set of operations is used.
    """
    specs = [
        mb.TensorSpec(a.shape, types.numpy_type_to_builtin_type(a.dtype))
        for a in (x, y)
        if a is not None
    ]

    def named(*variables):
        for name, variable in build(*variables).items():
            variable.op.outputs[variable.op.outputs.index(variable)].name = name
            yield variable

    if y is None:
        program = mb.program(input_specs=specs, opset_version=target)(lambda x: tuple(named(x)))
    else:
        program = mb.program(input_specs=specs, opset_version=target)(
            lambda x, y: tuple(named(x, y))
        )
    with converter_warnings():
        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target,
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,  # the operations stay as they were written
        ).save(str(path))
    return path


def save_assorted(path: Path) -> Path:
    """Save a program of one input that has constants of every storage."""

    def build(x):
        weight = np.arange(12, dtype=np.float32).reshape(4, 3)
        return {
            "product": mb.linear(x=x, weight=weight),
            "half": mb.cast(x=mb.const(val=np.float16([0.5, 70])), dtype="fp32"),
            "part": mb.slice_by_index(
                x=mb.softmax(x=x, axis=-2),
                begin=[0, 1, 0],
                end=[1, 2, 3],
                end_mask=[True, False, False],
            ),
        }

    return save_program(path, build, np.zeros((1, 2, 3), np.float32))


def save_doubling(path: Path) -> Path:
    """Save a program that gives 2 * x of (1, 3) floats, and an integer y as it is."""

    def build(x, y):
        return {"twice": mb.mul(x=x, y=np.float32(2)), "same": mb.identity(x=y)}

    return save_program(path, build, np.zeros((1, 3), np.float32), np.int32([1]))


def run_program(path: Path, build, x, y=None, target=IOS16, arithmetic="float32"):
    """Save a program as `save_program` does, load it and return its outputs by name."""
    interpreter = Interpreter(load_package(save_program(path, build, x, y, target)), arithmetic)
    return interpreter.run({"x": x} if y is None else {"x": x, "y": y})


def save_module(
    path: Path, module: torch.nn.Module, example, precision="FLOAT32", **options
) -> Path:
    """Convert a torch module as export does and save it; its output is called `answer`."""
    exported = torch.export.export(module.eval(), example).run_decompositions({})
    with converter_warnings():
        convert(exported, precision, **options).save(str(path))
    return path


def convert(exported, precision="FLOAT32", target=IOS16, **options):
    """Convert an exported torch program; float32 in and out unless said otherwise."""
    options.setdefault("outputs", [ct.TensorType("answer", dtype=np.float32)])
    return ct.convert(
        exported,
        minimum_deployment_target=target,
        compute_precision=getattr(ct.precision, precision),
        **options,
    )


@contextlib.contextmanager
def edited(path: Path):
    """Give the model message of a package and write it back, to make packages nobody would save."""
    model = Model_pb2.Model()
    model.ParseFromString((path / MODEL).read_bytes())
    yield model
    (path / MODEL).write_bytes(model.SerializeToString())


def block_of(model):
    """Return the operations of a model message."""
    function = model.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def operation_of(model, kind):
    """Return the first operation of a kind in a model message."""
    return next(each for each in block_of(model).operations if each.type == kind)
