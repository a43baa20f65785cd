import json

import cv2
import pytest
import torch
from tiny_runs import run_tables

from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.distill.config import parse_config
from edgeseg.distill.run_evaluation import RunEvaluator, summary
from edgeseg.distill.run_folder import RunFolder
from edgeseg.evaluation.config import EvaluationConfig
from edgeseg.evaluation.report import EvaluationReport
from edgeseg.evaluation.tally import Figures, Row
from edgeseg.modeling.registry import build_model
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.runtime.segmenter import Segmenter


def evaluator(tmp_path, pairs, teacher=None, **evaluation):
    settings = run_tables(
        pairs,
        prompt_stage={"steps": 1, "targets": {"teacher": 0, "ground_truth": 1}},
        evaluation={"prompt_sets": ["box"], "max_images_a_domain": 2} | evaluation,
    )
    folder = RunFolder.create(tmp_path / "run", parse_config(settings, "test"))
    records = list_records([SourceConfig(format="sa1b", path=pairs)])
    return RunEvaluator(folder, records, teacher, "cpu")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_model("edgeseg_tiny")


def test_an_evaluation_leaves_a_table_a_plot_and_a_panel(tmp_path, pairs, net):
    report = evaluator(tmp_path, pairs, panel_images=1).run(net, "prompt_000020")

    folder = tmp_path / "run" / "evaluations"
    names = ["prompt_000020-panel.png", "prompt_000020.json", "prompt_000020.png"]
    assert sorted(path.name for path in folder.iterdir()) == names
    document = json.loads((folder / "prompt_000020.json").read_text())
    assert document["num_images"] == 2  # as the settings of the run say
    assert document["rows"][0]["mean"]["iou"] == report.row("box").mean.iou
    assert all(cv2.imread(str(folder / name)) is not None for name in (names[0], names[2]))


def test_agreement_is_measured_when_there_is_a_teacher(tmp_path, pairs, net):
    same = Segmenter(TorchBackend(net))

    report = evaluator(tmp_path, pairs, teacher=same, panel_images=0).run(net, "x")

    assert report.row("box").mean.agreement == 1.0
    assert not list((tmp_path / "run" / "evaluations").glob("*-panel.png"))


def test_summary_names_every_row_that_was_measured():
    rows = (
        Row("box", "prompt", {}, Figures(0.51234, agreement=0.75)),
        Row("center", "prompt", {}, Figures(0.25)),
    )
    report = EvaluationReport(EvaluationConfig(), {}, rows, ())

    assert summary(report) == "box 0.512 (teacher 0.750), center 0.250"
