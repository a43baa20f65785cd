"""An object to learn: what is seen of it, and its low-res mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.mask_patches import MaskPatch
from edgeseg.geometry import ModelFrame

MASK_STRIDE = 4
"""Model pixels per pixel of a low-res mask, along either side."""


@dataclass(frozen=True, eq=False)
class LearnedObject:
    """An object as it is seen.

    Attributes:
        patch: Its pixels in the image as it is seen.
        mask: (S/4, S/4) bool, in the student's frame.
    """

    patch: MaskPatch
    mask: NDArray[np.bool_]

    @classmethod
    def of_patch(cls, patch: MaskPatch, student_size: int) -> "LearnedObject":
        """Draw an object into the student's frame, whose side is S = `student_size` pixels."""
        frame = ModelFrame(patch.image_hw, student_size)
        return cls(patch, patch.on_grid(frame, student_size // MASK_STRIDE))

    @property
    def leaves_trace(self) -> bool:
        """Whether the low-res mask has a pixel; without one there is no target to learn."""
        return bool(self.mask.any())

    @property
    def kept_share(self) -> float:
        """Area of the low-res mask as a share of the object's; thin objects keep little."""
        cell_px = max(self.patch.image_hw) / self.mask.shape[0]  # side of a cell in image pixels
        return float(self.mask.sum()) * cell_px**2 / self.patch.area_px
