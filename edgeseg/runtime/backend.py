"""What a network has to answer, whatever runs it."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeseg.proposals import CellProposals


class Backend(Protocol):
    """A promptable network behind plain arrays.

    It holds weights and nothing else: the same arguments give the same answer. SAM's padding point
    (label -1) is a matter of the network; callers never add it.

    A backend whose network takes bytes and normalises them itself says so by an attribute
    `normalises` that is true; see `takes_rgb`.
    """

    @property
    def name(self) -> str:
        """What to call the model in reports, such as "edgeseg_s"."""

    @property
    def image_size(self) -> int:
        """Side S of the square input, in pixels."""

    def encode(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Turn one preprocessed image into the features that `decode` takes.

        Args:
            pixels: (1, 3, S, S) float32, normalised, padded with zeros at the right and bottom; or
                (S, S, 3) uint8 RGB, padded with PADDING_RGB, if the backend `normalises`.
        """

    def decode(
        self,
        features: tuple[NDArray[Any], ...],
        points_xy: NDArray[np.float32],
        point_labels: NDArray[np.int64],
        mask_logits: NDArray[np.float32] | None,
        has_mask: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Answer N prompts on one image.

        Args:
            features: What `encode` returned for the image.
            points_xy: (N, P, 2) float32, x then y, in model pixels.
            point_labels: (N, P) int64, 0 not object, 1 object, 2 and 3 box corners, -2 absent.
            mask_logits: (N, 1, S/4, S/4) float32 in the model frame, or None.
            has_mask: (N,) bool, which rows of `mask_logits` count, or None like it.

        Returns:
            Low-res logits, (N, 4, S/4, S/4) float32, above zero on the object, and predicted IoU,
            (N, 4) float32; token 0 is the single answer, tokens 1 to 3 are the multimask answers.
        """


@runtime_checkable
class ProposingBackend(Backend, Protocol):
    """A backend whose network may also propose boxes without any prompt."""

    def propose(self, features: tuple[NDArray[Any], ...]) -> CellProposals:
        """Propose boxes on one image.

        Args:
            features: What `encode` returned for the image.

        Raises:
            WeightsError: The network has no proposals.
        """


def takes_rgb(backend: Backend) -> bool:
    """Whether the backend's network normalises, so that `encode` takes (S, S, 3) uint8 RGB."""
    return bool(getattr(backend, "normalises", False))  # most networks have no such option
