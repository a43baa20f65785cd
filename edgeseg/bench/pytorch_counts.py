"""Counting a network in PyTorch; see `edgeseg.bench.counts`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.promptable import ImageFeatures, PromptableNet
from edgeseg.modeling.registry import build_model
from edgeseg.modeling.reparam import fuse

_PRODUCTS = ("convolution", "mm", "bmm", "addmm", "baddbmm", "_scaled_dot_product")


class _WrittenNumbers(TorchDispatchMode):
    """Sums up what convolutions and matrix products write."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  # as torch declares it
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        answer = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__.startswith(_PRODUCTS):
            first = answer[0] if isinstance(answer, tuple) else answer
            self.total += first.numel()
        return answer


def count_parts(
    name: str, image_size: int
) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Return parameters, multiply-accumulates and activations of a network, each by part."""
    with torch.device("meta"):
        net = build_model(name, image_size).eval()
        if net.mask_decoder.high_res_s8 is not None:
            net.add_proposal_head()
    parts: dict[str, list[nn.Module]] = {
        "encoder": [net.image_encoder],
        "decoder": [net.prompt_encoder, net.mask_decoder],
    }
    if net.proposal_head is not None:
        parts["proposals"] = [net.proposal_head]
    # Its few branches look at values, so the decoder computes; what it computes does not matter.
    prompt_encoder, mask_decoder = net.prompt_encoder, net.mask_decoder
    computing = prompt_encoder.to_empty(device="cpu"), mask_decoder.to_empty(device="cpu")
    encoder = fuse(net.image_encoder)
    head = None if net.proposal_head is None else fuse(net.proposal_head)
    deployed = PromptableNet(encoder, *computing, image_size, net.name, head).requires_grad_(False)
    with torch.no_grad():
        pixels = torch.empty(1, 3, image_size, image_size, device="meta")
        features = deployed.encode(pixels)
        prompts = PromptBatch(torch.ones(1, 1, 2), torch.ones(1, 1, dtype=torch.int64), (1,))
        zeros = _zeros_like(features)
        calls: dict[str, Callable[[], object]] = {
            "encoder": lambda: deployed.encode(pixels),
            "decoder": lambda: deployed.decode(zeros, prompts),
            "proposals": lambda: deployed.propose(features),
        }
        counted = {part: _work(calls[part]) for part in parts}
    parameters = {
        part: sum(_num_numbers(module) for module in modules) for part, modules in parts.items()
    }
    macs = {part: work for part, (work, _) in counted.items()}
    return parameters, macs, {part: written for part, (_, written) in counted.items()}


def _zeros_like(features: ImageFeatures) -> ImageFeatures:
    embedding, *high_res = (
        torch.zeros(feature.shape) for feature in (features.embedding, *(features.high_res or ()))
    )
    return ImageFeatures(embedding, (high_res[0], high_res[1]) if high_res else None)


def _work(call: Callable[[], object]) -> tuple[int, int]:
    with FlopCounterMode(display=False) as flops, _WrittenNumbers() as written:
        call()
    return flops.get_total_flops() // 2, written.total


def _num_numbers(module: nn.Module) -> int:
    numbers: list[Tensor] = list(module.parameters())
    return sum(parameter.numel() for parameter in numbers)
