import cv2
import numpy as np
import pytest
import torch

from edgeseg.modeling.checkpoints import save_weights
from edgeseg.modeling.registry import build_model


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """A student of the smallest size with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(build_model("edgeseg_tiny"), path)
    return path


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    """A picture twice as wide as high with a bright square."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    image = np.full((40, 80, 3), 40, np.uint8)
    image[10:30, 20:40] = 220
    cv2.imwrite(str(path), image)
    return path
