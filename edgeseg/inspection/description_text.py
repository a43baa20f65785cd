"""A description for people: the names of its JSON, a line or a few each."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from edgeseg.inspection.description import Description

_WIDTH = 110
_INDENT = "  "
_LONGEST_TEXT = 400
_WIDEST_LABEL = 24


def description_text(description: Description) -> str:
    """Return what is known, as lines. Nothing that a file says can steer the terminal."""
    facts = description.as_dict()
    size, num_files = facts.pop("size_bytes"), facts.pop("num_files")
    in_files = f" in {num_files} files" if num_files > 1 else ""
    notes = facts.pop("notes")
    head = [facts.pop("path"), f"{_INDENT}{facts.pop('summary')}", ""]
    size_text = (
        f"{megabytes(size)}{in_files}"
        if size < 10**5
        else (f"{megabytes(size)} ({size:,} bytes){in_files}")
    )
    block = {"kind": facts.pop("kind"), "size": size_text, **facts}
    lines = [*head, *_block(block, 1), *(f"{_INDENT}note: {note}" for note in notes)]
    return "\n".join(_harmless(line) for line in lines)


def megabytes(size_bytes: int) -> str:
    """Return a size as people read it.

    >>> megabytes(38_618_288), megabytes(1_238)
    ('38.6 MB', '1,238 bytes')
    """
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 10**5 else f"{size_bytes:,} bytes"


def _block(entries: Mapping[str, object], depth: int) -> Iterator[str]:
    """Yield the lines of entries below each other, without those that have nothing to say."""
    said = {_label(key): (key, value) for key, value in entries.items() if not _is_empty(value)}
    width = min(_WIDEST_LABEL, max(map(len, said), default=0) + 1)
    for label, (key, value) in said.items():
        if _has_own_block(value):
            yield f"{_INDENT * depth}{label}:"
            yield from _inner_block(value, depth + 1)
            continue
        first = f"{_INDENT * depth}{label + ':':{width}} "
        for line in _lines(key, value, _WIDTH - len(first)):
            yield f"{first}{line}"
            first = " " * len(first)


def _has_own_block(value: object) -> bool:
    """Return whether a value takes an indented block rather than lines beside its label."""
    if isinstance(value, Mapping):
        return any(not isinstance(inner, int | float) for inner in value.values())
    return _is_list(value) and any(isinstance(e, Mapping) and not _is_tensor(e) for e in value)  # type: ignore[attr-defined]


def _inner_block(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _block(value, depth)
        return
    assert isinstance(value, Sequence)
    for row in value:
        inside = {key: each for key, each in row.items() if _is_list(each)}
        flat = {key: each for key, each in row.items() if key not in inside}
        text = ", ".join(_named(key, each) for key, each in flat.items() if not _is_empty(each))
        lines = textwrap.wrap(text, _WIDTH - len(_INDENT * depth), subsequent_indent=_INDENT)
        yield from (f"{_INDENT * depth}{line}" for line in lines)
        yield from _block(inside, depth + 1)


def _lines(key: str, value: object, width: int) -> list[str]:
    """Return a value in lines of some width."""
    if isinstance(value, Mapping):
        return _wrapped(", ".join(f"{name} {_scalar(n)}" for name, n in value.items()), width)
    if _is_list(value):
        items = [_tensor(each) if isinstance(each, Mapping) else _scalar(each) for each in value]  # type: ignore[attr-defined]
        together = ", ".join(items)
        return [together] if len(together) <= width and not _is_tensor(value[0]) else items  # type: ignore[index]
    return _wrapped(_quantity(key, value), width)


def _named(key: str, value: object) -> str:
    """Return one fact of a row; what names the row needs no label."""
    if key in ("name", "stage", "role", "path", "output", "prompt_set", "label"):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_scalar(inner)}" for name, inner in value.items())
    return f"{_label(key)} {_quantity(key, value)}"


def _quantity(key: str, value: object) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return megabytes(value)
    return _scalar(value)


def _label(key: str) -> str:
    if "." in key:  # a key of somebody else's metadata
        return key
    return key.removeprefix("num_").removesuffix("_bytes").replace("_", " ")


def _tensor(tensor: Mapping[str, object]) -> str:
    shape = tensor["shape"]
    assert isinstance(shape, Sequence)
    return f"{tensor['name']} {tensor['dtype']} ({', '.join(map(str, shape))})"


def _is_tensor(value: object) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"name", "shape", "dtype"}


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_empty(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, Sequence | Mapping) and not value)


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False) or [""]


def _harmless(line: str) -> str:
    r"""Show control characters instead of sending them to the terminal.

    >>> _harmless("a\x1b[2J")
    'a\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
