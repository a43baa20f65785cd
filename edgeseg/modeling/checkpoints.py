"""Reading and writing weights: ours, official SAM checkpoints, published EdgeSAM checkpoints.

Our files are safetensors whose header says which model they are. Foreign `.pth` files are read
with `weights_only=True`, so a checkpoint cannot run code, and recognised by their entries. Loading
is strict: an error lists what is missing, unexpected or of another shape.
"""

import hashlib
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeseg.errors import WeightsError
from edgeseg.files import write_atomically
from edgeseg.manifest import find_weights
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.registry import MODELS, build_model

OPTIONAL_PREFIXES = (
    "mask_decoder.high_res_",
    "mask_decoder.refinement.",
    "prompt_encoder.prompt_map.",
    "proposal_head.",
)
"""Parts that SAM does not have and that change no mask at their initial weights."""

_KEPT_FLOAT32 = ("running_mean", "running_var", "positional_encoding_gaussian_matrix")
_DECODER_PARTS = ("prompt_encoder", "mask_decoder")
_VIT_WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


def save_weights(net: PromptableNet, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the weights of a network as safetensors, atomically.

    Args:
        net: Its name and input size go into the header.
        path: A file name ending in .safetensors.
        dtype: torch.float16 halves the file. Norm statistics stay float32, since variances may
            exceed the range of float16, and so do the frequencies of the positional encoding, since
            a rounded frequency is another position.
    """
    state = {}
    for name, tensor in net.state_dict().items():
        keep = name.endswith(_KEPT_FLOAT32) or not tensor.is_floating_point()
        state[name] = tensor.detach().cpu().to(tensor.dtype if keep else dtype).contiguous()
    header = {"format": "edgeseg", "model": net.name, "image_size": str(net.image_size)}
    write_atomically(path, lambda temporary: save_file(state, temporary, header))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a weight file.

    Args:
        path: A .safetensors file, or a .pth / .pt file with a state dict, possibly under the key
            "model" or "state_dict".

    Returns:
        The tensors as float32, and the header of a safetensors file (empty for others).

    Raises:
        WeightsError: The file cannot be read, or it holds anything but tensors.
    """
    state, header = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise WeightsError(
            f"{path} holds no state dict; save net.state_dict(), names with tensors, alone"
        )
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}, header


def _read_safetensors(path: Path) -> tuple[Any, dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"cannot read weights from {path}: {error}; fetch or write the file again"
        ) from error


def _read_pickle(path: Path) -> tuple[Any, dict[str, str]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd protocols of damaged files; they fail below
            mapped = zipfile.is_zipfile(path)  # as torch writes since 2020; read only what is used
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), {}
    except OSError as error:
        raise WeightsError(f"cannot read weights from {path}: {error.strerror or error}") from error
    except UnpicklingError as error:
        raise WeightsError(
            f"cannot read weights from {path}: it is damaged or holds Python objects, and reading "
            "objects could run code; save the state dict alone, or as .safetensors"
        ) from error
    except Exception as error:  # a damaged pickle fails in any way, KeyError and struct.error too
        raise WeightsError(
            f"cannot read weights from {path}: the file is damaged ({type(error).__name__}) or no "
            "PyTorch checkpoint; fetch it again"
        ) from error


def load_strict(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load weights into a module, all of them.

    The parts in `OPTIONAL_PREFIXES` may be missing as a whole; they are then left as built, where
    they change nothing.

    Raises:
        WeightsError: With the entries that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state and not _is_optional(name, state)]
    unexpected = [name for name in state if name not in own]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if missing or unexpected or reshaped:
        found = [
            f"{kind}: {_shortened(names)}"
            for kind, names in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("other shape", reshaped),
            )
            if names
        ]
        raise WeightsError(
            f"{source} does not fit {_name(module)}; {'; '.join(found)}; "
            "use weights made for this network"
        )
    module.load_state_dict({name: state.get(name, tensor) for name, tensor in own.items()})


def load_state(net: PromptableNet, state: dict[str, Tensor], source: str) -> None:
    """Load all weights of a network, with a proposal head if they have one.

    Raises:
        WeightsError: They do not fit; see `load_strict`.
    """
    if any(name.startswith("proposal_head.") for name in state) and net.proposal_head is None:
        net.add_proposal_head()
    load_strict(net, state, source)


def _is_optional(name: str, state: dict[str, Tensor]) -> bool:
    for prefix in OPTIONAL_PREFIXES:
        if name.startswith(prefix):
            return not any(other.startswith(prefix) for other in state)
    return False


def _shortened(names: list[str], shown: int = 6) -> str:
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _name(module: nn.Module) -> str:
    return module.name if isinstance(module, PromptableNet) else type(module).__name__


def recognise(state: dict[str, Tensor], header: dict[str, str], source: str) -> str:
    """Return the registry name of the model a weight file is for.

    Raises:
        WeightsError: It is none we know.
    """
    if header.get("format") == "edgeseg":
        if header.get("model") in MODELS:
            return header["model"]
        raise WeightsError(
            f"{source} says it is the model {header.get('model')!r}, which this version does not "
            f"know; update edgeseg, or name one of {', '.join(sorted(MODELS))}"
        )
    patch = state.get("image_encoder.patch_embed.proj.weight")
    if patch is not None and patch.shape[0] in _VIT_WIDTHS:
        return _VIT_WIDTHS[patch.shape[0]]
    if "image_encoder.features.0.0.c.weight" in state:
        return "edgesam"
    raise WeightsError(
        f"{source} is no checkpoint of SAM, EdgeSAM or EdgeSeg: its first entries are "
        f"{_shortened(list(state), 3) or 'none'}; name the model it was made for"
    )


def load_model(
    name_or_path: str | Path, image_size: int | None = None, model: str | None = None
) -> PromptableNet:
    """Build the network a weight file is for and load it.

    Args:
        name_or_path: A released model's name, a model folder, a .safetensors or a .pth file.
        image_size: Side of the input in pixels, a multiple of 64; default: as trained.
        model: Registry name, for files that do not say it themselves.

    Returns:
        The network in eval mode, in channels-last memory.

    Raises:
        WeightsError: There is no such file, it is unreadable, unknown or does not fit.
        ConfigError: `model` is unknown.
        ImageError: `image_size` is not a multiple of 64.
    """
    path = find_weights(name_or_path)
    state, header = read_state(path)
    name = model or recognise(state, header, str(path))
    if image_size is None and header.get("image_size", "").isdecimal():
        image_size = int(header["image_size"])
    net = build_model(name, image_size)
    load_state(net, state, str(path))
    return net.to(memory_format=torch.channels_last).eval()


def copy_decoder(source: PromptableNet, target: PromptableNet) -> None:
    """Give a network the prompt encoder and mask decoder weights of another, strictly.

    High-resolution skips and the prompt map are copied where both networks have the very same ones;
    else the target keeps its own, which change nothing until they are trained.

    Raises:
        WeightsError: The two have decoders of different widths; the target is left as it was.
    """
    _load_decoder(target, source.state_dict(), f"the decoder of {source.name}")


def load_decoder(net: PromptableNet, path: Path) -> None:
    """Load only prompt encoder and mask decoder of a SAM, EdgeSAM or EdgeSeg weight file.

    High-resolution skips and the prompt map are treated as `copy_decoder` does.

    Raises:
        WeightsError: The file is unreadable or its decoder does not fit; the network is left as it
            was.
    """
    _load_decoder(net, read_state(path)[0], str(path))


def _load_decoder(net: PromptableNet, state: dict[str, Tensor], source: str) -> None:
    own = net.state_dict()
    wanted = {name: t for name, t in state.items() if name.startswith(_DECODER_PARTS)}
    for prefix in OPTIONAL_PREFIXES:
        if _shapes(own, prefix) != _shapes(wanted, prefix):
            wanted = {name: t for name, t in wanted.items() if not name.startswith(prefix)}
            wanted |= {name: t for name, t in own.items() if name.startswith(prefix)}
    kept = {name: t for name, t in own.items() if not name.startswith(_DECODER_PARTS)}
    load_strict(net, kept | wanted, source)


def _shapes(state: dict[str, Tensor], prefix: str) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items() if name.startswith(prefix)}


def fingerprint(net: nn.Module) -> str:
    """Return a SHA-256 over names, shapes and values of all weights, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
