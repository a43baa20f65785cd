"""A domain of eight small images: bright discs on dark ground, where the base sees nothing."""

import json

import cv2
import numpy as np

from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.run_lengths import encode_rle


def write_domain(folder, num_images=8, seed=0, colour=(200, 180, 60)):
    """Write images with two discs each, and their masks, in the SA-1B layout."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(num_images):
        image = rng.integers(0, 60, (48, 64, 3)).astype(np.uint8)
        annotations = []
        for left in (0, 32):
            mask = np.zeros((48, 64), np.uint8)
            center = (left + int(rng.integers(11, 21)), int(rng.integers(12, 36)))
            cv2.circle(mask, center, int(rng.integers(6, 11)), 1, cv2.FILLED)
            image[mask > 0] = colour
            annotations.append({"segmentation": encode_rle(mask.astype(bool))})
        cv2.imwrite(str(folder / f"i{number}.png"), image[..., ::-1])
        (folder / f"i{number}.json").write_text(json.dumps({"annotations": annotations}))


def records_of(folder, domain="discs"):
    """List the images of a folder."""
    return list_records([SourceConfig(format="sa1b", path=folder, domain=domain)])
