"""What is known about a file or folder, in one form for all kinds."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class TensorFacts:
    """A tensor that a file holds, takes or gives.

    Attributes:
        name: As the file calls it.
        shape: Sizes; a letter or "?" stands for any size.
        dtype: numpy's name of the element type where there is one, such as "float32".
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class Facts(Protocol):
    """What a kind of file has to say; a frozen dataclass whose fields are the rest."""

    @property
    def kind(self) -> str:
        """One word or two for programs, such as "onnx model"."""

    @property
    def summary(self) -> str:
        """One sentence for people."""


@dataclass(frozen=True)
class Description:
    """What a file or folder is.

    Attributes:
        path: As it was given, or where a name led.
        facts: What the kind of file has to say.
        size_bytes: Of the file, or of all files of the folder.
        num_files: 1 for a file.
        sha256: Of the file; of a folder, over the names and hashes of all its files; None for a
            run, which is not one thing.
        notes: What is odd or could not be told, and why.
    """

    path: str
    facts: Facts
    size_bytes: int
    num_files: int
    sha256: str | None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return what `edgeseg info --json` prints."""
        facts: Any = self.facts
        return {
            "path": self.path,
            "kind": self.facts.kind,
            "summary": self.facts.summary,
            "size_bytes": self.size_bytes,
            "num_files": self.num_files,
            "sha256": self.sha256,
            **dataclasses.asdict(facts),
            "notes": list(self.notes),
        }


def millions(count: int) -> str:
    """Return a count as people say it.

    >>> millions(9_582_368), millions(4_300)
    ('9.58 M', '4,300')
    """
    return f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count:,}"


def written_counts(counts: Mapping[str, int]) -> str:
    """Return counts in one line, the largest first.

    >>> written_counts({"float32": 7, "int8": 200_000})
    '0.20 M int8, 7 float32'
    """
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{millions(count)} {name}" for name, count in ordered)
