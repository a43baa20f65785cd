"""Counting a network in PyTorch; see `edgeseg.bench.counts`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from edgeseg.bench.counts import NetworkCounts, Product
from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.promptable import ImageFeatures, PromptableNet
from edgeseg.modeling.registry import build_model
from edgeseg.modeling.reparam import fuse


class _Products(TorchDispatchMode):
    """Lists the operations that `torch.utils.flop_counter` has a formula for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Product] = []

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  # as torch declares it
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        answer = func(*args, **(kwargs or {}))
        count_flops = flop_registry.get(func.overloadpacket)
        if count_flops is not None:
            flops = count_flops(*args, **(kwargs or {}), out_val=answer)
            written = answer[0] if isinstance(answer, tuple) else answer
            read = sum(value.numel() for value in args if isinstance(value, Tensor))
            self.found.append(Product(flops // 2, read, written.numel()))
        return answer


class CountedNetwork:
    """A network without weights, branches and norms folded, whose parts can be listed.

    The encoder lies on the `meta` device and computes nothing; the decoder's few branches look at
    values, so it computes, but what it computes does not matter.

    Args:
        name: Registry name.
        image_size: Side of the input, in pixels.
    """

    def __init__(self, name: str, image_size: int) -> None:
        with torch.device("meta"):
            net = build_model(name, image_size).eval().requires_grad_(False)
            if net.mask_decoder.high_res_s8 is not None:
                net.add_proposal_head()
        self.modules: dict[str, list[nn.Module]] = {
            "encoder": [net.image_encoder],
            "decoder": [net.prompt_encoder, net.mask_decoder],
        }
        head = net.proposal_head
        if head is not None:
            self.modules["proposals"] = [head]
        deployed = PromptableNet(
            fuse(net.image_encoder),
            net.prompt_encoder.to_empty(device="cpu"),
            net.mask_decoder.to_empty(device="cpu"),
            image_size,
            net.name,
            None if head is None else fuse(head),
        )
        pixels = torch.empty(1, 3, image_size, image_size, device="meta")
        with torch.no_grad():
            features = deployed.encode(pixels)
        click = PromptBatch(torch.ones(1, 1, 2), torch.ones(1, 1, dtype=torch.int64), (1,))
        zeros = _zeros_like(features)
        self._calls: dict[str, Callable[[], object]] = {
            "encoder": lambda: deployed.encode(pixels),
            "decoder": lambda: deployed.decode(zeros, click),
            "proposals": lambda: deployed.propose(features),
        }

    def products(self, part: str) -> list[Product]:
        """List the products of one call of a part, in order."""
        with torch.no_grad(), _Products() as listing:
            self._calls[part]()
        return listing.found

    def num_parameters(self, part: str) -> int:
        """Return the stored numbers of a part, without norm statistics, before folding."""
        return sum(
            parameter.numel() for module in self.modules[part] for parameter in module.parameters()
        )


def count_parts(name: str, image_size: int) -> NetworkCounts:
    """Count a registered network; see `edgeseg.bench.counts.count_network`."""
    network = CountedNetwork(name, image_size)
    products = {part: network.products(part) for part in network.modules}
    return NetworkCounts(
        num_parameters={part: network.num_parameters(part) for part in products},
        macs={part: sum(each.macs for each in found) for part, found in products.items()},
        num_activations={
            part: sum(each.num_written for each in found) for part, found in products.items()
        },
    )


def list_products(name: str, image_size: int, parts: Sequence[str]) -> list[Product]:
    """Return the products of some parts of a registered network, one after the other."""
    network = CountedNetwork(name, image_size)
    return [product for part in parts for product in network.products(part)]


def default_image_size(name: str) -> int:
    """Return the side of a registered network's own input, in pixels."""
    with torch.device("meta"):
        return build_model(name).image_size


def _zeros_like(features: ImageFeatures) -> ImageFeatures:
    embedding, *high_res = (
        torch.zeros(feature.shape) for feature in (features.embedding, *(features.high_res or ()))
    )
    return ImageFeatures(embedding, (high_res[0], high_res[1]) if high_res else None)
