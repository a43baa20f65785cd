"""Segment anything on the device: distil, export, prove, run and measure."""

from edgeseg.errors import EdgesegError
from edgeseg.prompts import Prompt

__version__ = "0.1.0"

__all__ = ["EdgesegError", "Prompt", "__version__"]
