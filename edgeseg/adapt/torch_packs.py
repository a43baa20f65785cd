"""Packs in PyTorch: their vectors, and a backend that chooses among them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.adapt.adapted import AdaptedNet
from edgeseg.adapt.settings import parse_settings
from edgeseg.data.records import ImageRecord
from edgeseg.errors import WeightsError
from edgeseg.modeling.checkpoints import fingerprint
from edgeseg.modeling.promptable import ImageFeatures, PromptableNet
from edgeseg.modeling.router_feature import router_feature
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.packs import (
    PackManifest,
    find_packs,
    load_vectors,
    read_adapter,
    read_pack,
    read_vectors,
)
from edgeseg.preprocess import preprocess
from edgeseg.routing import AdaptableImage, DomainVectors, Router
from edgeseg.runtime.packed import PackedBackend


@torch.no_grad()
def image_vectors(net: PromptableNet, records: Sequence[ImageRecord]) -> NDArray[np.float32]:
    """Return the (M, D) float32 features of M images, by which a router knows them.

    Args:
        net: The base.
        records: The images, at least one.

    Raises:
        DataError: An image cannot be read.
        ImageError: An image cannot be decoded.
    """
    net.eval()
    device = next(net.parameters()).device
    rows = []
    for record in records:
        images = torch.from_numpy(preprocess(record.read_image(), net.image_size)).to(device)
        images = images.contiguous(memory_format=torch.channels_last)
        embedding = PromptableNet.encode(net, images).embedding
        rows.append(router_feature(images, embedding)[0].float().cpu().numpy())
    return np.stack(rows)


class TorchPack:
    """A trained pack as the runtime asks for one.

    Args:
        net: The base with the pack.
        backend: Of the base.
    """

    def __init__(self, net: AdaptedNet, backend: TorchBackend) -> None:
        self._net = net.eval()
        self._backend = backend
        is_shared = net.settings.decoder == "frozen"
        self.decoder = None if is_shared else TorchBackend(net, str(backend.device))

    @torch.inference_mode()
    def adapt(self, pixels: NDArray[Any], image: AdaptableImage) -> NDArray[Any]:
        """Return the adapted embedding; see `edgeseg.runtime.packed.Pack`."""
        read = image.neck_input if self._net.reads == "merged" else image.features[0]
        images = self._backend.model_input(pixels)
        read_tensor: Tensor = self._backend.tensor(read)
        adapted = self._net.adapt(images, ImageFeatures(read_tensor))
        return adapted.embedding.float().cpu().numpy()


def packed_backend(
    base: PromptableNet,
    nets: Mapping[str, AdaptedNet],
    router: Router | None,
    told: str | None = None,
    device: str = "cpu",
) -> PackedBackend:
    """Return a backend of a base and its packs.

    Args:
        base: The base.
        nets: The base with each pack, by the pack's name.
        router: Chooses among them.
        told: Pack for all images, "base" for none; None asks the router.
        device: Where to run.
    """
    backend = TorchBackend(base, device)
    packs = {name: TorchPack(net, backend) for name, net in nets.items()}
    return PackedBackend(backend, packs, router, told)


def router_of(natural: NDArray[np.float32], vectors: Sequence[DomainVectors]) -> Router:
    """Return the router among domains, with natural images as the class that needs no pack."""
    return Router(DomainVectors("natural", natural), vectors)


def load_packs(
    base: PromptableNet,
    folder: Path,
    natural: Path | None,
    told: str | None = None,
    device: str = "cpu",
) -> PackedBackend:
    """Load a base and all packs of a folder.

    Args:
        base: The model the packs were made for.
        folder: Of the packs.
        natural: Vectors of images that need no pack; without them a pack has to be told.
        told: Pack for all images, "base" for none; None asks the router.
        device: Where to run.

    Raises:
        WeightsError: A pack is damaged or of another base.
        ConfigError: There is no pack of the name that is told, or nothing chooses.
    """
    nets: dict[str, AdaptedNet] = {}
    vectors: list[DomainVectors] = []
    for path in find_packs(folder):
        pack = read_pack(path)
        check_base(base, pack)
        net = AdaptedNet(base, parse_settings(pack.settings, str(path)))
        net.load_pack_state(read_adapter(path), str(path))
        nets[pack.name] = net
        vectors.append(read_vectors(path))
    if not nets:
        raise WeightsError(f"{folder} holds no packs; make one with edgeseg adapt")
    router = None
    if natural is not None and told is None:
        router = router_of(load_vectors(natural, "natural").vectors, vectors)
    return packed_backend(base, nets, router, told, device)


def check_base(base: PromptableNet, pack: PackManifest) -> None:
    """Refuse a pack that was made for other weights or another input size.

    Raises:
        WeightsError: It was.
    """
    wanted = (pack.base.model, pack.base.image_size, pack.base.fingerprint)
    if wanted != (base.name, base.image_size, fingerprint(base)):
        raise WeightsError(
            f"the pack {pack.name} was made for {pack.base.model} at {pack.base.image_size} px "
            f"with the weights {pack.base.fingerprint[:12]}…, got {base.name} at "
            f"{base.image_size} px with {fingerprint(base)[:12]}…; load that base, or make the "
            "pack again"
        )
