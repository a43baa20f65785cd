"""PyTorch behind the interface that the runtime's `Segmenter` asks of a backend."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.promptable import ImageFeatures, PromptableNet
from edgeseg.modeling.reparam import fuse
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
from edgeseg.proposals import CellProposals


class TorchBackend:
    """Run a network on arrays.

    Args:
        net: Any promptable network. It is not copied: it is put into eval mode and moved to the
            device, and what is trained into it later is seen here.
        device: Where to run it.
        fused: Fold branches and norms of the image encoder first, into a copy, which does not see
            later training.
        normalises: Take (S, S, 3) uint8 RGB and normalise it here, as exported files may do.
    """

    def __init__(
        self,
        net: PromptableNet,
        device: str = "cpu",
        fused: bool = False,
        normalises: bool = False,
    ) -> None:
        encoder = fuse(net.image_encoder) if fused else net.image_encoder
        self.name = net.name
        self.image_size = net.image_size
        self.normalises = normalises
        self.device = torch.device(device)
        head = net.proposal_head
        self._net = PromptableNet(
            encoder,
            net.prompt_encoder,
            net.mask_decoder,
            net.image_size,
            net.name,
            fuse(head) if fused and head is not None else head,
        )
        self._net.to(self.device).eval()

    @torch.inference_mode()
    def encode(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Encode one model input; see `edgeseg.runtime.backend.Backend`."""
        if self.normalises:
            planes = ((pixels - PIXEL_MEAN) / PIXEL_STD).transpose(2, 0, 1)
            pixels = np.ascontiguousarray(planes[None], np.float32)
        features = self._net.encode(
            self._tensor(pixels).contiguous(memory_format=torch.channels_last)
        )
        tensors = (features.embedding, *(features.high_res or ()))
        return tuple(tensor.float().cpu().numpy() for tensor in tensors)

    @torch.inference_mode()
    def decode(
        self,
        features: tuple[NDArray[Any], ...],
        points_xy: NDArray[Any],
        point_labels: NDArray[Any],
        mask_logits: NDArray[Any] | None,
        has_mask: NDArray[Any] | None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Decode N prompts of one image; see `edgeseg.runtime.backend.Backend`."""
        prompts = PromptBatch(
            self._tensor(points_xy),
            self._tensor(point_labels),
            (len(points_xy),),
            None if mask_logits is None else self._tensor(mask_logits),
            None if has_mask is None else self._tensor(has_mask),
        )
        output = self._net.decode(self._features(features), prompts)
        return output.low_res_logits.float().cpu().numpy(), output.iou_scores.float().cpu().numpy()

    @torch.inference_mode()
    def propose(self, features: tuple[NDArray[Any], ...]) -> CellProposals:
        """Propose boxes on one image; see `edgeseg.runtime.backend.ProposingBackend`."""
        output = self._net.propose(self._features(features))
        answers = output.boxes_xyxy, output.scores, output.click_logits
        return CellProposals(*(answer[0].float().cpu().numpy() for answer in answers))

    def _features(self, features: tuple[NDArray[Any], ...]) -> ImageFeatures:
        embedding, *high_res = (self._tensor(feature) for feature in features)
        return ImageFeatures(embedding, (high_res[0], high_res[1]) if high_res else None)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        if not array.flags.writeable:  # torch has no read-only tensors and warns
            array = array.copy()
        return torch.from_numpy(array).to(self.device)
