"""Random numbers of a training step that depend on seed, step and image only.

So a resumed run draws what the uninterrupted one would have drawn, and so does a run that is shared
out over another number of processes.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edgeseg.modeling.prompt_batch import PromptGroups


class StepRandom:
    """Uniform numbers for the prompts of a batch.

    Args:
        seed: Of the run.
        positions: Place of each image of the batch in the training stream.
        counts: Prompts of each image.
        device: Where the numbers are wanted.
        progress: Share of the stage that is done, 0 at its first step.
    """

    def __init__(
        self,
        seed: int,
        positions: Sequence[int],
        counts: tuple[int, ...],
        device: torch.device | str = "cpu",
        progress: float = 0.0,
    ) -> None:
        self.counts = counts
        self.progress = progress
        self._seed = seed
        self._positions = tuple(positions)
        self._device = device

    def of_images(self, rows: Sequence[int]) -> "StepRandom":
        """Return the same numbers for some images of the batch, given by their places in it."""
        return StepRandom(
            self._seed,
            [self._positions[row] for row in rows],
            tuple(self.counts[row] for row in rows),
            self._device,
            self.progress,
        )

    def uniform(
        self, purpose: str, round_index: int, groups: PromptGroups, width: int | None = None
    ) -> Tensor:
        """Return (T,) or (T, width) float32 in [0, 1) for one purpose in one round."""
        key = zlib.crc32(purpose.encode())
        shape = () if width is None else (width,)
        rows = [
            np.random.default_rng([self._seed, position, key, round_index]).random(
                (count, *shape), np.float32
            )
            for position, count in zip(self._positions, groups.counts, strict=True)
        ]
        return torch.from_numpy(np.concatenate(rows)).to(self._device)
