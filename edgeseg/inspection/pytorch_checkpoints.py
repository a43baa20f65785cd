"""PyTorch's files read as tensors in plain containers, the only module here that imports PyTorch.

A file may come from a stranger. It is unpickled with `weights_only` alone, which builds nothing
else; its archive may hold nothing compressed, so that it cannot grow; and tensors are mapped rather
than read.
"""

import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from edgeseg.errors import WeightsError
from edgeseg.torch_archives import check_archive, list_records

MAX_UNMAPPED_BYTES = 4 * 2**30
"""Files of the layout before PyTorch 1.6 are read as a whole."""


def read_checkpoint(path: Path) -> Any:  # noqa: ANN401 - whatever was saved
    """Return what a `.pth`, `.pt` or `.ckpt` file holds: tensors in containers.

    Raises:
        WeightsError: It is damaged, too large, a program, or holds Python objects.
    """
    records = list_records(path)
    if records is not None:
        check_archive(path, records)
    elif path.stat().st_size > MAX_UNMAPPED_BYTES:
        raise WeightsError(
            f"{path} has {path.stat().st_size / 1e9:.1f} GB in the layout before PyTorch 1.6, all "
            "of which would be read; load it where you trust it, and save it again"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd protocols of damaged files; they fail below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=records is not None)
    except UnpicklingError as error:
        raise WeightsError(
            f"{path} is damaged or holds Python objects, and reading objects could run code; save "
            "the state dict alone, or as .safetensors"
        ) from error
    except Exception as error:  # a damaged pickle fails in any way, KeyError and struct.error too
        raise WeightsError(
            f"{path} is damaged ({type(error).__name__}) or no PyTorch checkpoint; fetch it again"
        ) from error
