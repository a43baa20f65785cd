"""Exported ONNX files run by ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.runtime.exported_model import ExportedModel, Graph, read_graphs
from edgeseg.runtime.onnx_providers import (
    PROVIDERS,
    check_used,
    choose_providers,
    providers_of,
    report_replaced,
    short_name,
)
from edgeseg.signature import Precision, TensorSpec

_DTYPES: dict[str, Precision] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def open_onnx(
    folder: Path | str,
    threads: int | None = None,
    providers: str = "auto",
    strict: bool = False,
) -> ExportedModel:
    """Open an exported folder with ONNX Runtime. Threads may share the result.

    Args:
        folder: What `edgeseg export` wrote, in the format "onnx".
        threads: Threads of one call; default: one a core.
        providers: Where to run: "auto" (CUDA, else Core ML, else CPU), "cpu", "cuda", "tensorrt",
            "coreml", "openvino", or ONNX Runtime's name of any other provider.
        strict: Refuse, instead of warning, when ONNX Runtime replaces the provider.

    Returns:
        A backend; its `runs_on` names the providers that really run operations.

    Raises:
        WeightsError: The folder or a file is missing, damaged, or not what its manifest says.
        ConfigError: The provider is unknown, or unavailable under `strict`; or `threads` is below
            1.
    """
    manifest, paths = read_graphs(Path(folder), "onnx")
    options = session_options(threads)
    chosen = choose_providers(providers, onnxruntime.get_available_providers(), strict)
    graphs = {role: _OnnxGraph(path, options, chosen, strict) for role, path in paths.items()}
    return ExportedModel(manifest, **graphs)


def session_options(threads: int | None = None) -> onnxruntime.SessionOptions:
    """Return the options of every session: all graph optimisations, threads that do not spin.

    A thread that spins while it waits takes the core from whatever else the machine does.

    Args:
        threads: Threads of one call; None leaves it to ONNX Runtime, one a core.

    Raises:
        ConfigError: `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be 1 or more, got {threads}; leave it out for one a core")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_mem_pattern = False  # it keeps a second block of memory and saves no time
    options.log_severity_level = 3  # errors; what a warning would say is in `runs_on`
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def open_graph(path: Path, threads: int | None = None) -> Graph:
    """Open one file on the CPU, whatever it computes.

    Raises:
        WeightsError: The file is damaged or has a tensor of a type no EdgeSeg graph has.
    """
    return _OnnxGraph(path, session_options(threads), [PROVIDERS["cpu"]], strict=True)


class _OnnxGraph:
    """One file as a `Graph`."""

    def __init__(
        self,
        path: Path,
        options: onnxruntime.SessionOptions,
        providers: list[str],
        strict: bool,
    ) -> None:
        self._session, wanted = _open(path, options, providers, strict)
        self.runs_on = providers_of(self._session)
        check_used(path.name, wanted, self.runs_on, strict)
        self.inputs = [_spec(path, tensor) for tensor in self._session.get_inputs()]
        self.output_names = [tensor.name for tensor in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        answers = self._session.run(self.output_names, dict(feeds))
        return dict(zip(self.output_names, answers, strict=True))


def _open(
    path: Path, options: onnxruntime.SessionOptions, providers: list[str], strict: bool
) -> tuple[onnxruntime.InferenceSession, str]:
    """Open a session, on the CPU if the best provider fails; return it and who it was opened for.

    ONNX Runtime's own fallback prints to stdout, so it is done here.
    """
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=providers, enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        reason = str(error).splitlines()[0]
        if providers[0] == PROVIDERS["cpu"]:
            raise WeightsError(
                f"ONNX Runtime cannot open {path}: {reason}; export it again"
            ) from error
        opened = _open(path, options, [PROVIDERS["cpu"]], strict)  # a damaged file fails here, too
        report_replaced(
            f"execution provider {short_name(providers[0])} cannot run {path}, which now runs on "
            f"the CPU: {reason}; choose another provider or export for this one",
            strict,
        )
        return opened
    return session, providers[0]


def _spec(path: Path, tensor: onnxruntime.NodeArg) -> TensorSpec:
    if tensor.type not in _DTYPES:
        raise WeightsError(
            f"{path} has an input {tensor.name} of type {tensor.type}, which no EdgeSeg graph has; "
            "export it again"
        )
    shape = tuple(size if isinstance(size, int) else str(size) for size in tensor.shape)
    return TensorSpec(tensor.name, shape, _DTYPES[tensor.type])
