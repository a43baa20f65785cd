"""Small data sets written on the spot; nothing here is taken from anywhere."""

import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask


def rle_json(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def sa1b_json(masks, image_hw):
    height, width = image_hw
    return {
        "image": {"image_id": 1, "width": width, "height": height, "file_name": "x.jpg"},
        "annotations": [
            {"id": k, "segmentation": rle_json(mask)} for k, mask in enumerate(masks, start=1)
        ],
    }


def rectangle(image_hw, x0, y0, x1, y1):
    mask = np.zeros(image_hw, np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def write_image(path, image_hw, seed=0):
    height, width = image_hw
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (3, 4, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write_pair(stem, image_hw=(30, 40), masks=None, seed=0):
    """Write STEM.jpg and STEM.json; by default a wide and a tall rectangle."""
    if masks is None:
        masks = [rectangle(image_hw, 4, 6, 30, 16), rectangle(image_hw, 20, 5, 28, 28)]
    write_image(Path(f"{stem}.jpg"), image_hw, seed)
    Path(f"{stem}.json").write_text(json.dumps(sa1b_json(masks, image_hw)))
