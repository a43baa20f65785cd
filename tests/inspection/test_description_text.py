from dataclasses import dataclass, field
from typing import Any

from edgeseg.inspection.description import Description, TensorFacts, millions, written_counts
from edgeseg.inspection.description_text import description_text


@dataclass(frozen=True)
class Facts:
    anything: Any
    other_thing: Any = None
    empty: dict = field(default_factory=dict)

    kind = "thing"
    summary = "a thing for tests"


def text(anything, other=None, notes=(), num_files=1):
    facts = Facts(anything, other)
    return description_text(Description("a/b", facts, 1_234_567, num_files, "ab12", notes))


def test_path_and_summary_come_first_and_notes_last():
    assert text(1, notes=("odd",)).splitlines() == [
        "a/b",
        "  a thing for tests",
        "",
        "  kind:     thing",
        "  size:     1.2 MB (1,234,567 bytes)",
        "  sha256:   ab12",
        "  anything: 1",
        "  note: odd",
    ]


def test_nothing_is_said_about_what_is_not_there():
    assert "other" not in text(1)
    assert "empty" not in text(1)


def test_a_folder_has_a_number_of_files():
    assert "(1,234,567 bytes) in 3 files" in text(1, num_files=3)


def test_tensors_stand_below_each_other():
    tensors = (TensorFacts("image", (1, 3, "S"), "float32"), TensorFacts("n", (), "int64"))

    assert text(tensors).splitlines()[-2:] == [
        "  anything: image float32 (1, 3, S)",
        "            n int64 ()",
    ]


def test_counts_are_in_one_line_and_texts_in_one_each():
    assert "  anything: Conv 12, Relu 34,567" in text({"Conv": 12, "Relu": 34567})
    assert text({"a_b": "x", "c.d_e": "y"}).splitlines()[-3:] == [
        "  anything:",
        "    a b:   x",
        "    c.d_e: y",  # a key of somebody else's is left as it is
    ]


def test_rows_are_in_one_line_each_without_what_they_lack():
    rows = [{"name": "start", "loss": 0.123456, "step": None}, {"name": "end", "num_x": True}]

    assert text(rows).splitlines()[-2:] == ["    start, loss 0.1235", "    end, x yes"]


def test_lists_inside_of_rows_stand_below_them():
    rows = [{"path": "a.onnx", "size_bytes": 22_000_000, "inputs": ["x", "y"]}]

    assert text(rows).splitlines()[-2:] == ["    a.onnx, size 22.0 MB", "      inputs: x, y"]


def test_long_lines_are_wrapped_between_words():
    words = " ".join(["word"] * 40)

    lines = text(words).splitlines()

    assert max(map(len, lines)) <= 110
    assert sum(line.count("word") for line in lines) == 40
    assert lines[-1].startswith(" " * 12 + "word")


def test_a_very_long_text_is_cut():
    assert text("x" * 401).endswith("x…")
    assert "…" not in text("x" * 400)


def test_nothing_in_a_file_can_steer_the_terminal():
    shown = text({"key\x1b": "\x1b]0;title\x07\x9b2J"}, notes=("\r\x1b[31m",))

    assert all(character.isprintable() or character == "\n" for character in shown)
    assert "\\x1b]0;title\\x07\\x9b2J" in shown


def test_numbers_are_written_as_people_say_them():
    assert millions(99_999) == "99,999"
    assert millions(100_000) == "0.10 M"
    assert written_counts({"int64": 3, "float16": 9_372_572}) == "9.37 M float16, 3 int64"
