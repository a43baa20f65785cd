"""What an application imports to run a model; no torch.

In reading order: `backend` (what a network has to answer), `segmenter` (image and prompts to
masks), `masks` (the answer), `outlines` and `drawing` (masks as polygons and pictures).

Without prompts: `everything` (the model's own proposals become prompts), `mask_grid` (a grid of
points), `asking` (many prompts at a time), `candidates` (which of the masks stay), `granularity`
(what one click means).

Exported files: `loading` (a model by name), `exported_model` and `prompt_slots` (what all backends
share), `onnx_backend`, `openvino_backend` and `coreml_backend`. `sam_predictor` lets code written
for SAM run on any of them.
"""

from edgeseg.proposals import Proposals
from edgeseg.runtime.backend import Backend
from edgeseg.runtime.everything import EverythingMasks, EverythingSettings
from edgeseg.runtime.loading import load
from edgeseg.runtime.mask_grid import GridSettings
from edgeseg.runtime.masks import Masks
from edgeseg.runtime.sam_predictor import SamPredictor
from edgeseg.runtime.segmenter import EncodedImage, Segmenter

__all__ = [
    "Backend",
    "EncodedImage",
    "EverythingMasks",
    "EverythingSettings",
    "GridSettings",
    "Masks",
    "Proposals",
    "SamPredictor",
    "Segmenter",
    "load",
]
