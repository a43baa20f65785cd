"""Every released model loads, is what its manifest says, and keeps a figure on real images."""

import os
from pathlib import Path

import pytest

from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.evaluation.config import EvaluationConfig
from edgeseg.evaluation.evaluator import evaluate
from edgeseg.manifest import MANIFEST_NAME, RELEASED, read_manifest
from edgeseg.modeling.checkpoints import load_model
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.runtime.segmenter import Segmenter

MODELS = sorted(path.parent.name for path in RELEASED.glob(f"*/{MANIFEST_NAME}"))
# Mean box IoU on the photographs of people: as measured when the model was released, minus 0.03.
LEAST_BOX_IOU = {"edgeseg_m": 0.80}


@pytest.mark.parametrize("name", MODELS)
def test_a_released_model_is_what_its_manifest_says(name):
    manifest = read_manifest(RELEASED / name)

    net = load_model(name)

    assert (net.name, net.image_size) == (manifest.model, manifest.image_size)
    assert net.num_parameters() == manifest.num_parameters
    assert (RELEASED / name / manifest.weights).stat().st_size <= 25e6
    assert (RELEASED / name / "MODEL_CARD.md").is_file()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.skipif("EDGESEG_DATA" not in os.environ, reason="needs real images: set EDGESEG_DATA")
def test_a_released_model_keeps_its_figure_on_real_images(name):
    people = SourceConfig(format="sa1b", path=Path("$EDGESEG_DATA/people"), split="val", limit=10)
    config = EvaluationConfig(prompt_sets=("box",), boundary=False, grabcut=None)

    report = evaluate(Segmenter(TorchBackend(load_model(name))), list_records([people]), config)

    assert report.row("box").mean.iou >= LEAST_BOX_IOU[name]
