import cv2
import numpy as np
import pytest

from edgeseg.inspection.file_kinds import foreign_kind, looks_like_text, shown_bytes


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(".jpg", "a JPEG file"), (".png", "a PNG file"), (".bmp", "a BMP file"),
     (".tiff", "a TIFF file"), (".webp", "a WebP file")],
)  # fmt: skip
def test_images_are_told_by_what_opencv_writes(suffix, kind):
    _, content = cv2.imencode(suffix, np.zeros((4, 6, 3), np.uint8))

    found = foreign_kind(content.tobytes()[:512])

    assert found == f"{kind}, an image; `edgeseg segment` takes images"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"  <!DOCTYPE html><html>", "a web page"),
        (b"<HTML lang=en>", "a web page"),
        (b"\x00\x00\x00\x18ftypheic", "an HEIC or AVIF image"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"x" * 257 + b"ustar\x0000", "a tar archive"),
        (b"\x20\x00\x00\x00TFL3", "a TensorFlow Lite model"),
        (b"GGUF\x03", "a GGUF file"),
    ],
)
def test_files_of_other_programs_are_told(head, kind):
    assert foreign_kind(head).startswith(kind)


@pytest.mark.parametrize(
    "head", [b"", b"BM of a text that is no picture", b"PK\x03\x04", b"\x80\x02."]
)
def test_what_is_not_known_is_left_to_others(head):
    assert foreign_kind(head) == ""


def test_text_is_ascii_that_can_be_printed():
    assert looks_like_text(b"a = 1\n")
    assert not looks_like_text(b"a\x00b")
    assert not looks_like_text(b"")
    assert not looks_like_text("ä".encode())


def test_first_bytes_are_shown_in_hexadecimal():
    assert shown_bytes(bytes(range(20))) == "00 01 02 03 04 05 06 07"
