import json
import re

import cv2
import pytest
import torch

from edgeseg.cli import main
from edgeseg.modeling.checkpoints import save_weights
from edgeseg.modeling.registry import build_model
from edgeseg.run_lengths import decode_rle


def test_a_mask_per_object_and_an_overlay_are_written_at_the_size_of_the_photo(
    tmp_path, photo, tiny_weights
):
    out = tmp_path / "masks"
    words = ["segment", str(photo), "--model", str(tiny_weights), "--out", str(out)]

    status = main([*words, "--box", "20,10,40,30", "--box", "0,0,10,10"])

    assert status == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "mask_0.png",
        "mask_1.png",
        "overlay.png",
    ]
    mask = cv2.imread(str(out / "mask_0.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (40, 80)
    assert set(mask.ravel().tolist()) <= {0, 255}
    assert cv2.imread(str(out / "overlay.png")).shape == (40, 80, 3)


def test_run_lengths_decode_to_the_masks_that_are_written(tmp_path, photo, tiny_weights, capsys):
    words = ["segment", str(photo), "--model", str(tiny_weights), "--point", "30,20"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    capsys.readouterr()

    assert main([*words, "--rle"]) == 0

    (row,) = json.loads(capsys.readouterr().out)["masks"]
    written = cv2.imread(str(tmp_path / "mask_0.png"), cv2.IMREAD_UNCHANGED) > 0
    assert (decode_rle(row["segmentation"]) == written).all()


def test_multimask_gives_three_answers_a_prompt(photo, tiny_weights, capsys):
    words = ["segment", str(photo), "--model", str(tiny_weights), "--each", "--multimask", "--rle"]

    assert main([*words, "--point", "30,20", "--point", "5,5"]) == 0

    rows = json.loads(capsys.readouterr().out)["masks"]
    assert [row["prompt"] for row in rows] == [0, 0, 0, 1, 1, 1]


def test_an_unknown_model_is_one_line_that_says_what_there_is(photo, capsys):
    assert main(["segment", str(photo), "--point", "1,1", "--model", "nonesuch"]) == 1

    message = capsys.readouterr().err
    assert message.startswith("edgeseg: no model 'nonesuch'")
    assert message.count("\n") == 1


def test_an_unreadable_photo_is_one_line(tmp_path, tiny_weights, capsys):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no image")

    words = ["segment", str(path), "--point", "1,1", "--model", str(tiny_weights)]
    assert main(words) == 1

    assert "cannot decode" in capsys.readouterr().err


@pytest.fixture
def proposing_weights(tmp_path):
    torch.manual_seed(0)
    net = build_model("edgeseg_tiny")
    net.add_proposal_head()
    with torch.no_grad():
        for prediction in net.proposal_head.predictions:
            prediction.bias[4:6] = 2.0  # sure of every cell
        net.proposal_head.predictions[0].bias[6] = 20.0  # of the size that a click means
        net.mask_decoder.iou_prediction_head.layers[-1].bias += 1.0  # and of every mask,
        net.mask_decoder.iou_prediction_head.layers[-1].bias[0] += 1.0  # of a box's the most,
        for mlp in net.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight *= 1000  # whose edges are sharp
    path = tmp_path / "proposing.safetensors"
    save_weights(net, path)
    return path


def test_everything_is_written_in_the_layout_of_sa1b(tmp_path, photo, proposing_weights, capsys):
    words = ["segment", str(photo), "--model", str(proposing_weights), "--everything"]

    assert main([*words, "--max-prompts", "9", "--out", str(tmp_path / "out")]) == 0

    printed = capsys.readouterr()
    assert " masks from 9 prompts: encode " in printed.err
    document = json.loads((tmp_path / "out" / "everything.json").read_text("utf-8"))
    assert document["image"] == {"file_name": photo.name, "height": 40, "width": 80}
    assert document["annotations"]
    for number, row in enumerate(document["annotations"]):
        assert row["id"] == number
        assert decode_rle(row["segmentation"]).sum() == row["area"]
    assert cv2.imread(str(tmp_path / "out" / "overlay.png")).shape == (40, 80, 3)
    assert main([*words, "--max-prompts", "9", "--rle"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_a_grid_needs_no_proposals(photo, tiny_weights, capsys):
    words = ["segment", str(photo), "--model", str(tiny_weights), "--grid", "2", "--rle"]

    assert main(words) == 0

    assert "masks from 4 prompts" in capsys.readouterr().err


def test_a_single_point_may_go_with_the_box_proposed_for_it(photo, proposing_weights, capsys):
    words = ["segment", str(photo), "--model", str(proposing_weights), "--point", "30,20", "--rle"]

    assert main(words) == 0
    alone = json.loads(capsys.readouterr().out)["masks"]
    assert main([*words, "--proposals"]) == 0
    together = json.loads(capsys.readouterr().out)["masks"]

    assert len(alone) == len(together) == 1
    assert alone[0]["segmentation"] != together[0]["segmentation"]


def test_granularities_are_several_masks_of_one_point(photo, proposing_weights, capsys):
    words = ["segment", str(photo), "--model", str(proposing_weights), "--granularities", "--rle"]

    assert main([*words, "--point", "30,20"]) == 0

    rows = json.loads(capsys.readouterr().out)["masks"]
    assert 1 <= len(rows) <= 3
    assert {row["prompt"] for row in rows} == {0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--everything"], "proposes nothing|has no proposal head"),
        (["--everything", "--point", "1,1"], "--everything needs no prompts; leave --point out"),
        (["--grid", "2", "--each", "--multimask"], "leave --each and --multimask out"),
        (["--max-prompts", "3", "--point", "1,1"], "--max-prompts belongs to --everything"),
        (["--grid", "3", "--max-prompts", "3"], "--grid asks at every point; leave"),
        (["--granularities", "--box", "1,1,5,5"], "--granularities takes one --point on the ob"),
        (["--granularities", "--point", "1,1", "--multimask"], "--granularities takes one --po"),
    ],
)
def test_options_that_do_not_fit_are_one_line(photo, tiny_weights, capsys, words, message):
    assert main(["segment", str(photo), "--model", str(tiny_weights), *words]) == 1

    lines = [line for line in capsys.readouterr().err.splitlines() if "torch runs" not in line]
    assert len(lines) == 1
    assert re.search(message, lines[0])
