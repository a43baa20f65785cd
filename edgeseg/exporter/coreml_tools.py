"""coremltools, quietly: no progress bars, no warnings that nobody can act on, no files left behind.

coremltools is written for a terminal on a Mac. Elsewhere it warns on import that Core ML is absent
and that the version of torch is newer than the last it was tested with; what it converts is proven
by execution here, so both say nothing. Its temporary folders stay until the program ends.
"""

import contextlib
import gc
import io
import logging
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from edgeseg.errors import missing_extra

_POINTLESS = ("Failed to load _ML", "Torch version ", "scikit-learn version ", "Tuple detected at ")
_ONE_AT_A_TIME = threading.RLock()


class _WithoutPointless(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_POINTLESS)


def load_coremltools() -> ModuleType:
    """Import coremltools, which takes seconds the first time, without its warnings.

    Raises:
        MissingExtraError: It is not installed.
    """
    logger = logging.getLogger("coremltools")
    if not any(isinstance(each, _WithoutPointless) for each in logger.filters):
        logger.addFilter(_WithoutPointless())
    try:
        import coremltools
        import coremltools.optimize.coreml
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "coremltools", "export") from error
    return coremltools


@contextlib.contextmanager
def quiet_coremltools(folder: Path) -> Iterator[ModuleType]:
    """Give coremltools, with all its temporary files in a folder and its progress bars nowhere.

    Python's place for temporary files belongs to the whole program, so this is done by one thread
    at a time.

    Args:
        folder: Existing; the caller removes it.
    """
    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        _ignore_known_warnings()
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        place = tempfile.tempdir
        stack.callback(setattr, tempfile, "tempdir", place)
        tempfile.tempdir = str(folder)
        stack.callback(gc.collect)  # folders in reference cycles must go while `folder` exists
        yield load_coremltools()


def _ignore_known_warnings() -> None:
    known = (
        (DeprecationWarning, "Function _TORCH_OPS_REGISTRY"),
        (ResourceWarning, "Implicitly cleaning up <TemporaryDirectory"),
        (ResourceWarning, "unclosed file"),
    )
    for category, beginning in known:
        warnings.filterwarnings("ignore", beginning, category)
