"""Reading and writing weights: ours, official SAM checkpoints, published EdgeSAM checkpoints.

Our files are safetensors whose header says which model they are. Foreign `.pth` files are read
with `weights_only=True`, so a checkpoint cannot run code, and recognised by their entries. Loading
is strict: an error lists what is missing, unexpected or of another shape.
"""

import hashlib
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeseg.errors import WeightsError
from edgeseg.files import write_atomically
from edgeseg.manifest import find_weights
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.registry import build_model

OPTIONAL_PREFIXES = ("mask_decoder.high_res_", "prompt_encoder.prompt_map.")
"""Parts that SAM does not have and that change nothing at their initial weights."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_VIT_WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


def save_weights(net: PromptableNet, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the weights of a network as safetensors, atomically.

    Args:
        net: Its name and input size go into the header.
        path: A file name ending in .safetensors.
        dtype: torch.float16 halves the file; norm statistics stay float32, since variances may
            exceed the range of float16.
    """
    state = {}
    for name, tensor in net.state_dict().items():
        keep = name.endswith(_STATISTICS) or not tensor.is_floating_point()
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
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                header = dict(file.metadata() or {})
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_map(path))
            header = {}
    except (OSError, SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise WeightsError(f"cannot read weights from {path}: {reason}") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise WeightsError(f"{path} holds no state dict; expected names with tensors")
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}, header


def _can_map(path: Path) -> bool:
    return zipfile.is_zipfile(path)


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
                ("missing", missing), ("unexpected", unexpected), ("other shape", reshaped),
            )
            if names
        ]
        raise WeightsError(f"{source} does not fit {_name(module)}; {'; '.join(found)}")
    module.load_state_dict({name: state.get(name, tensor) for name, tensor in own.items()})


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
    if header.get("format") == "edgeseg" and "model" in header:
        return header["model"]
    patch = state.get("image_encoder.patch_embed.proj.weight")
    if patch is not None and patch.shape[0] in _VIT_WIDTHS:
        return _VIT_WIDTHS[patch.shape[0]]
    if "image_encoder.features.0.0.c.weight" in state:
        return "edgesam"
    raise WeightsError(
        f"{source} is no checkpoint of SAM, EdgeSAM or EdgeSeg; its first entries are "
        f"{_shortened(list(state), 3) or 'none'}"
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
        WeightsError: The file is unreadable or does not fit.
    """
    path = find_weights(name_or_path)
    state, header = read_state(path)
    name = model or recognise(state, header, str(path))
    trained_size = int(header["image_size"]) if "image_size" in header else None
    net = build_model(name, image_size or trained_size)
    load_strict(net, state, str(path))
    return net.to(memory_format=torch.channels_last).eval()


def copy_decoder(source: PromptableNet, target: PromptableNet) -> None:
    """Give a network the prompt encoder and mask decoder weights of another, strictly.

    High-resolution skips are copied only where both networks have the same ones.

    Raises:
        WeightsError: The two have decoders of different widths.
    """
    for part in ("prompt_encoder", "mask_decoder"):
        wanted = getattr(target, part).state_dict()
        state = {
            name: tensor
            for name, tensor in getattr(source, part).state_dict().items()
            if name in wanted or not _optional_in(part, name)
        }
        own = {n: t for n, t in wanted.items() if _optional_in(part, n)}
        state = {
            n: own[n] if n in own and own[n].shape != t.shape else t for n, t in state.items()
        }
        load_strict(getattr(target, part), own | state, f"the decoder of {source.name}")


def load_decoder(net: PromptableNet, path: Path) -> None:
    """Load only prompt encoder and mask decoder of an official SAM or EdgeSAM checkpoint.

    Raises:
        WeightsError: The file is unreadable or its decoder does not fit.
    """
    state, _ = read_state(path)
    for part in ("prompt_encoder", "mask_decoder"):
        inner = {n.removeprefix(f"{part}."): t for n, t in state.items() if n.startswith(f"{part}.")}
        own = getattr(net, part).state_dict()
        kept = {n: t for n, t in own.items() if _optional_in(part, n) and n not in inner}
        load_strict(getattr(net, part), kept | inner, str(path))


def _optional_in(part: str, name: str) -> bool:
    return f"{part}.{name}".startswith(OPTIONAL_PREFIXES)


def fingerprint(net: nn.Module) -> str:
    """Return a SHA-256 over names, shapes and values of all weights, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
