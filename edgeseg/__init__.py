"""Segment anything on the device: distil, export, prove, run and measure.

The names of the runtime are imported when they are first used, so that the command line answers
fast and `import edgeseg` costs little more than numpy.
"""

from typing import TYPE_CHECKING

from edgeseg.errors import EdgesegError
from edgeseg.prompts import Prompt

if TYPE_CHECKING:
    from edgeseg.proposals import Proposals
    from edgeseg.runtime.everything import EverythingMasks, EverythingSettings
    from edgeseg.runtime.loading import load
    from edgeseg.runtime.mask_grid import GridSettings
    from edgeseg.runtime.masks import Masks
    from edgeseg.runtime.sam_predictor import SamPredictor
    from edgeseg.runtime.segmenter import EncodedImage, Segmenter

__version__ = "0.1.0"

__all__ = [
    "EdgesegError",
    "EncodedImage",
    "EverythingMasks",
    "EverythingSettings",
    "GridSettings",
    "Masks",
    "Prompt",
    "Proposals",
    "SamPredictor",
    "Segmenter",
    "__version__",
    "load",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'edgeseg' has no attribute {name!r}")
    import edgeseg.runtime as runtime

    value = globals()[name] = getattr(runtime, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
