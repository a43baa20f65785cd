import numpy as np
import pytest
from exported_folders import write_folder  # shared with the tests of the runtime

from edgeseg.bench import exported_tasks
from edgeseg.bench.exported_tasks import onnx_tasks
from edgeseg.errors import ExportError
from edgeseg.signature import PromptSlots


def test_every_file_becomes_one_call(tmp_path):
    tasks = onnx_tasks(write_folder(tmp_path / "exported", high_res=True), threads=1)

    assert list(tasks) == ["encoder", "decoder"]
    assert tasks["encoder"]()["image_embedding"].shape[0] == 1
    assert tasks["decoder"]()["low_res_logits"].shape[0] == 1


def test_a_decoder_is_asked_as_many_prompts_as_wanted(tmp_path):
    tasks = onnx_tasks(write_folder(tmp_path / "exported"), 1, num_prompts=8, roles=("decoder",))

    assert list(tasks) == ["decoder"]
    assert tasks["decoder"]()["iou_scores"].shape == (8, 4)


def test_a_fixed_number_of_prompts_stays(tmp_path):
    folder = write_folder(tmp_path / "exported", slots=PromptSlots(3, 4), normalises=True)

    tasks = onnx_tasks(folder, 1, num_prompts=8)

    assert tasks["decoder"]()["iou_scores"].shape == (3, 4)
    assert np.isfinite(tasks["encoder"]()["image_embedding"]).all()


def test_core_ml_packages_are_refused(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "exported")
    manifest = exported_tasks.read_export(folder).model_copy(update={"format": "coreml"})
    monkeypatch.setattr(exported_tasks, "read_export", lambda folder: manifest)

    with pytest.raises(ExportError, match="coreml files, which ONNX Runtime cannot time"):
        onnx_tasks(folder, 1)
