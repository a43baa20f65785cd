import json

import cv2
import numpy as np
import pytest

from edgeseg.cli import main
from edgeseg.run_lengths import encode_rle


@pytest.fixture
def squares(tmp_path):
    """Two images in the SA-1B layout with one square each."""
    for number in range(2):
        mask = np.zeros((40, 80), bool)
        mask[10:30, 20 + 10 * number : 40 + 10 * number] = True
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), mask[..., None].repeat(3, 2) * np.uint8(200))
        layout = {
            "image": {"image_id": number, "width": 80, "height": 40, "file_name": f"{number}.jpg"},
            "annotations": [{"id": 1, "segmentation": encode_rle(mask)}],
        }
        (tmp_path / f"{number}.json").write_text(json.dumps(layout))
    return tmp_path


def test_figures_plot_and_agreement_come_out(squares, tiny_weights, tmp_path, capsys):
    out = tmp_path / "figures" / "tiny.json"
    words = ["evaluate", str(tiny_weights), str(squares), "--prompts", "box,center+1", "--json"]

    status = main([*words, "--teacher", str(tiny_weights), "--out", str(out)])

    printed = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row["mean"] for row in printed["rows"]}
    assert status == 0
    assert printed["num_objects"] == 2
    assert rows["box"]["agreement"] == 1.0  # the teacher is the student
    assert rows["filled box"]["iou"] == 1.0  # the objects are squares
    assert json.loads(out.read_text()) == printed
    assert cv2.imread(str(out.with_suffix(".png"))) is not None


def test_an_unknown_prompt_set_is_refused(squares, tiny_weights, capsys):
    assert main(["evaluate", str(tiny_weights), str(squares), "--prompts", "circle"]) == 1

    assert "cannot evaluate that" in capsys.readouterr().err
