"""Networks: promptable segmenters, their encoders, weights and re-parameterisation."""

from edgeseg.modeling.prompt_batch import PromptBatch
from edgeseg.modeling.promptable import DecoderOutput, ImageFeatures, PromptableNet
from edgeseg.modeling.registry import MODELS, build_model

__all__ = [
    "MODELS",
    "DecoderOutput",
    "ImageFeatures",
    "PromptBatch",
    "PromptableNet",
    "build_model",
]
