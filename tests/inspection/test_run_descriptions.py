import hashlib
import json
import os
import sys

import pytest

from edgeseg.distill.config import RunConfig
from edgeseg.errors import RunError
from edgeseg.inspection.run_folders import (
    RunEvaluation,
    RunWeights,
    StageProgress,
    describe_run,
    looks_like_run,
)
from edgeseg.inspection.settings_facts import SettingsFacts

CONFIG = RunConfig.model_validate(
    {
        "student": {"model": "edgeseg_s", "image_size": 256, "imagenet": True},
        "teacher": {"weights": "edgeseg_m"},
        "data": {"train": [{"format": "sa1b", "path": "$EDGESEG_DATA", "split": "train"}]},
        "encoder_stage": {"epochs": 2.5, "batch_size": 8},
        "prompt_stage": {"steps": 500, "batch_size": 4},
    }
)


@pytest.fixture
def run(tmp_path):
    """A run that was stopped in its second stage, before a checkpoint."""
    (tmp_path / "config.json").write_text(CONFIG.model_dump_json())
    (tmp_path / "start.safetensors").write_bytes(b"start")
    (tmp_path / "encoder_metrics.csv").write_text("step,total,images_per_s\n20,0.5,3\n40,0.25,4\n")
    (tmp_path / "prompt_metrics.csv").write_text("step,total,images_per_s\n20,1.5,2\n40,1.2")
    return tmp_path


def put_evaluation(folder, name, modified_s, **means):
    rows = [
        {"name": key, "kind": "prompt", "domains": {}, "mean": {"iou": value}}
        for key, value in means.items()
    ]
    rows.append({"name": "filled box", "kind": "floor", "domains": {}, "mean": {"iou": 0.9}})
    rows.append({"name": "center", "kind": "prompt", "domains": {}, "mean": None})
    path = folder / "evaluations" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"num_objects": 7, "rows": rows}))
    os.utime(path, (modified_s, modified_s))


def test_a_run_tells_what_was_to_be_done(run):
    facts, notes = describe_run(run)

    assert facts.settings == SettingsFacts(
        student="edgeseg_s",
        student_image_size=256,
        student_starts_from="ImageNet",
        teacher="edgeseg_m",
        train=("sa1b $EDGESEG_DATA train",),
        validation=(),
        stages={"encoder": "2.5 epochs of 8 images", "prompt": "500 steps of 4 images"},
        seed=0,
    )
    assert notes == ()


def test_a_run_tells_how_far_it_came_by_whole_rows(run):
    facts, _ = describe_run(run)

    assert facts.progress == (
        StageProgress("encoder", 40, 0.25, 4.0),
        StageProgress("prompt", 20, 1.5, 2.0),  # the last row lacks a number
    )
    assert not facts.is_finished
    assert facts.checkpoint == ""
    assert facts.summary.startswith("unfinished run: `edgeseg_s` at 256 px follows edgeseg_m; ")
    assert facts.summary.endswith("done: encoder step 40, prompt step 20")


def test_the_end_of_long_metrics_is_enough(run):
    rows = "".join(f"{step},{step / 10},1\n" for step in range(1, 20_001))
    (run / "prompt_metrics.csv").write_text(f"step,total,images_per_s\n{rows}")

    assert describe_run(run)[0].progress[1] == StageProgress("prompt", 20_000, 2000.0, 1.0)


@pytest.mark.parametrize("text", ["", "step,total\n", "step,total\nx,1\n", "\xff\n1,2\n"])
def test_metrics_without_a_row_are_no_progress(run, text):
    (run / "prompt_metrics.csv").write_text(text)

    assert [each.stage for each in describe_run(run)[0].progress] == ["encoder"]


def test_evaluations_are_told_oldest_first_and_floors_are_none(run):
    put_evaluation(run, "encoder_000500", 200, box=0.75)
    put_evaluation(run, "start", 100, box=0.5)
    (run / "evaluations" / "half.json").write_text('{"num_objects": 7, "rows": [')
    (run / "evaluations" / "other.json").write_text("[1]")

    assert describe_run(run)[0].evaluations == (
        RunEvaluation("start", 7, {"box": 0.5}),
        RunEvaluation("encoder_000500", 7, {"box": 0.75}),
    )


def test_recall_of_proposals_is_an_evaluation(run):
    (run / "evaluations").mkdir()
    document = {"domains": {}, "mean": {"10": 0.25, "100": 0.5}, "num_images": 2, "num_objects": 9}
    (run / "evaluations" / "student-proposals.json").write_text(json.dumps(document))

    assert describe_run(run)[0].evaluations == (
        RunEvaluation("student-proposals", 9, {"AR@10": 0.25, "AR@100": 0.5}),
    )


def test_weights_have_their_hashes(run):
    (run / "student.safetensors").write_bytes(b"result")

    facts, _ = describe_run(run)

    assert facts.is_finished
    assert facts.weights == (
        RunWeights("start.safetensors", 5, hashlib.sha256(b"start").hexdigest()),
        RunWeights("student.safetensors", 6, hashlib.sha256(b"result").hexdigest()),
    )


def test_settings_of_another_version_are_told_as_far_as_they_are_known(run):
    tables = json.loads((run / "config.json").read_text())
    tables["future_stage"] = {"steps": 3}
    tables["student"]["image_size"] = "large"
    (run / "config.json").write_text(json.dumps(tables))

    facts, notes = describe_run(run)

    assert (facts.settings.student, facts.settings.student_image_size) == ("edgeseg_s", None)
    assert len(notes) == 1
    assert notes[0].startswith("this version of edgeseg does not take the settings: ")
    assert "future_stage is unknown" in notes[0]


def test_a_run_is_described_where_nothing_can_be_trained(run, monkeypatch):
    monkeypatch.delitem(sys.modules, "edgeseg.distill.config")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "edgeseg.data.sources", None)

    facts, notes = describe_run(run)

    assert (facts.settings.student, notes) == ("edgeseg_s", ())


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000])
def test_settings_of_something_else_are_refused(run, text):
    (run / "config.json").write_text(text)

    with pytest.raises(RunError, match=r"config\.json (is no run's|cannot be read)"):
        describe_run(run)


def test_a_folder_with_settings_alone_is_no_run(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert not looks_like_run(tmp_path)

    (tmp_path / "prompt_metrics.csv").touch()
    assert looks_like_run(tmp_path)
