"""`edgeseg adapt`: packs made, listed, used and removed as a user does it."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "adapt"))
from tiny_domain import write_domain

from edgeseg.cli import main
from edgeseg.modeling.checkpoints import save_weights
from edgeseg.modeling.registry import build_model
from edgeseg.packs import read_pack


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base, a domain with train/ and val/, and other photographs."""
    folder = tmp_path_factory.mktemp("adapting")
    torch.manual_seed(3)
    save_weights(build_model("edgeseg_tiny"), folder / "base.safetensors")
    write_domain(folder / "discs" / "train", 6)
    write_domain(folder / "discs" / "val", 3, seed=1)
    write_domain(folder / "photos", 6, seed=9, colour=(30, 30, 30))
    return folder


def run(place, *words, packs="packs"):
    base = [] if words[0] in ("list", "remove") else ["--base", str(place / "base.safetensors")]
    return main(["adapt", *words, *base, "--packs", str(place / packs)])


@pytest.fixture(scope="module")
def made(place):
    assert run(place, str(place / "discs"), "--name", "discs", "--steps", "2") == 0
    return place


def test_data_alone_makes_a_pack_and_says_what_it_gives(place, capsys):
    assert run(place, str(place / "discs"), "--name", "first", "--steps", "2", packs="a") == 0

    shown = capsys.readouterr()
    pack = read_pack(place / "a" / "first")
    assert (pack.num_images, pack.figures[0].num_images) == (6, 3)
    assert "box: " in shown.out
    assert "next: edgeseg adapt natural" in shown.out
    assert "step 2 of 2" in shown.err


def test_a_pack_that_is_there_is_not_overwritten(made, capsys):
    before = read_pack(made / "packs" / "discs")

    assert run(made, str(made / "discs"), "--name", "discs", "--steps", "1") == 1

    assert "edgeseg adapt remove discs, or choose another name" in capsys.readouterr().err
    assert read_pack(made / "packs" / "discs") == before


def test_without_val_every_fifth_image_is_held_out(place, capsys):
    words = [str(place / "photos"), "--name", "held", "--steps", "1", "--json"]

    assert run(place, "make", *words, packs="b") == 0

    pack = json.loads(capsys.readouterr().out)
    assert pack["num_images"] == 4
    assert pack["figures"][0]["num_images"] == 2


def test_packs_are_listed_with_their_figures(made, capsys):
    assert run(made, "list") == 0

    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("discs: neck_delta for edgeseg_tiny at 64 px, ")
    assert "6 images; box " in line
    assert run(made, "list", "--json") == 0
    assert [pack["name"] for pack in json.loads(capsys.readouterr().out)] == ["discs"]


def test_a_pack_that_is_told_is_measured_beside_the_base(made, capsys):
    assert run(made, "evaluate", str(made / "discs"), "--pack", "discs", "--json") == 0

    report = json.loads(capsys.readouterr().out)
    assert report["packs_used"] == {"discs": 3}
    figures = read_pack(made / "packs" / "discs").figures[0]
    assert report["gains"]["box"]["after"] == pytest.approx(figures.adapted, abs=1e-3)


def test_the_router_needs_natural_images_first(made, capsys):
    assert run(made, "evaluate", str(made / "discs"), packs="packs") == 1
    assert "give vectors of natural images, or tell" in capsys.readouterr().err

    assert run(made, "natural", str(made / "photos"), packs="packs") == 0
    capsys.readouterr()
    assert run(made, "evaluate", str(made / "discs"), "--json") == 0
    assert sum(json.loads(capsys.readouterr().out)["packs_used"].values()) == 3


def test_a_pack_of_another_base_is_refused(made, capsys):
    torch.manual_seed(4)
    save_weights(build_model("edgeseg_tiny"), made / "other.safetensors")

    status = main(
        ["adapt", "evaluate", str(made / "discs"), "--base", str(made / "other.safetensors")]
        + ["--packs", str(made / "packs"), "--pack", "discs"]
    )

    assert status == 1
    assert "load that base, or make the pack again" in capsys.readouterr().err


def test_a_removed_pack_is_gone_and_the_others_stay(place, capsys):
    for name in ("one", "two"):
        run(place, str(place / "discs"), "--name", name, "--steps", "1", packs="c")
    before = {p.name: p.read_bytes() for p in (place / "c" / "two").iterdir()}

    assert run(place, "remove", "one", packs="c") == 0

    assert not (place / "c" / "one").exists()
    assert {p.name: p.read_bytes() for p in (place / "c" / "two").iterdir()} == before
    assert run(place, "remove", "one", packs="c") == 1
    assert "give the folder of a pack" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--name", "x"], "nowhere"),
        (["--name", "x", "{discs}", "--domain", "cars"], "has no images of cars"),
        (
            ["{discs}", "--name", "../x", "--steps", "1"],
            "small letters, digits, _ and -, and not",
        ),
    ],
)
def test_mistakes_get_one_line(place, capsys, words, message):
    words = [word.replace("{discs}", str(place / "discs")) for word in words]

    assert run(place, *words, packs="d") == 1

    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1].startswith("edgeseg: ")
    assert message in errors[-1]
