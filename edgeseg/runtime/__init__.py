"""What an application imports to run a model; no torch.

In reading order: `backend` (what a network has to answer), `segmenter` (image and prompts to
masks), `masks` (the answer), `outlines` and `drawing` (masks as polygons and pictures).

Exported files: `loading` (a model by name), `exported_model` and `prompt_slots` (what all backends
share), `onnx_backend`, `openvino_backend` and `coreml_backend`. `sam_predictor` lets code written
for SAM run on any of them.
"""

from edgeseg.runtime.backend import Backend
from edgeseg.runtime.loading import load
from edgeseg.runtime.masks import Masks
from edgeseg.runtime.sam_predictor import SamPredictor
from edgeseg.runtime.segmenter import EncodedImage, Segmenter

__all__ = ["Backend", "EncodedImage", "Masks", "SamPredictor", "Segmenter", "load"]
