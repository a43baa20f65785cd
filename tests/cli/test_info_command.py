import json

import pytest

from edgeseg.cli import main
from edgeseg.manifest import sha256_of


def test_text_says_what_the_json_says(tiny_weights, capsys):
    assert main(["info", str(tiny_weights)]) == 0
    text, _ = capsys.readouterr()
    assert main(["info", str(tiny_weights), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)

    assert document["kind"] == "weights"
    assert document["model"] == "edgeseg_tiny"
    assert document["image_size"] == 64
    assert document["sha256"] == sha256_of(tiny_weights)
    lines = text.splitlines()
    assert lines[0] == document["path"]
    assert lines[1].strip() == document["summary"]
    assert document["sha256"] in text
    assert f"{document['counts']['num_parameters']:,}" in text


def test_nothing_is_said_on_stderr_when_nobody_watches(tiny_weights, capsys):
    main(["info", str(tiny_weights)])

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("json_", [[], ["--json"]])
def test_something_else_is_one_line_on_stderr_and_status_one(photo, capsys, json_):
    assert main(["info", str(photo), *json_]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    expected = f"edgeseg: {photo} is a PNG file, an image; `edgeseg segment` takes images\n"
    assert err == expected
