"""What a teacher embedding depends on; two runs with the same key may share a cache."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from edgeseg.errors import CacheError


@dataclass(frozen=True)
class CacheKey:
    """Everything that has to be equal for a cached embedding to be the one a run would compute.

    Attributes:
        teacher: Fingerprint of the teacher's weights, such as their SHA-256.
        image_size: Side S of the square teacher input, in pixels.
        preprocessing: Version of the steps from image file to network input.
        embedding_shape: C, h, w of one embedding.
        dtype: Type of the stored numbers; float16 is the only one.

    Raises:
        CacheError: A value is out of range.
    """

    teacher: str
    image_size: int
    preprocessing: str
    embedding_shape: tuple[int, int, int]
    dtype: str = "float16"

    def __post_init__(self) -> None:
        object.__setattr__(self, "embedding_shape", tuple(self.embedding_shape))
        if len(self.embedding_shape) != 3 or min(*self.embedding_shape, self.image_size) < 1:
            raise CacheError(
                "embedding_shape must be (C, h, w) and, like image_size, positive, got "
                f"{self.embedding_shape} and {self.image_size}"
            )
        if self.dtype != "float16":
            raise CacheError(f"dtype must be 'float16', got {self.dtype!r}")

    @property
    def image_bytes(self) -> int:
        """Size of one embedding in bytes.

        >>> CacheKey("vit_h", 1024, "1", (256, 64, 64)).image_bytes == 2 * 2**20
        True
        """
        return math.prod(self.embedding_shape) * np.dtype(self.dtype).itemsize

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all fields, in hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def check_equals(self, stored: "CacheKey", folder: Path) -> None:
        """Raise if the key stored in a cache folder is not this one.

        Raises:
            CacheError: With every field that differs and both of its values.
        """
        differences = [
            f"{field.name} {getattr(stored, field.name)!r} where this run has "
            f"{getattr(self, field.name)!r}"
            for field in fields(self)
            if getattr(stored, field.name) != getattr(self, field.name)
        ]
        if differences:
            raise CacheError(
                f"the teacher cache {folder} was made with {', '.join(differences)}; "
                "use another folder or delete this one"
            )
