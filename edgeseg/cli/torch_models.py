"""Models for commands that run PyTorch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeseg.runtime.segmenter import Segmenter


def load_segmenter(name_or_path: str, image_size: int | None, device: str) -> "Segmenter":
    """Load a released model, a model folder or a weight file into a segmenter.

    Raises:
        WeightsError: There is no such model, or the file does not fit.
        ConfigError: The device does not exist here.
    """
    from edgeseg.errors import ConfigError
    from edgeseg.modeling.checkpoints import load_model
    from edgeseg.modeling.torch_backend import TorchBackend
    from edgeseg.runtime.segmenter import Segmenter

    net = load_model(name_or_path, image_size)
    try:
        return Segmenter(TorchBackend(net, device, fused=True))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"cannot use device {device!r}: {str(error).splitlines()[0]}") from error
