import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from exported_folders import write_folder  # shared with the tests of the runtime


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def exported(tmp_path):
    return write_folder(tmp_path / "exported", high_res=True)
