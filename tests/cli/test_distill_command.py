import json

import cv2
import numpy as np
import pytest

from edgeseg.cli import main
from edgeseg.cli.distill import stop_signals
from edgeseg.distill.config import read_config
from edgeseg.distill.recipes import find_recipe, recipe_names
from edgeseg.errors import ConfigError
from edgeseg.run_lengths import encode_rle

CONFIG = """
student = {{ model = "edgeseg_tiny" }}
data = {{ train = [{{ format = "sa1b", path = "{data}" }}], workers = 0 }}
[prompt_stage]
steps = 2
batch_size = 2
learning_rate = 1e-3
targets = {{ teacher = 0.0, ground_truth = 1.0 }}
"""


@pytest.fixture
def config(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(2):
        mask = np.zeros((32, 64), bool)
        mask[8:24, 16 + 8 * number : 40] = True
        cv2.imwrite(str(data / f"{number}.png"), mask[..., None].repeat(3, 2) * np.uint8(200))
        layout = {
            "image": {"image_id": number, "width": 64, "height": 32, "file_name": f"{number}.png"},
            "annotations": [{"id": 1, "segmentation": encode_rle(mask)}],
        }
        (data / f"{number}.json").write_text(json.dumps(layout))
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(data=data))
    return path


def test_a_run_leaves_weights_that_segment(config, tmp_path, capsys):
    run = tmp_path / "run"

    assert main(["distill", str(config), "--out", str(run), "--set", "seed=3"]) == 0

    assert json.loads((run / "config.json").read_text())["seed"] == 3
    assert f"next: edgeseg evaluate {run / 'student.safetensors'}" in capsys.readouterr().out


def test_a_dry_run_measures_and_writes_nothing(config, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))

    assert main(["distill", str(config), "--out", str(tmp_path / "run"), "--dry-run"]) == 0

    printed = capsys.readouterr().out
    assert "prompt     2 steps x" in printed
    assert "MiB at the peak" in printed
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_setting_is_one_line(config, tmp_path, capsys):
    assert (
        main(["distill", str(config), "--out", str(tmp_path / "r"), "--set", "student.size=1"]) == 1
    )

    assert "student.size is unknown; known here are decoder, image_size" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_run_is_not_overwritten(config, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("")

    assert main(["distill", str(config), "--out", str(tmp_path / "run")]) == 1

    assert "is not empty; continue that run with --resume" in capsys.readouterr().err


def test_a_config_and_resume_exclude_each_other(config, tmp_path):
    assert main(["distill", str(config), "--resume", str(tmp_path)]) == 2
    assert main(["distill"]) == 2


def test_every_recipe_is_valid(monkeypatch):
    for name in ("EDGESEG_DATA", "SA1B", "SAM"):
        monkeypatch.setenv(name, "/nowhere")

    for name in recipe_names():
        read_config(find_recipe(name))


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no recipe 'nonesuch'; recipes are distill_s"):
        find_recipe("nonesuch")


def test_the_first_signal_is_remembered_and_the_second_one_is_final():
    import os
    import signal

    with pytest.raises(KeyboardInterrupt), stop_signals() as stopped:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGINT)
