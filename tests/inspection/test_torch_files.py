import os
import pickle
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch

from edgeseg.errors import WeightsError
from edgeseg.inspection import pytorch_checkpoints
from edgeseg.inspection.torch_files import (
    RunCheckpointFacts,
    UnreadTorchFacts,
    describe_torch,
    looks_like_torch,
)
from edgeseg.modeling.registry import build_model


@pytest.fixture(scope="module")
def edgesam():
    """The state dict of the EdgeSAM graph, without numbers that matter."""
    with torch.device("meta"):
        net = build_model("edgesam")
    return {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in net.state_dict().items()}


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def head_of(path):
    return path.read_bytes()[:512]


def test_a_published_checkpoint_is_recognised(tmp_path, edgesam):
    facts, notes = describe_torch(saved(tmp_path / "edge_sam.pth", edgesam))

    assert (facts.model, facts.inside, notes) == ("edgesam", "", ())
    assert facts.counts.num_parameters == 9_582_368
    assert facts.summary.startswith("weights of `edgesam`, 9.58 M parameters (9.63 M float32")


def test_a_checkpoint_that_lacks_a_tensor_is_told_with_its_name(tmp_path, edgesam):
    state = {name: t for name, t in edgesam.items() if name != "mask_decoder.iou_token.weight"}

    facts, notes = describe_torch(saved(tmp_path / "a.pth", {"model": state, "epoch": 3}))

    assert (facts.model, facts.inside, facts.other_entries) == (
        "edgesam",
        "model",
        {"epoch": "int"},
    )
    assert len(notes) == 1
    assert "missing: mask_decoder.iou_token.weight" in notes[0]


def test_types_and_numbers_are_those_that_are_stored(tmp_path):
    state = OrderedDict(
        [
            ("a.w", torch.zeros(2, 3).half()),
            ("a.running_var", torch.zeros(4)),
            ("b", torch.ones(())),
        ]
    )

    facts, notes = describe_torch(saved(tmp_path / "a.pth", {"state_dict": state}))

    assert facts.model is None
    assert facts.inside == "state_dict"
    assert facts.counts.numbers_by_type == {"float16": 6, "float32": 5}
    assert facts.counts.parameters_by_part == {"a": 6, "b": 1}
    assert "no checkpoint of SAM, EdgeSAM or EdgeSeg" in notes[0]


def test_the_layout_before_pytorch_1_6_is_read(tmp_path):
    path = saved(tmp_path / "a.pth", {"w": torch.zeros(3)}, _use_new_zipfile_serialization=False)

    assert looks_like_torch(path, head_of(path))
    assert describe_torch(path)[0].counts.num_parameters == 3


def test_files_of_that_layout_that_are_too_large_are_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.pth", {"w": torch.zeros(3)}, _use_new_zipfile_serialization=False)
    monkeypatch.setattr(pytorch_checkpoints, "MAX_UNMAPPED_BYTES", path.stat().st_size - 1)

    with pytest.raises(WeightsError, match=r"in the layout before PyTorch 1\.6, all of which"):
        describe_torch(path)


def test_a_checkpoint_of_a_run_tells_stage_step_and_student(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text('{"student": {"model": "edgeseg_s"}}')
    content = {
        "stage": "prompt", "step": 40, "net": {"x.w": torch.zeros(5)}, "optimizer": {"state": {}},
        "average": {"x.w": torch.zeros(5)}, "average_updates": 39, "extra": None, "precision": {},
    }  # fmt: skip

    facts, notes = describe_torch(saved(tmp_path / "checkpoints" / "last.pt", content))

    assert isinstance(facts, RunCheckpointFacts)
    assert (facts.stage, facts.step, facts.model) == ("prompt", 40, "edgeseg_s")
    assert (facts.has_average, facts.average_updates) == (True, 39)
    assert facts.counts.num_parameters == 5
    assert facts.summary.startswith(
        "training state of `edgeseg_s` after 40 steps of stage 'prompt'"
    )
    assert notes == ()


@pytest.mark.parametrize("text", [None, "", "[]", '{"student": 3}', '{"student": {"model": 3}}'])
def test_a_checkpoint_without_its_run_is_told_without_its_student(tmp_path, text):
    (tmp_path / "checkpoints").mkdir()
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    content = {"stage": "encoder", "step": "x", "net": 3, "optimizer": None}

    facts, _ = describe_torch(saved(tmp_path / "checkpoints" / "last.pt", content))

    assert (facts.model, facts.step, facts.has_average) == (None, 0, False)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2), {"model": {"a": 1}}])
def test_a_file_without_a_state_dict_says_what_it_holds(tmp_path, content):
    facts, notes = describe_torch(saved(tmp_path / "a.pth", content))

    assert facts.counts.num_tensors == 0
    assert notes[0].startswith(f"it holds no state dict but {type(content).__name__}")


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, mark):
        self._mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self._mark),)


def test_python_objects_are_refused_and_not_run(tmp_path):
    path = saved(tmp_path / "evil.pth", {"model": Attack(tmp_path / "mark")})

    with pytest.raises(WeightsError, match="holds Python objects, and reading objects could run"):
        describe_torch(path)
    assert not (tmp_path / "mark").exists()


def test_an_archive_that_grows_is_refused_before_torch_is_imported(tmp_path, monkeypatch):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**6))
    monkeypatch.setitem(sys.modules, "edgeseg.inspection.pytorch_checkpoints", None)

    assert looks_like_torch(path, head_of(path))
    with pytest.raises(WeightsError, match=r"'a/data\.pkl' is compressed"):
        describe_torch(path)


@pytest.mark.parametrize("length", [100, 600, -40, -1])
def test_a_file_that_is_cut_off_is_refused_or_not_taken_for_one(tmp_path, length):
    path = saved(tmp_path / "a.pth", {"w": torch.zeros(300)})
    path.write_bytes(path.read_bytes()[:length])

    if looks_like_torch(path, head_of(path)):
        with pytest.raises(WeightsError):
            describe_torch(path)


def test_a_damaged_pickle_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}q\x00(X\x01")
        archive.writestr("a/version", "3\n")

    with pytest.raises(WeightsError, match="is damaged"):
        describe_torch(path)


def test_without_torch_the_number_of_records_is_told(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.pth", {"w": torch.zeros(300)})
    with zipfile.ZipFile(path) as archive:
        num_records = len(archive.namelist())
    monkeypatch.setitem(sys.modules, "edgeseg.inspection.pytorch_checkpoints", None)

    facts, notes = describe_torch(path)

    assert facts == UnreadTorchFacts(num_records)
    assert "python -m pip install 'edgeseg[train]'" in notes[0]


def test_other_pickles_and_archives_are_not_taken_for_torchs(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": 1}))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "x")

    assert not looks_like_torch(tmp_path / "a.pkl", head_of(tmp_path / "a.pkl"))
    assert not looks_like_torch(tmp_path / "a.zip", head_of(tmp_path / "a.zip"))
