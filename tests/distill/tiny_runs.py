"""Small runs made on the spot: images, masks, a teacher and the settings of a run."""

import json

import cv2
import numpy as np
import torch

from edgeseg.distill.config import parse_config
from edgeseg.distill.distiller import Distiller
from edgeseg.distill.run_folder import RunFolder
from edgeseg.modeling.checkpoints import save_weights
from edgeseg.modeling.registry import build_model
from edgeseg.run_lengths import encode_rle

IMAGE_SIZES_HW = ((30, 40), (40, 24), (36, 36), (20, 48))


class RecordingReporter:
    """Keeps what it is shown."""

    def __init__(self):
        self.messages = []
        self.stages = []

    def start(self, stage, first_step, num_steps):
        self.stages.append((stage, first_step, num_steps))

    def step(self, step, images_per_s, losses):
        pass

    def message(self, text):
        self.messages.append(text)


def write_image(path, image_hw, seed):
    """Write a coarse random picture."""
    height, width = image_hw
    coarse = np.random.default_rng(seed).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (width, height)))


def write_pairs(folder, num_images=4, masks_an_image=2):
    """Write images of several shapes, with rectangles as masks in the SA-1B layout."""
    for k in range(num_images):
        height, width = IMAGE_SIZES_HW[k % len(IMAGE_SIZES_HW)]
        write_image(folder / f"i{k}.png", (height, width), seed=k)
        masks = np.zeros((masks_an_image, height, width), bool)
        for number, mask in enumerate(masks):
            mask[3 + 2 * number : height // 2 + 6, 4 : width // 2 + 4 * number] = True
        layout = {"annotations": [{"segmentation": encode_rle(mask)} for mask in masks]}
        (folder / f"i{k}.json").write_text(json.dumps(layout))


def save_teacher(path, model="vit_tiny", seed=5, confident=False):
    """Save a random teacher; a confident one is sure of every mask and draws sharp edges."""
    torch.manual_seed(seed)
    net = build_model(model)
    if confident:
        with torch.no_grad():
            net.mask_decoder.iou_prediction_head.layers[-1].bias += 0.95
            for mlp in net.mask_decoder.output_hypernetworks_mlps:
                mlp.layers[-1].weight *= 1000
    save_weights(net, path)


def run_tables(folder, teacher=None, **tables):
    """Return the settings of a run over the pairs in a folder, as parsed TOML would be."""
    source = {"format": "sa1b", "path": str(folder)}
    settings = {
        "student": {"model": "edgeseg_tiny"},
        "data": {"train": [source], "validation": [source], "workers": 0},
        "engine": {"accelerator": "cpu", "log_every_steps": 1, "checkpoint_every_steps": 100},
        **tables,
    }
    if teacher is not None:
        settings.setdefault("teacher", {}).update(weights=str(teacher), model="vit_tiny")
    return settings


def start(path, tables, should_stop=lambda: False, reporter=None):
    """Start a run in a new folder and return its distiller."""
    folder = RunFolder.create(path, parse_config(tables, "test"))
    return Distiller(folder, reporter or RecordingReporter(), should_stop)


def resume(path, should_stop=lambda: False, reporter=None):
    """Open a run again and return its distiller."""
    return Distiller(RunFolder.open(path), reporter or RecordingReporter(), should_stop)


class StopAfter:
    """Asks to stop when it has been looked at so many times, as it is once a step."""

    def __init__(self, num_steps):
        self.num_steps = num_steps
        self.looks = 0

    def __call__(self):
        self.looks += 1
        return self.looks >= self.num_steps
