import cv2
import numpy as np
import pytest
import torch
from tiny_runs import write_image, write_pairs

from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.distill.panels import TILE_PX, save_panel
from edgeseg.modeling.registry import build_model
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.runtime.segmenter import Segmenter

HEADER_PX = 22


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return Segmenter(TorchBackend(build_model("edgeseg_tiny")))


@pytest.fixture
def records(tmp_path):
    write_pairs(tmp_path / "p", num_images=4)
    return list_records([SourceConfig(format="sa1b", path=tmp_path / "p")])


def panel(path):
    return cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)


@pytest.mark.parametrize(("has_teacher", "num_columns"), [(False, 3), (True, 4)])
def test_a_panel_has_a_row_an_image_and_a_column_a_network(
    tmp_path, segmenter, records, has_teacher, num_columns
):
    path = tmp_path / "out" / "panel.png"

    save_panel(path, records, segmenter, segmenter if has_teacher else None, num_images=2)

    assert panel(path).shape == (HEADER_PX + 2 * TILE_PX, num_columns * TILE_PX, 3)
    assert [each.name for each in path.parent.iterdir()] == ["panel.png"]


def test_pictures_keep_their_shape_and_are_padded_with_white(tmp_path, segmenter, records):
    save_panel(tmp_path / "panel.png", records[3:], segmenter, None, num_images=1)  # 20 x 48 px

    picture = panel(tmp_path / "panel.png")[HEADER_PX:]
    assert (picture[TILE_PX * 20 // 48 :] == 255).all()
    assert (picture[: TILE_PX * 20 // 48 - 1] != 255).any(axis=2).mean() > 0.9


def test_teacher_and_student_have_columns_of_their_own(tmp_path, segmenter, records):
    torch.manual_seed(3)
    other = Segmenter(TorchBackend(build_model("vit_tiny")))

    for name, teacher in (("same", segmenter), ("other", other)):
        save_panel(tmp_path / f"{name}.png", records, segmenter, teacher, num_images=2)

    columns = {}
    for name in ("same", "other"):
        picture = panel(tmp_path / f"{name}.png")[HEADER_PX:]
        columns[name] = np.split(picture, 4, axis=1)
    assert np.array_equal(columns["same"][2], columns["same"][3])
    assert np.array_equal(columns["same"][3], columns["other"][3])
    assert not np.array_equal(columns["other"][2], columns["other"][3])


def test_an_image_that_cannot_be_drawn_leaves_its_row_to_the_next(tmp_path, segmenter, records):
    (tmp_path / "p" / "i0.png").write_bytes(b"no image")
    (tmp_path / "p" / "i1.json").write_text('{"annotations": []}')

    save_panel(tmp_path / "panel.png", records, segmenter, None, num_images=4)

    assert panel(tmp_path / "panel.png").shape[0] == HEADER_PX + 2 * TILE_PX


def test_there_is_no_panel_without_anything_to_draw(tmp_path, segmenter, records):
    write_image(tmp_path / "bare" / "b.png", (20, 30), seed=0)
    bare = list_records([SourceConfig(format="images", path=tmp_path / "bare")])

    save_panel(tmp_path / "none.png", bare, segmenter, None, num_images=2)
    save_panel(tmp_path / "zero.png", records, segmenter, None, num_images=0)

    assert not list(tmp_path.glob("*.png"))
