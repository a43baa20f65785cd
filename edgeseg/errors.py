"""Every error EdgeSeg raises on purpose.

```text
EdgesegError
├── PromptError        (ValueError)   a prompt that cannot be meant
├── ImageError         (ValueError)   an image that cannot be read or used
├── DataError          (ValueError)   a data set, annotation or mask that cannot be used
├── ConfigError        (ValueError)   a setting that is unknown or out of range
├── WeightsError       (ValueError)   a checkpoint that does not fit the network
├── CacheError         (ValueError)   a teacher cache that is broken or made by other settings
├── RunError           (RuntimeError) a run folder that cannot be used or resumed
├── DivergedError      (ArithmeticError) a loss that is not finite
├── PlatformError      (RuntimeError) something this operating system or machine cannot do
├── ExportError        (RuntimeError) an exported file that cannot be made, read or executed
├── BenchError         (RuntimeError) a measuring tool that failed or is not understood
└── MissingExtraError  (ImportError)  an optional part that is not installed
```

A message says what was wrong, what was got and what to do. The command line prints it on one line
of stderr and exits with status 1 (3 for a missing part or the wrong platform).
"""


class EdgesegError(Exception):
    """Base of the errors a caller of EdgeSeg may want to catch."""


class PromptError(EdgesegError, ValueError):
    """A prompt is malformed: wrong shape, unknown label, a box without area."""


class ImageError(EdgesegError, ValueError):
    """An image cannot be read or has an unusable shape or type."""


class DataError(EdgesegError, ValueError):
    """A data set, an annotation file or a mask cannot be used."""


class ConfigError(EdgesegError, ValueError):
    """A setting is unknown, out of range or contradicts another one."""


class WeightsError(EdgesegError, ValueError):
    """A weight file is unreadable or does not fit the network it is meant for."""


class CacheError(EdgesegError, ValueError):
    """A cache of teacher embeddings is damaged or was made with other settings."""


class RunError(EdgesegError, RuntimeError):
    """A run folder cannot be created, continued or read."""


class DivergedError(EdgesegError, ArithmeticError):
    """A loss is not finite; nothing was changed by the step that found it."""


class ExportError(EdgesegError, RuntimeError):
    """An exported file cannot be made, read or executed exactly as it says."""


class BenchError(EdgesegError, RuntimeError):
    """A measuring tool failed, or its output is not understood."""


class PlatformError(EdgesegError, RuntimeError):
    """Something needs another operating system or device than this one."""


class MissingExtraError(EdgesegError, ImportError):
    """An optional dependency is not installed; the message holds the exact command."""


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """Return the error for an absent optional package.

    >>> str(missing_extra("torch", "train"))
    "torch is not installed; run: pip install 'edgeseg[train]'"
    """
    return MissingExtraError(f"{package} is not installed; run: pip install 'edgeseg[{extra}]'")
