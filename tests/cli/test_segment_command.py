import json

import cv2

from edgeseg.cli import main
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
