"""Running ONNX models in memory, on the CPU, for the exporter's own checks."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx
import onnxruntime
import torch

from edgeseg.exporter.onnx_inputs import Arrays


def open_session(
    model: onnx.ModelProto, fuse_quantized: bool = True
) -> onnxruntime.InferenceSession:
    """Open a model in ONNX Runtime on the CPU, with as many threads as torch uses.

    Args:
        model: Any model.
        fuse_quantized: Let operators between DequantizeLinear and QuantizeLinear run on integers.
            ONNX Runtime then rounds float weights it finds there, with one scale a tensor.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "0" if fuse_quantized else "1")
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def runner_of(model: onnx.ModelProto, fuse_quantized: bool = True) -> Callable[[Arrays], Arrays]:
    """Return a function from inputs to outputs by name; see `open_session`."""
    session = open_session(model, fuse_quantized)
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def run_all(
    model: onnx.ModelProto, inputs: Iterable[Arrays], fuse_quantized: bool = True
) -> list[Arrays]:
    """Run a model on each of some inputs; see `open_session`."""
    run = runner_of(model, fuse_quantized)
    return [run(arrays) for arrays in inputs]


def largest_difference(ours: Sequence[Arrays], theirs: Sequence[Arrays]) -> float:
    """Return the largest absolute difference over all runs and outputs.

    Infinite if a shape differs or a number is not finite.
    """
    largest = 0.0
    for one, other in zip(ours, theirs, strict=True):
        for name, array in one.items():
            if array.shape != other[name].shape:
                return float("inf")
            difference = np.abs(array.astype(np.float64) - other[name])
            if not np.isfinite(difference).all():
                return float("inf")
            largest = max(largest, float(difference.max(initial=0.0)))
    return largest
