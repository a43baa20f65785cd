import csv
import json

import pytest
import torch

from edgeseg.distill.config import parse_config
from edgeseg.distill.run_folder import RunFolder
from edgeseg.errors import ConfigError, RunError


@pytest.fixture
def config():
    return parse_config(
        {
            "seed": 4,
            "student": {"model": "edgeseg_s"},
            "data": {"train": [{"format": "sa1b", "path": "$PHOTOS"}]},
            "prompt_stage": {"steps": 5, "targets": {"teacher": 0, "ground_truth": 1}},
        },
        "test",
    )


@pytest.fixture
def folder(tmp_path, config):
    folder = RunFolder.create(tmp_path / "run", config)
    yield folder
    folder.close()


def rows(folder, stage="prompt"):
    with (folder.path / f"{stage}_metrics.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_a_new_folder_holds_the_resolved_settings(folder, config):
    assert json.loads((folder.path / "config.json").read_text())["seed"] == 4
    assert RunFolder.open(folder.path).config == config


def test_a_run_may_start_in_an_empty_folder(tmp_path, config):
    assert RunFolder.create(tmp_path, config).path == tmp_path


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path, config):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(RunError, match="is not empty; continue that run with --resume or choose"):
        RunFolder.create(tmp_path, config)
    with pytest.raises(RunError, match="notes.txt is not empty"):
        RunFolder.create(tmp_path / "notes.txt", config)

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_further_processes_use_the_folder_the_first_one_made(folder, config, monkeypatch):
    monkeypatch.setenv("RANK", "1")

    assert RunFolder.create(folder.path, config).path == folder.path


def test_further_processes_write_nothing(tmp_path, config, monkeypatch):
    monkeypatch.setenv("RANK", "3")

    RunFolder.create(tmp_path / "run", config)

    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [None, "{"])
def test_only_a_run_can_be_resumed(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)

    with pytest.raises(RunError, match="holds no run that could be resumed"):
        RunFolder.open(tmp_path)


def test_settings_that_were_spoilt_are_told(folder):
    file = folder.path / "config.json"
    file.write_text(file.read_text().replace('"seed": 4', '"seed": -4'))

    with pytest.raises(ConfigError, match="config.json: seed: "):
        RunFolder.open(folder.path)


def test_a_checkpoint_comes_back_as_it_was(folder):
    assert folder.load_checkpoint() is None

    folder.save_checkpoint({"step": 3, "net": {"w": torch.tensor([1.5])}, "average": None})

    loaded = folder.load_checkpoint()
    assert (loaded["step"], loaded["average"]) == (3, None)
    assert loaded["net"]["w"].tolist() == [1.5]


def test_a_checkpoint_replaces_the_one_before_and_leaves_no_other_file(folder):
    for step in (1, 2):
        folder.save_checkpoint({"step": step})

    assert folder.load_checkpoint() == {"step": 2}
    assert [path.name for path in (folder.path / "checkpoints").iterdir()] == ["last.pt"]


def test_a_failed_save_keeps_the_checkpoint_before(folder):
    folder.save_checkpoint({"step": 1})

    with pytest.raises((AttributeError, TypeError)):
        folder.save_checkpoint({"step": (number for number in [2])})  # cannot be pickled

    assert folder.load_checkpoint() == {"step": 1}
    assert [path.name for path in (folder.path / "checkpoints").iterdir()] == ["last.pt"]


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage"])
def test_a_damaged_checkpoint_is_named_with_the_way_out(folder, damage):
    folder.save_checkpoint({"step": 1, "net": torch.zeros(100)})
    path = folder.path / "checkpoints" / "last.pt"
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "garbage": b"hello"}[damage])

    with pytest.raises(RunError, match=r"last.pt is damaged: .+; delete it to start over"):
        folder.load_checkpoint()


def test_a_file_that_would_run_code_is_refused(folder):
    folder.save_checkpoint({"step": print})

    with pytest.raises(RunError, match="is damaged"):
        folder.load_checkpoint()


def test_a_file_with_something_else_in_it_is_no_checkpoint(folder):
    folder.save_checkpoint([1, 2])

    with pytest.raises(RunError, match="holds no checkpoint; delete it to start over"):
        folder.load_checkpoint()


def test_metrics_are_rows_under_one_header(folder):
    folder.log("prompt", 1, {"total": 0.123456789, "images_per_s": 10.0})
    folder.log("prompt", 2, {"total": 1e-12, "images_per_s": 11.0})

    assert rows(folder) == [
        ["step", "total", "images_per_s"],
        ["1", "0.123457", "10"],
        ["2", "1e-12", "11"],
    ]


def test_every_stage_has_its_own_table(folder):
    folder.log("encoder", 1, {"total": 1.0})
    folder.log("prompt", 1, {"total": 2.0, "other": 3.0})

    assert rows(folder, "encoder")[1] == ["1", "1"]
    assert rows(folder, "prompt")[1] == ["1", "2", "3"]


def test_metrics_go_to_tensorboard_as_well(folder):
    folder.log("prompt", 1, {"total": 1.0})
    folder.close()

    assert len(list((folder.path / "tensorboard").iterdir())) == 1


def test_rows_a_resumed_run_writes_again_are_dropped(folder):
    for step in range(1, 13):
        folder.log("prompt", step, {"total": float(step)})

    folder.forget_metrics_from("prompt", 10)
    folder.log("prompt", 10, {"total": 0.5})

    assert [row[0] for row in rows(folder)] == ["step", *map(str, range(1, 11))]
    assert rows(folder)[-1] == ["10", "0.5"]


def test_a_row_that_a_crash_cut_is_dropped(folder):
    folder.log("prompt", 1, {"total": 1.0, "grad_norm": 2.0})
    with (folder.path / "prompt_metrics.csv").open("a") as file:
        file.write("2,0.")

    folder.forget_metrics_from("prompt", 5)
    folder.log("prompt", 5, {"total": 3.0, "grad_norm": 4.0})

    assert [row[0] for row in rows(folder)] == ["step", "1", "5"]


def test_a_table_that_a_crash_left_empty_gets_its_header(folder):
    (folder.path / "prompt_metrics.csv").touch()

    folder.forget_metrics_from("prompt", 1)
    folder.log("prompt", 1, {"total": 1.0})

    assert rows(folder) == [["step", "total"], ["1", "1"]]


def test_forgetting_without_a_table_does_nothing(folder):
    folder.forget_metrics_from("prompt", 1)

    assert not (folder.path / "prompt_metrics.csv").exists()
