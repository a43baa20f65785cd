import json

import pytest

from edgeseg.cli import main
from edgeseg.errors import PlatformError
from edgeseg.export_manifest import AccuracyFigures, ExportManifest, write_export
from edgeseg.exporter import verification
from edgeseg.exporter.proof_report import CaseParity, MaskOverlap, ProofReport
from edgeseg.exporter.targets import ToleranceConfig
from edgeseg.exporter.verification import PartResult, VerificationReport
from edgeseg.modeling import checkpoints

TOLERANCE = ToleranceConfig(min_mask_iou=0.99)


@pytest.fixture
def folder(tmp_path):
    manifest = ExportManifest(
        model="edgeseg_tiny", target="onnx_fp32", format="onnx", precision="float32",
        image_size=64, normalises=False, pixel_mean=(1, 2, 3), pixel_std=(1, 1, 1), padding="zeros",
        files=(), versions={}, weights_sha256="", licence="l",
    )  # fmt: skip
    write_export(tmp_path, manifest)
    return tmp_path


def finding(monkeypatch, *parts):
    """Let the proof find this, and note what it was asked."""
    asked = {}

    def verify(folder, net, tolerance, **settings):
        asked.update(settings, net=net, tolerance=tolerance)
        return VerificationReport(folder, parts)

    monkeypatch.setattr(verification, "verify_export", verify)
    monkeypatch.setattr(checkpoints, "load_model", lambda name: f"net of {name}")
    return asked


def report(iou):
    overlap = MaskOverlap(round(1000 * iou), 1000)
    case = CaseParity("photo", "box", "masks", 1.0, 0.25, overlap=overlap)
    found = AccuracyFigures(prompt_set="box", miou=0.6, miou_pytorch=0.625, num_objects=7)
    return ProofReport("pair", "ONNX Runtime 1", TOLERANCE, (case,), (found,))


def test_equal_files_exit_with_0_and_a_line_an_output(folder, monkeypatch, capsys):
    asked = finding(monkeypatch, PartResult("pair", "PASS", report=report(0.995)))

    assert main(["verify", str(folder)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "PASS pair (ONNX Runtime 1)"
    assert "pair.masks" in lines[1]
    assert "mask IoU 0.9950 (1 cases)" in lines[1]
    assert "box mIoU" in lines[2]
    assert "60.00, PyTorch 62.50 (7 objects)" in lines[2]
    assert asked["net"] == "net of edgeseg_tiny"  # the released weights of the model it is of
    assert asked["tolerance"].min_mask_iou == 0.999  # of the target it was exported for


def test_other_weights_and_another_target_can_be_named(folder, monkeypatch):
    asked = finding(monkeypatch, PartResult("pair", "PASS", report=report(1.0)))

    assert main(["verify", str(folder), "--weights", "w", "--target", "onnx_fp16", "--exact"]) == 0

    assert asked["net"] == "net of w"
    assert asked["tolerance"].min_mask_iou == 0.99
    assert asked["exact_arithmetic"] is True


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([PartResult("pair", "FAIL", "far off", report(0.5))], 1),
        ([PartResult("pair", "SKIP", "needs a Mac")], 3),
        ([PartResult("pair", "PASS", "", report(1)), PartResult("fused", "SKIP", "no")], 3),
        ([PartResult("pair", "FAIL", "far", report(0)), PartResult("fused", "SKIP", "no")], 1),
        ([], 3),
    ],
    ids=["different", "not run", "one not run", "different and not run", "nothing"],
)
def test_what_is_not_equal_or_not_run_is_no_success(folder, monkeypatch, parts, status):
    finding(monkeypatch, *parts)

    assert main(["verify", str(folder)]) == status


def test_json_holds_every_figure(folder, monkeypatch, capsys):
    finding(monkeypatch, PartResult("pair", "FAIL", "far off", report(0.5)))

    assert main(["verify", str(folder), "--json"]) == 1

    (part,) = json.loads(capsys.readouterr().out)["parts"]
    assert (part["status"], part["reason"]) == ("FAIL", "far off")
    assert part["accuracy"][0]["miou_pytorch"] == 0.625
    assert part["figures"][0]["min_mask_iou"] == 0.5


def test_a_machine_that_cannot_run_it_exits_with_3(folder, monkeypatch, capsys):
    def verify(*arguments, **settings):
        raise PlatformError("Core ML runs on macOS; verify there")

    monkeypatch.setattr(verification, "verify_export", verify)
    monkeypatch.setattr(checkpoints, "load_model", lambda name: name)

    assert main(["verify", str(folder)]) == 3
    assert "Core ML runs on macOS" in capsys.readouterr().err


def test_wrong_usage_and_a_folder_without_a_manifest(tmp_path, capsys):
    assert main(["verify"]) == 2
    assert main(["verify", str(tmp_path)]) == 1
    assert "give a folder that `edgeseg export` wrote" in capsys.readouterr().err
