import re

import cv2
import pytest
import torch

from edgeseg.distill import first_run
from edgeseg.distill.first_run import FirstRunSettings, run_first, write_photos
from edgeseg.distill.loop import Silence
from edgeseg.errors import WeightsError
from edgeseg.images import read_image
from edgeseg.modeling.checkpoints import save_weights
from edgeseg.modeling.registry import build_model


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A first run with the smallest networks, one step a stage."""
    folder = tmp_path_factory.mktemp("first")
    torch.manual_seed(0)
    save_weights(build_model("edgeseg_tiny"), folder / "teacher.safetensors")
    settings = FirstRunSettings(
        teacher=str(folder / "teacher.safetensors"),
        student="edgeseg_tiny",
        image_size=64,
        encoder_steps=1,
        prompt_steps=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        anything = {"points_per_side": 2, "min_score": 0.0, "min_stability": 0.0}
        patch.setattr(first_run, "_LABELS", anything)
        page, weights = run_first(folder / "out", settings, Silence())
        patch.setattr(first_run, "Distiller", None)  # a second call must not train again
        assert run_first(folder / "out", settings, Silence()) == (page, weights)
    return page


def test_everything_the_page_shows_lies_beside_it(finished):
    html = finished.read_text()

    sources = re.findall(r'<img src="([^"]+)"', html)
    assert sources == ["coffee.png", "camera.png", "coins.png"]
    for source in sources:
        picture = cv2.imread(str(finished.parent / source))
        assert picture.shape[1] > 2 * picture.shape[0]  # prompt, teacher and student in a row
    for path in re.findall(r"<li><code>([\w./]+)</code>", html):
        assert (finished.parent / path).exists()


def test_the_page_has_a_row_a_prompt_set_with_three_milestones(finished):
    rows = re.findall(r"<tr><td>([\w+]+)</td>(.*?)</tr>", finished.read_text())

    assert [name for name, _ in rows] == ["box", "box+1", "box+2", "center", "center+1", "center+2"]
    for _, cells in rows:
        values = [float(value) for value in re.findall(r">(\d\.\d{3})<", cells)]
        assert len(values) == 3
        assert all(0 <= value <= 1 for value in values)


def test_photographs_to_learn_from_and_to_test_on_are_not_the_same(tmp_path):
    write_photos(tmp_path)

    train = {path.name for path in (tmp_path / "train").iterdir()}
    held_out = {path.name for path in (tmp_path / "val").iterdir()}
    assert len(train) == 10
    assert held_out == {"camera.png", "coffee.png", "coins.png"}
    assert not train & held_out
    assert max(read_image(tmp_path / "train" / "retina.png").shape) == 512


def test_an_unknown_teacher_fails_before_anything_is_written(tmp_path):
    with pytest.raises(WeightsError, match="no model 'nonesuch'"):
        run_first(tmp_path / "out", FirstRunSettings(teacher="nonesuch"), Silence())

    assert not (tmp_path / "out").exists()
