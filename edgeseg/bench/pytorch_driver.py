"""Networks in PyTorch, on processors and NVIDIA GPUs, with branches and norms folded.

Options of a contender on a GPU: `precision = "float16"`, `cuda_graph = "true"`. Memory is
channels-last. GPU calls are timed by CUDA events, features stay on the device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from edgeseg.bench.calls import Call, clicks, segmenter_calls
from edgeseg.bench.driver import Opened, Request
from edgeseg.bench.results import ContenderCard, Missing
from edgeseg.bench.stopwatch import DeviceTime
from edgeseg.bench.suite import ContenderConfig, split_part
from edgeseg.errors import ConfigError
from edgeseg.geometry import ModelFrame
from edgeseg.images import read_image
from edgeseg.manifest import find_weights, sha256_of
from edgeseg.modeling.checkpoints import load_model
from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.registry import MODELS, build_model
from edgeseg.modeling.reparam import fuse
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.runtime.model_input import model_input
from edgeseg.runtime.segmenter import Segmenter

_DEVICE = torch.device("cuda")
_PRECISIONS = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class PyTorchDriver:
    """Runs a network through the backend that distillation and evaluation use.

    Attributes:
        name: As suites call it.
        about: Where it runs.
        target: None: it needs no files.
        untested: Empty.
    """

    name: str = "pytorch"
    about: str = "PyTorch on the processor"
    target: str | None = None
    untested: str = ""

    def unavailable(self) -> str | None:
        """Return None: this module could be imported."""
        return None

    def open(self, request: Request) -> Opened:
        """Load or build the network and prepare a call of each part."""
        torch.set_num_threads(request.threads)
        net, sha256 = load_or_build(request.contender)
        backend = TorchBackend(net, fused=True)
        label = request.contender.label
        wanted = [part for part in request.parts if split_part(part)[0] != "batch"]
        calls, missing = segmenter_calls(Segmenter(backend), wanted, request.photo, label)
        pixels = model_input(read_image(request.photo), net.image_size)
        for part in request.parts:
            kind, count = split_part(part)
            if kind == "batch":
                calls[part] = partial(backend.encode, pixels.repeat(count, axis=0))
        return Opened(_card(request, net, sha256, "cpu", "float32"), calls, missing)


@dataclass(frozen=True)
class CudaDriver:
    """Runs a network on an NVIDIA GPU and lets CUDA events time it.

    Attributes:
        name: As suites call it.
        about: Where it runs.
        target: None: it needs no files.
        untested: It never ran on a GPU.
    """

    name: str = "pytorch:cuda"
    about: str = "PyTorch on an NVIDIA GPU, timed by CUDA events"
    target: str | None = None
    untested: str = "tested on a processor that plays the GPU, not yet on a device"

    def unavailable(self) -> str | None:
        """Return why it cannot run here, or None."""
        if torch.cuda.is_available():
            return None
        return f"PyTorch {torch.__version__} finds no CUDA device"

    def open(self, request: Request) -> Opened:
        """Load or build the network on the GPU and prepare a call of each part."""
        precision = request.contender.options.get("precision", "float32")
        if precision not in _PRECISIONS:
            raise ConfigError(
                f"the precision of {request.contender.label} must be float32 or float16, got "
                f"{precision!r}"
            )
        net, sha256 = load_or_build(request.contender)
        calls, missing = device_calls(request, net, _DEVICE, _PRECISIONS[precision])
        if request.contender.options.get("cuda_graph") == "true":
            calls = {part: _captured(call) for part, call in calls.items()}
        runs_on = torch.cuda.get_device_name(_DEVICE)
        timed = {part: partial(_cuda_time, call) for part, call in calls.items()}
        return Opened(_card(request, net, sha256, runs_on, precision), timed, missing)


def device_calls(
    request: Request, net: PromptableNet, device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Call], tuple[Missing, ...]]:
    """Prepare calls whose inputs and outputs stay on a device."""
    fused = PromptableNet(
        fuse(net.image_encoder),
        net.prompt_encoder,
        net.mask_decoder,
        net.image_size,
        net.name,
        None if net.proposal_head is None else fuse(net.proposal_head),
    )
    fused.eval().to(device, dtype).to(memory_format=torch.channels_last)
    image = read_image(request.photo)
    pixels = torch.from_numpy(model_input(image, net.image_size)).to(device, dtype)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    frame = ModelFrame((image.shape[0], image.shape[1]), net.image_size)
    with torch.inference_mode():
        features = fused.encode(pixels)
    calls: dict[str, Call] = {}
    missing = []
    for part in request.parts:
        kind, count = split_part(part)
        if kind in ("encoder", "batch"):
            calls[part] = partial(_inferred, fused.encode, pixels.repeat(count, 1, 1, 1))
        elif kind == "decoder":
            points_xy, labels = (torch.from_numpy(array) for array in clicks(frame, count))
            prompts = PromptBatch(points_xy.to(device, dtype), labels.to(device), (count,))
            calls[part] = partial(_inferred, fused.decode, features, prompts)
        elif kind == "proposals" and fused.proposal_head is not None:
            calls[part] = partial(_inferred, fused.propose, features)
        else:
            reason = "only networks are timed on the device; use onnx:cuda for whole programs"
            if kind == "proposals":
                reason = f"{net.name} has no proposal head"
            missing.append(Missing(label=request.contender.label, part=part, reason=reason))
    return calls, tuple(missing)


def open_segmenter(model: str, image_size: int | None, threads: int) -> Segmenter:
    """Return a segmenter that runs a network on the processor."""
    torch.set_num_threads(threads)
    net, _ = load_or_build(ContenderConfig(label=model, model=model, image_size=image_size))
    return Segmenter(TorchBackend(net, fused=True))


def load_or_build(contender: ContenderConfig) -> tuple[PromptableNet, str]:
    """Return a network and the hash of its weights, empty if they are random.

    Raises:
        WeightsError: There is neither such a model, nor such a file, nor such a network.
    """
    if contender.model in MODELS and not _is_released(contender.model):
        torch.manual_seed(0)
        return build_model(contender.model, contender.image_size).eval(), ""
    return load_model(contender.model, contender.image_size), sha256_of(
        find_weights(contender.model)
    )


def _is_released(name: str) -> bool:
    from edgeseg.manifest import MANIFEST_NAME, RELEASED

    return (RELEASED / name / MANIFEST_NAME).is_file()


def _card(
    request: Request, net: PromptableNet, sha256: str, runs_on: str, precision: str
) -> ContenderCard:
    return ContenderCard(
        label=request.contender.label,
        model=net.name,
        driver=request.contender.driver,
        runs_on=runs_on,
        precision=precision,
        image_size=net.image_size,
        weights_sha256=sha256,
    )


@torch.inference_mode()
def _inferred(call: Callable[..., object], *arguments: object) -> object:
    return call(*arguments)


def _cuda_time(call: Call) -> DeviceTime:
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    started.record()
    call()
    ended.record()
    torch.cuda.synchronize()
    return DeviceTime(started.elapsed_time(ended))


def _captured(call: Call) -> Call:
    """Record a call into a CUDA graph, after three calls on a side stream as PyTorch asks."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
