"""ONNX Runtime behind the interface that `Segmenter` asks of a backend."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.runtime.exported_model import ExportedModel, Graph, read_pair
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


class OnnxBackend:
    """Run an exported folder with ONNX Runtime. Threads may share it.

    Args:
        folder: What `edgeseg export` wrote.
        threads: Threads of one call; default: one a core.
        providers: Where to run: "auto" (CUDA, else Core ML, else CPU), "cpu", "cuda", "tensorrt",
            "coreml", "openvino", or ONNX Runtime's name of any other provider.
        strict: Refuse, instead of warning, when ONNX Runtime replaces the provider.

    Attributes:
        name: Registry name of the exported model.
        image_size: Side S of the square input, in pixels.
        normalises: Whether `encode` takes (S, S, 3) uint8 instead of normalised floats.
        slots: How many prompts and points the decoder takes in one call; more are split up.
        providers_used: For "encoder" and "decoder" the providers that really run operations of it,
            most operations first.

    Raises:
        WeightsError: The folder or a file is missing, damaged, or not what its manifest says.
        ConfigError: The provider is unknown, or unavailable under `strict`; or `threads` is below
            1.
    """

    def __init__(
        self,
        folder: Path | str,
        threads: int | None = None,
        providers: str = "auto",
        strict: bool = False,
    ) -> None:
        manifest, encoder_path, decoder_path = read_pair(Path(folder), "onnx")
        options = session_options(threads)
        chosen = choose_providers(providers, onnxruntime.get_available_providers(), strict)
        encoder = _OnnxGraph(encoder_path, options, chosen, strict)
        decoder = _OnnxGraph(decoder_path, options, chosen, strict)
        self.providers_used = {
            "encoder": encoder.providers_used,
            "decoder": decoder.providers_used,
        }
        self._model = ExportedModel(manifest, encoder, decoder)
        self.name = self._model.name
        self.image_size = self._model.image_size
        self.normalises = self._model.normalises
        self.slots = self._model.slots

    def encode(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Encode one model input; see `edgeseg.runtime.backend.Backend`."""
        return self._model.encode(pixels)

    def decode(
        self,
        features: tuple[NDArray[Any], ...],
        points_xy: NDArray[np.float32],
        point_labels: NDArray[np.int64],
        mask_logits: NDArray[np.float32] | None,
        has_mask: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decode N prompts of one image; see `edgeseg.runtime.backend.Backend`."""
        return self._model.decode(features, points_xy, point_labels, mask_logits, has_mask)


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
    options.log_severity_level = 3  # errors; what a warning would say is in `providers_used`
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
        self.providers_used = providers_of(self._session)
        check_used(path.name, wanted, self.providers_used, strict)
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
