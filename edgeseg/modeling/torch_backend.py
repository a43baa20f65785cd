"""PyTorch behind the interface that the runtime's `Segmenter` asks of a backend."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.errors import WeightsError
from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.promptable import ImageFeatures, NeckedEncoder, PromptableNet
from edgeseg.modeling.router_feature import router_feature
from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
from edgeseg.proposals import CellProposals
from edgeseg.routing import AdaptableImage


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
        self.name = net.name
        self.image_size = net.image_size
        self.normalises = normalises
        self.device = torch.device(device)
        self._net = net.folded() if fused else net
        self._net.to(self.device).eval()

    @torch.inference_mode()
    def encode(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Encode one model input; see `edgeseg.runtime.backend.Backend`."""
        return _arrays(self._net.encode(self.model_input(pixels)))

    @torch.inference_mode()
    def encode_adaptable(self, pixels: NDArray[Any]) -> AdaptableImage:
        """Encode one model input for packs; see `edgeseg.runtime.packed.AdaptableBackend`.

        Raises:
            WeightsError: The encoder is not split before its neck.
        """
        images, encoder = self.model_input(pixels), self._net.image_encoder
        if not isinstance(encoder, NeckedEncoder):
            raise WeightsError(
                f"{self.name} has the encoder {type(encoder).__name__}, which takes no packs; use "
                "an EdgeSeg, EdgeSAM or SAM model"
            )
        before = encoder.before_neck(images)
        features = self._net.image_features(before.through(encoder.neck))
        vector = router_feature(images, features.embedding)[0]
        return AdaptableImage(
            _arrays(features), before.merged.float().cpu().numpy(), vector.float().cpu().numpy()
        )

    def model_input(self, pixels: NDArray[Any]) -> Tensor:
        """Return the (1, 3, S, S) float32 input of the network for what `encode` takes."""
        if self.normalises:
            planes = ((pixels - PIXEL_MEAN) / PIXEL_STD).transpose(2, 0, 1)
            pixels = np.ascontiguousarray(planes[None], np.float32)
        return self.tensor(pixels).contiguous(memory_format=torch.channels_last)

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
            self.tensor(points_xy),
            self.tensor(point_labels),
            (len(points_xy),),
            None if mask_logits is None else self.tensor(mask_logits),
            None if has_mask is None else self.tensor(has_mask),
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
        embedding, *high_res = (self.tensor(feature) for feature in features)
        return ImageFeatures(embedding, (high_res[0], high_res[1]) if high_res else None)

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """Return an array as a tensor on the device."""
        if not array.flags.writeable:  # torch has no read-only tensors and warns
            array = array.copy()
        return torch.from_numpy(array).to(self.device)


def _arrays(features: ImageFeatures) -> tuple[NDArray[Any], ...]:
    tensors = (features.embedding, *(features.high_res or ()))
    return tuple(tensor.float().cpu().numpy() for tensor in tensors)
