"""The published EdgeSAM graph answers as recorded in the folder `parity` beside EDGESEG_DATA.

The weights are drawn by the rule that the folder's README states, from key names and shapes alone.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.modeling import PromptBatch, build_model
from edgeseg.modeling.checkpoints import load_strict
from edgeseg.modeling.reparam import fuse

FOLDER = Path(os.environ.get("EDGESEG_DATA", "")).parent / "parity"
pytestmark = pytest.mark.skipif(
    "EDGESEG_DATA" not in os.environ or not (FOLDER / "edgesam_expected.npz").is_file(),
    reason="needs the recorded EdgeSAM answers, a folder `parity` beside that of EDGESEG_DATA",
)

# Whole pixels as SAM counts them, and labels; 2 and 3 are the corners of a box.
PROMPTS = {
    "point": ([[700, 300]], [1]),
    "two_points": ([[700, 300], [120, 900]], [1, 0]),
    "box": ([[200, 100], [900, 640]], [2, 3]),
}


def published_shapes():
    lines = (FOLDER / "edgesam_state_dict.txt").read_text("utf-8").splitlines()
    keys_and_shapes = (line.split(" ", 1) for line in lines)
    return {key: tuple(map(int, re.findall(r"\d+", shape))) for key, shape in keys_and_shapes}


def drawn_weights(shapes):
    random = np.random.RandomState(7)
    state = {}
    for key in sorted(shapes):
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
            continue
        z = random.standard_normal(shapes[key]).astype(np.float32)
        if key.endswith("running_var"):
            z = 1 + 0.1 * abs(z)
        elif key.endswith(("running_mean", "bias")):
            z = 0.02 * z
        elif z.ndim == 1:
            z = 1 + 0.1 * z
        elif "gaussian_matrix" not in key:
            z = z / np.sqrt(max(1, np.prod(z.shape[1:])))
        state[key] = torch.from_numpy(z.astype(np.float32))
    return state


@pytest.fixture(scope="module")
def edgesam():
    net = build_model("edgesam").eval()
    load_strict(net, drawn_weights(published_shapes()), "the drawn weights")
    return net


@pytest.fixture(scope="module")
def images():
    drawn = np.random.RandomState(11).standard_normal((1, 3, 1024, 1024))
    return torch.from_numpy(drawn.astype(np.float32))


@pytest.fixture(scope="module")
def features(edgesam, images):
    with torch.inference_mode():
        return edgesam.encode(images)


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "edgesam_expected.npz") as file:
        return dict(file)


def test_entries_are_those_of_a_published_checkpoint(edgesam):
    shapes = {key: tuple(tensor.shape) for key, tensor in edgesam.state_dict().items()}

    assert shapes == published_shapes()
    assert len(shapes) == 821
    assert edgesam.num_parameters() == 9_582_368


def test_the_embedding_is_the_recorded_one(features, expected):
    every_4th = features.embedding[:, :, ::4, ::4].numpy()

    np.testing.assert_allclose(every_4th, expected["embedding_every_4th"], atol=1e-3)


@pytest.mark.parametrize("name", PROMPTS)
@torch.inference_mode()
def test_masks_and_scores_are_the_recorded_ones(edgesam, features, expected, name):
    points_xy, labels = PROMPTS[name]
    points_xy = torch.tensor([points_xy]) + 0.5  # the centres of those pixels

    output = edgesam.decode(features, PromptBatch(points_xy, torch.tensor([labels]), (1,)))

    every_4th = output.low_res_logits[:, :, ::4, ::4].numpy()
    np.testing.assert_allclose(every_4th, expected[f"{name}_masks"], atol=1e-3)
    np.testing.assert_allclose(output.iou_scores.numpy(), expected[f"{name}_iou"], atol=1e-3)


@torch.inference_mode()
def test_the_fused_encoder_gives_the_recorded_embedding_too(edgesam, images, expected):
    embedding = fuse(edgesam.image_encoder)(images).embedding

    np.testing.assert_allclose(
        embedding[:, :, ::4, ::4].numpy(), expected["embedding_every_4th"], atol=1e-3
    )
