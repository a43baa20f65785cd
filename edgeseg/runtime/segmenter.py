"""Image and prompts to masks, with any backend."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseg.errors import ConfigError, ImageError, WeightsError
from edgeseg.geometry import ModelFrame
from edgeseg.postprocess import crop_of_logits
from edgeseg.prompts import Prompt
from edgeseg.proposals import (
    MAX_PROPOSALS,
    CellProposals,
    Proposals,
    click_proposals,
    read_proposals,
)
from edgeseg.runtime.backend import Backend, ProposingBackend, takes_rgb
from edgeseg.runtime.decoding import decode_prompts
from edgeseg.runtime.masks import Masks
from edgeseg.runtime.model_input import model_input

if TYPE_CHECKING:
    from edgeseg.runtime.everything import EverythingMasks, EverythingSettings
    from edgeseg.runtime.granularity import GranularitySettings
    from edgeseg.runtime.mask_grid import GridSettings

MAX_PROMPTS_A_CALL = 64
"""Prompts decoded in one call of a backend if nothing else is asked for."""
_MULTIMASK_TOKENS = (1, 2, 3)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image as the network sees it: the slow part, done once per image.

    Attributes:
        features: Arrays of the backend that made them; their shapes are its own business.
        frame: The place of the image in the model input.
        model: Name of the backend that made the features.
    """

    features: tuple[NDArray[Any], ...]
    frame: ModelFrame
    model: str


class Segmenter:
    """Answers prompts on images.

    It keeps no state between calls, so threads may share it as far as they may share its backend.

    Args:
        backend: The network.
        max_prompts_a_call: Prompts decoded in one call of the backend; bounds its memory.

    Raises:
        ConfigError: `max_prompts_a_call` is below 1.
    """

    def __init__(self, backend: Backend, max_prompts_a_call: int = MAX_PROMPTS_A_CALL) -> None:
        if max_prompts_a_call < 1:
            raise ConfigError(
                f"max_prompts_a_call must be 1 or more, got {max_prompts_a_call}; 64 suits most"
            )
        self.backend = backend
        self.max_prompts_a_call = max_prompts_a_call

    def encode(self, image: NDArray[np.uint8]) -> EncodedImage:
        """Run the image encoder.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            A value to pass to `segment` and `predict_logits`, as often as wanted.

        Raises:
            ImageError: The image is not (H, W, 3) uint8.
        """
        size = self.backend.image_size
        pixels = model_input(image, size, takes_rgb(self.backend))
        frame = ModelFrame((image.shape[0], image.shape[1]), size)
        return EncodedImage(self.backend.encode(pixels), frame, self.backend.name)

    def encode_many(
        self, images: Iterable[NDArray[np.uint8]], num_threads: int = 2
    ) -> Iterator[EncodedImage]:
        """Run the image encoder on many images, in order, a few ahead of the caller.

        Scaling one image and running the network on another overlap. No more than
        `num_threads` + 1 results wait, so `images` may be as long as wanted.

        Args:
            images: Each (H, W, 3) uint8 RGB, of any sizes; taken one by one in the caller's thread.
            num_threads: Images in work at the same time; the backend must allow several threads.

        Raises:
            ImageError: At its turn, for an image that is not (H, W, 3) uint8.
            ConfigError: `num_threads` is below 1.
        """
        if num_threads < 1:
            raise ConfigError(f"num_threads must be 1 or more, got {num_threads}; 2 suits most")
        return self._encode_ahead(images, num_threads)

    def _encode_ahead(
        self, images: Iterable[NDArray[np.uint8]], num_threads: int
    ) -> Iterator[EncodedImage]:
        waiting: deque[Future[EncodedImage]] = deque()
        with ThreadPoolExecutor(num_threads) as pool:
            try:
                for image in images:
                    waiting.append(pool.submit(self.encode, image))
                    if len(waiting) > num_threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:  # an error, or a caller that stopped listening
                for future in waiting:
                    future.cancel()

    def propose(self, encoded: EncodedImage, max_proposals: int = MAX_PROPOSALS) -> Proposals:
        """Return boxes that probably hold an object, without any prompt.

        Args:
            encoded: What `encode` returned.
            max_proposals: Most boxes; they still overlap, see `Proposals.suppressed`.

        Raises:
            WeightsError: The model has no proposals.
            ImageError: The image was encoded by another model.
        """
        return read_proposals(self._proposed(encoded), encoded.frame, max_proposals)

    def propose_for_click(self, encoded: EncodedImage, point_xy: ArrayLike) -> Proposals:
        """Return the boxes that a click may mean, the likeliest first; scores are their chances.

        Args:
            encoded: What `encode` returned.
            point_xy: x and y in pixels of the image.

        Raises:
            WeightsError: The model has no proposals.
            ImageError: The image was encoded by another model.
        """
        return click_proposals(self._proposed(encoded), point_xy, encoded.frame)

    def _proposed(self, encoded: EncodedImage) -> CellProposals:
        self._check_encoded(encoded)
        if not isinstance(self.backend, ProposingBackend):
            raise WeightsError(
                f"the model {self.backend.name} proposes nothing; load one that was exported with "
                "a proposal head"
            )
        return self.backend.propose(encoded.features)

    def predict_logits(
        self, encoded: EncodedImage, prompts: Sequence[Prompt]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return all four answers to each of N prompts, before a choice is made.

        Args:
            encoded: What `encode` returned.
            prompts: N prompts in pixels of the original image; they may differ in kind.

        Returns:
            Low-res logits, (N, 4, S/4, S/4) float32 in the model frame, and predicted IoU, (N, 4)
            float32.

        Raises:
            PromptError: A prompt does not fit the image or the model.
            ImageError: The image was encoded by another model.
        """
        logits, scores, _ = self._decode(encoded, prompts)
        return logits, scores

    def segment(
        self, encoded: EncodedImage, prompts: Prompt | Sequence[Prompt], multimask: bool = False
    ) -> Masks:
        """Return the mask of each prompt at the size of the image.

        Args:
            encoded: What `encode` returned.
            prompts: One prompt or N of them, in pixels of the original image.
            multimask: Return the three answers of tokens 1 to 3 for every prompt (whole, part and
                sub-part, in no fixed order) instead of the one `choose_mask` picks.

        Raises:
            PromptError: A prompt does not fit the image or the model.
            ImageError: The image was encoded by another model.
        """
        prompts = [prompts] if isinstance(prompts, Prompt) else list(prompts)
        logits, scores, is_single = self._decode(encoded, prompts)
        rows = np.arange(len(prompts))
        if multimask:
            rows = np.repeat(rows, len(_MULTIMASK_TOKENS))
            tokens = np.tile(_MULTIMASK_TOKENS, len(prompts)).astype(np.int64)
        else:
            tokens = is_single
        chosen = logits[rows, tokens]  # (M, S/4, S/4)
        return Masks(
            crops=tuple(crop_of_logits(logits_of_one, encoded.frame) for logits_of_one in chosen),
            image_hw=encoded.frame.image_hw,
            low_res_logits=chosen,
            scores=scores[rows, tokens],
            prompt_indices=rows.astype(np.int64),
        )

    def click_prompt(
        self,
        encoded: EncodedImage,
        point_xy: ArrayLike,
        settings: "GranularitySettings | None" = None,
    ) -> Prompt:
        """Return a click with the box it probably means, or alone if that promises more.

        Both are decoded. What the box is answered with is worth its predicted IoU times the chance
        that the box is meant; the point alone is worth the best IoU that is predicted for it.

        Args:
            encoded: What `encode` returned.
            point_xy: x and y in pixels of the image.
            settings: See `edgeseg.runtime.granularity.GranularitySettings`.

        Raises:
            WeightsError: The model has no proposals.
            ImageError: The image was encoded by another model.
        """
        from edgeseg.runtime.granularity import click_boxes

        point = np.asarray(point_xy, np.float32)
        likeliest = next(click_boxes(self.propose_for_click(encoded, point), settings), None)
        alone = Prompt([point])
        if likeliest is None:
            return alone
        boxed = Prompt([point], box_xyxy=likeliest.box_xyxy)
        _, scores = self.predict_logits(encoded, [alone, boxed])
        return boxed if scores[1, 0] * likeliest.chance > scores[0, 1:].max() else alone

    def segment_click(
        self, encoded: EncodedImage, point_xy: ArrayLike, max_masks: int = 3
    ) -> Masks:
        """Return what one click may mean; see `edgeseg.runtime.granularity.segment_click`."""
        from edgeseg.runtime.granularity import segment_click

        return segment_click(self, encoded, point_xy, max_masks)

    def segment_everything(
        self,
        image: NDArray[np.uint8],
        settings: "EverythingSettings | GridSettings | None" = None,
    ) -> "EverythingMasks":
        """Find what can be segmented in an image without being told where it is.

        Args:
            image: (H, W, 3) uint8 RGB.
            settings: `EverythingSettings` (the default) prompts with the model's own proposals,
                `GridSettings` with a grid of points as SAM's automatic mask generator does, slowly.

        Raises:
            WeightsError: Proposals were asked for and the model has none.
            ImageError: The image is not (H, W, 3) uint8.
        """
        from edgeseg.runtime.everything import segment_everything
        from edgeseg.runtime.mask_grid import GridSettings, segment_grid

        if isinstance(settings, GridSettings):
            return segment_grid(self, image, settings)
        return segment_everything(self, image, settings)

    def _decode(
        self, encoded: EncodedImage, prompts: Sequence[Prompt]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Return logits, scores and the chosen token of each prompt; see `decode_prompts`."""
        self._check_encoded(encoded)
        return decode_prompts(
            self.backend, encoded.features, encoded.frame, prompts, self.max_prompts_a_call
        )

    def _check_encoded(self, encoded: EncodedImage) -> None:
        theirs = encoded.model, encoded.frame.image_size
        ours = self.backend.name, self.backend.image_size
        if theirs != ours:
            raise ImageError(
                f"the image was encoded by {theirs[0]} with {theirs[1]} pixel input, this is "
                f"{ours[0]} with {ours[1]}; encode the image with this segmenter"
            )
