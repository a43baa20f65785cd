"""What an application imports to run a model; no torch.

In reading order: `backend` (what a network has to answer), `segmenter` (image and prompts to
masks), `masks` (the answer), `outlines` and `drawing` (masks as polygons and pictures).
"""

from edgeseg.runtime.backend import Backend
from edgeseg.runtime.masks import Masks
from edgeseg.runtime.segmenter import EncodedImage, Segmenter

__all__ = ["Backend", "EncodedImage", "Masks", "Segmenter"]
