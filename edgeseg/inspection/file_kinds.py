"""Files that are none of ours, by their first bytes, so that an error can say what was given."""

import string

HEAD_BYTES = 512
"""How much of a file is looked at."""

_IMAGES = "an image; `edgeseg segment` takes images"
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS in place of the file; run `git lfs pull`"),
    (b"\xff\xd8\xff", f"a JPEG file, {_IMAGES}"),
    (b"\x89PNG\r\n\x1a\n", f"a PNG file, {_IMAGES}"),
    (b"GIF8", f"a GIF file, {_IMAGES}"),
    (b"II*\x00", f"a TIFF file, {_IMAGES}"),
    (b"MM\x00*", f"a TIFF file, {_IMAGES}"),
    (b"\x93NUMPY", "an array of numpy"),
    (b"\x89HDF", "an HDF5 file, as Keras writes"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"BZh", "a bzip2 archive; unpack it"),
    (b"\xfd7zXZ", "an xz archive; unpack it"),
    (b"(\xb5/\xfd", "a zstd archive; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program or library"),
    (b"SQLite format 3", "an SQLite data base"),
    (b"GGUF", "a GGUF file"),
)
_TEXT = frozenset(string.printable.encode())


def foreign_kind(head: bytes) -> str:
    r"""Return what a file is that is none of ours, with what to do about it; empty if unknown.

    Args:
        head: Its first bytes, up to `HEAD_BYTES`.

    >>> foreign_kind(b"\x93NUMPY\x01\x00")
    'an array of numpy'
    >>> foreign_kind(b"\x00\x01\x02\x03")
    ''
    """
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    return _foreign_inside(head)


def _foreign_inside(head: bytes) -> str:
    """Recognise files by bytes that are not the first ones."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return f"a WebP file, {_IMAGES}"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return f"a BMP file, {_IMAGES}"
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        return "an HEIC or AVIF image; save it as JPEG"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it"
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "a web page, perhaps saved in place of a download"
    if head.lstrip()[:5] == b"<?xml":
        return "an XML file"
    return ""


def looks_like_text(head: bytes) -> bool:
    r"""Return whether bytes are plain text in ASCII.

    >>> looks_like_text(b"a = 1"), looks_like_text(b"a\x00")
    (True, False)
    """
    return bool(head) and all(byte in _TEXT for byte in head)


def shown_bytes(head: bytes) -> str:
    r"""Return first bytes for an error message.

    >>> shown_bytes(b"PK\x03\x04rest of it")
    '50 4b 03 04 72 65 73 74'
    """
    return head[:8].hex(" ")
