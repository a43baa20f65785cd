"""Reader and writer of a folder of teacher embeddings.

```text
index.json                 the `CacheKey` of every embedding in the folder
shard_r00003_000017.npy    (n, C, h, w) float16, written by rank 3
shard_r00003_000017.json   its sidecar: names in row order, size and SHA-256 of the .npy file
```

Files are moved into place when they are whole, and a shard counts once its sidecar exists, so a
killed run loses at most the shard in progress. No file has two writers: any number of ranks on any
number of machines may fill one folder at once, or folders that are merged afterwards.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.distill.cache_key import CacheKey
from edgeseg.errors import CacheError
from edgeseg.files import write_atomically

_LOGGER = logging.getLogger(__name__)
_INDEX = "index.json"


@dataclass(frozen=True)
class _Sidecar:
    key: str
    names: tuple[str, ...]
    size_bytes: int
    sha256: str


class EmbeddingCache:
    """Reads the embeddings of a cache folder.

    It holds no open file, so it may be pickled into the workers of a data loader.

    Args:
        folder: The cache.
        key: What this run expects; another key is refused.
        check_content: Compare every shard's SHA-256, which reads the whole cache, instead of
            sizes only; worth it once after copying a cache between machines.

    Raises:
        CacheError: There is no cache in the folder, or it has another key.
    """

    def __init__(self, folder: Path, key: CacheKey, *, check_content: bool = False) -> None:
        self.folder = Path(folder)
        self.key = key
        self.damaged: list[Path] = []
        """Arrays that are truncated or gone; their images count as missing."""
        self._rows: dict[str, tuple[Path, int]] = {}
        _check_index(self.folder, key)
        for array, sidecar in _shards(self.folder, key, check_content):
            if sidecar is None:
                self.damaged.append(array)
            else:
                self._rows.update((name, (array, row)) for row, name in enumerate(sidecar.names))

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def lookup(self, name: str) -> NDArray[np.float16]:
        """Return a copy of the embedding of one image, (C, h, w) float16.

        Raises:
            CacheError: The image is not in the cache, or its shard was damaged after opening.
        """
        if name not in self._rows:
            raise CacheError(
                f"the teacher cache {self.folder} has no embedding of {name!r} (it has "
                f"{len(self)} images); fill it again, which computes only what is missing"
            )
        array, row = self._rows[name]
        try:
            # Mapped anew each time: a map that is kept open holds a file descriptor per shard.
            return np.array(np.load(array, mmap_mode="r")[row])
        except (OSError, ValueError) as error:
            raise CacheError(f"cannot read {array} ({error}); fill the cache again") from error


class EmbeddingCacheWriter:
    """Adds shards to a cache folder, which is created if need be.

    Opening removes what is useless of this rank: temporary files and damaged shards.

    Args:
        folder: The cache; other ranks may write to it at the same time.
        key: Has to be the key of the folder, if it has one already.
        shard_size: Images in a full shard.
        rank: Number of this process; two processes must never have the same one.
        world_size: Number of processes; it may change between runs.

    Raises:
        CacheError: The folder has another key or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        key: CacheKey,
        shard_size: int = 64,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if shard_size < 1 or not 0 <= rank < world_size:
            raise CacheError(
                "shard_size must be positive and rank in [0, world_size), got "
                f"shard_size {shard_size}, rank {rank}, world_size {world_size}"
            )
        self.folder = Path(folder)
        self.key = key
        self.shard_size = shard_size
        self.rank = rank
        if not (self.folder / _INDEX).exists():
            self._write_json(self.folder / _INDEX, {"key": asdict(self.key)})
        cache = EmbeddingCache(self.folder, key)
        self._present = set(cache)
        self._clean([*self.folder.glob(".shard_r*"), *cache.damaged], world_size)
        mine = self.folder.glob(f"shard_r{rank:05d}_*.json")
        self._ordinal = max((int(path.stem.rsplit("_", 1)[1]) + 1 for path in mine), default=0)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the names without an embedding, in the given order.

        What other ranks wrote after this writer was opened is not seen.
        """
        return [name for name in names if name not in self._present]

    def write_shard(self, names: Sequence[str], embeddings: NDArray[np.float16]) -> Path:
        """Write embeddings in one step: all of them are in the cache afterwards, or none.

        Args:
            names: One a row, each only once.
            embeddings: (n, C, h, w) float16, finite.

        Returns:
            Path of the .npy file.

        Raises:
            CacheError: The arguments do not fit the key or the disk.
        """
        self._check_shard(names, embeddings)
        array = self.folder / f"shard_r{self.rank:05d}_{self._ordinal:06d}.npy"
        self._write(array, lambda temporary: np.save(temporary, embeddings))
        size_bytes = array.stat().st_size
        sidecar = _Sidecar(self.key.fingerprint, tuple(names), size_bytes, _sha256(array))
        self._write_json(array.with_suffix(".json"), asdict(sidecar))
        self._ordinal += 1
        self._present.update(names)
        return array

    def _check_shard(self, names: Sequence[str], embeddings: NDArray[np.float16]) -> None:
        expected = (len(names), *self.key.embedding_shape)
        if embeddings.shape != expected or embeddings.dtype != np.float16:
            raise CacheError(
                f"the embeddings of {len(names)} images must be {expected} float16, got "
                f"{embeddings.shape} {embeddings.dtype}"
            )
        if not 1 <= len(set(names)) == len(names) <= self.shard_size:
            raise CacheError(
                f"a shard takes 1 to {self.shard_size} images, each once, got {len(names)} names, "
                f"{len(set(names))} of them different"
            )
        finite = np.isfinite(embeddings).all(axis=(1, 2, 3))
        if not finite.all():
            raise CacheError(
                f"the embedding of {names[int(finite.argmin())]!r} is not finite in float16; "
                "check the teacher's weights and its precision"
            )

    def _clean(self, useless: Sequence[Path], world_size: int) -> None:
        for path in useless:
            match = re.match(r"\.?shard_r(\d+)_", path.name)
            if match and int(match[1]) % world_size == self.rank:
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)  # of a damaged array

    def _write_json(self, path: Path, content: dict[str, object]) -> None:
        self._write(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1)))

    def _write(self, path: Path, fill: Callable[[Path], object]) -> None:
        try:
            write_atomically(path, fill)
        except OSError as error:
            raise CacheError(
                f"cannot write {path} ({error}); make room or pass another folder, then run "
                "again: finished shards are kept"
            ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_index(folder: Path, key: CacheKey) -> None:
    path = folder / _INDEX
    try:
        stored = CacheKey(**json.loads(path.read_text())["key"])
    except FileNotFoundError as error:
        raise CacheError(f"there is no teacher cache in {folder}; fill it first") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CacheError(f"cannot read {path} ({error}); delete {folder}") from error
    key.check_equals(stored, folder)


def _shards(
    folder: Path, key: CacheKey, check_content: bool
) -> Iterator[tuple[Path, _Sidecar | None]]:
    """Yield the path of every array with its sidecar, or with None when one is damaged."""
    for path in sorted(folder.glob("shard_r*.json")):
        array = path.with_suffix(".npy")
        problem: str | None
        try:
            sidecar = _Sidecar(**json.loads(path.read_text()))
            problem = _problem(array, sidecar, check_content)
        except FileNotFoundError:
            continue  # the rank that owns the shard has just removed it
        except (ValueError, TypeError) as error:
            problem = f"has an unreadable sidecar ({error})"
        if problem:
            _LOGGER.warning("cache shard %s %s; its images count as missing", array, problem)
            yield array, None
            continue
        if sidecar.key != key.fingerprint:
            raise CacheError(
                f"{array} was made with other settings than the rest of its folder; "
                "delete it and its .json file"
            )
        yield array, sidecar


def _problem(array: Path, sidecar: _Sidecar, check_content: bool) -> str | None:
    if not array.exists():
        return "is gone"
    if (size_bytes := array.stat().st_size) != sidecar.size_bytes:
        return f"has {size_bytes} of {sidecar.size_bytes} bytes"
    if check_content and _sha256(array) != sidecar.sha256:
        return "has changed since it was written"
    return None
