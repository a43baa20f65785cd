import shlex

import pytest

from edgeseg.cli import main


@pytest.fixture(scope="module")
def exported(tiny_weights, tmp_path_factory):
    """Export with the command, once; return the folder and what was printed."""
    folder = tmp_path_factory.mktemp("exports")
    target = folder / "mine.toml"
    target.write_text(
        'description = "d"\nformat = "onnx"\n[tolerance]\nmin_mask_iou = 0.999\n', "utf-8"
    )
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("typer.echo", lambda line="", err=False: None if err else lines.append(line))
        assert main(["export", str(tiny_weights), str(out), "--target", str(target)]) == 0
    return out, "\n".join(lines).splitlines()


def test_export_prints_the_proof_the_files_and_two_commands_that_run(exported, tiny_weights, photo):
    out, lines = exported

    assert lines[0].startswith("PASS pair (ONNX Runtime")
    assert any(line.startswith(f"{out / 'decoder.onnx'} ") for line in lines)
    verify, segment = (line.removeprefix("next:").strip() for line in lines[-2:])
    own_target = out.parent / "mine.toml"
    assert verify == f"edgeseg verify {out} --weights {tiny_weights} --target {own_target}"
    assert main(shlex.split(verify)[1:]) == 0
    words = shlex.split(segment.replace("PHOTO", str(photo)).replace("X,Y", "30,20"))
    assert main([*words[1:], "--rle"]) == 0


def test_a_folder_that_holds_something_is_left_alone(exported, tiny_weights, capsys):
    out, _ = exported
    before = sorted(path.name for path in out.iterdir())

    assert main(["export", str(tiny_weights), str(out)]) == 1

    assert "is not empty; choose another folder or remove it" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == before


def test_an_unknown_target_is_refused_with_the_known_ones(tiny_weights, tmp_path, capsys):
    assert main(["export", str(tiny_weights), str(tmp_path / "out"), "--target", "iphone"]) == 1

    message = capsys.readouterr().err
    assert "no target 'iphone'" in message
    assert "coreml_fp16" in message
    assert not (tmp_path / "out").exists()
