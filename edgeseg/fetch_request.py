"""What a user asks `edgeseg models fetch` for, and what follows from it before anything is read."""

import os
import re
import urllib.parse
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.links import is_link, without_secrets
from edgeseg.manifest import MANIFEST_NAME, ModelManifest, read_manifest
from edgeseg.published_checkpoints import PUBLISHED, PublishedCheckpoint

OFFICIAL = "official"
"""The source that stands for the address at which a checkpoint's authors publish it."""

ComparedWith = Literal["published", "given", "nothing"]


@dataclass(frozen=True)
class FetchRequest:
    """What a user asks for.

    Attributes:
        name: A published checkpoint or a network, which the file is then checked to be; or any
            other name, for weights of any network known here.
        source: A file, a model folder, a link, or "official".
        yours: Folder of the user's models.
        new_name: What the model is to be called; default: `name`.
        sha256: Of the file, if the user knows it.
        licence: Of the weights, if it is not known here.
        in_place: Point to the user's file instead of storing a copy.
        max_bytes: Largest file that is downloaded.
        timeout_s: Seconds of silence after which a server is given up.
    """

    name: str
    source: str
    yours: Path
    new_name: str | None = None
    sha256: str | None = None
    licence: str | None = None
    in_place: bool = False
    max_bytes: int = 4_000_000_000
    timeout_s: float = 30.0


@dataclass(frozen=True)
class FetchPlan:
    """What is going to be done.

    Attributes:
        request: As it was given.
        name: What the model will be called.
        network: Registry name that the file must be of; None if any will do.
        published: The checkpoint it must be, if that is a published one.
        link: Where it is downloaded from, or None.
        file: The user's own file, or None.
        described: Manifest in the user's model folder, if that is the source.
        expected_sha256: What the file's hash must be, if there is something to compare it with.
        compared_with: Where `expected_sha256` comes from.
    """

    request: FetchRequest
    name: str
    network: str | None
    published: PublishedCheckpoint | None
    link: str | None
    file: Path | None
    described: ModelManifest | None
    expected_sha256: str | None
    compared_with: ComparedWith

    @property
    def source(self) -> str:
        """Where the file comes from, without what may be a password in a link."""
        if self.link is not None:
            return without_secrets(self.link)
        assert self.file is not None  # a plan has one of the two
        return str(self.file)

    @property
    def licence(self) -> str | None:
        """Licence of the weights, if it is known."""
        known = self.published or self.described
        return known.licence if known is not None else self.request.licence

    @property
    def trained_on(self) -> str | None:
        """What the weights have seen, if it is known."""
        known = self.published or self.described
        return known.trained_on if known is not None else None

    @property
    def description(self) -> str | None:
        """One sentence, if somebody wrote it."""
        known = self.published or self.described
        return known.description if known is not None else None


def plan_fetch(request: FetchRequest, networks: Collection[str]) -> FetchPlan:
    """Check a request and work out where the file is and what it must be.

    Args:
        request: What the user asks for.
        networks: Registry names of all networks.

    Raises:
        ConfigError: The request contradicts itself.
        WeightsError: The user's file is not there.
    """
    published = PUBLISHED.get(request.name)
    network = published.model if published is not None else None
    if published is None and request.name in networks:
        network = request.name
    link, file, described = _locate(request, published)
    _check_claims(request, network, published or described)
    expected, compared_with = _expected_hash(request, published)
    return FetchPlan(
        request=request,
        name=request.new_name or request.name,
        network=network,
        published=published,
        link=link,
        file=file,
        described=described,
        expected_sha256=expected,
        compared_with=compared_with,
    )


def _check_claims(
    request: FetchRequest,
    network: str | None,
    known: PublishedCheckpoint | ModelManifest | None,
) -> None:
    if request.new_name is not None and network is None:
        raise ConfigError(
            f"--name renames a published checkpoint ({', '.join(PUBLISHED)}) or a network, and "
            f"{request.name} is neither; leave --name out and write: edgeseg models fetch "
            f"{request.new_name}"
        )
    if request.licence is not None and known is not None:
        raise ConfigError(
            f"the licence of {request.name} is known: {known.licence}; leave --licence out"
        )


def _expected_hash(
    request: FetchRequest, published: PublishedCheckpoint | None
) -> tuple[str | None, ComparedWith]:
    known = published.sha256 if published is not None else None
    if request.sha256 is None:
        return known, "nothing" if known is None else "published"
    given = request.sha256.strip().lower()
    if not re.fullmatch("[0-9a-f]{64}", given):
        raise ConfigError(
            f"--sha256 must be 64 hexadecimal digits, got {request.sha256!r}; copy all of them"
        )
    if known is not None and given != known:
        raise ConfigError(
            f"--sha256 {given[:12]}… is not the published hash of {request.name}, {known}; leave "
            "it out, or give other weights another NAME"
        )
    return given, "given"


def _locate(
    request: FetchRequest, published: PublishedCheckpoint | None
) -> tuple[str | None, Path | None, ModelManifest | None]:
    source = request.source
    if source == OFFICIAL:
        if published is None:
            raise ConfigError(
                f"no official address of {request.name} is known, only of {', '.join(PUBLISHED)}; "
                "give a link or a path with --from"
            )
        source = published.link
    if is_link(source) and not source.lower().startswith("file:"):
        if request.in_place:
            raise ConfigError("--link points to a file of yours, not to a download; leave it out")
        return source, None, None
    path = _local_path(source)
    if (path / MANIFEST_NAME).is_file():
        described = read_manifest(path)
        return None, (path / described.weights).absolute(), described
    if not path.is_file():
        raise WeightsError(
            f"there is no file {path}, and no model folder with a {MANIFEST_NAME} either; correct "
            "the path, or give a link that begins with https://"
        )
    return None, path.absolute(), None


def _local_path(source: str) -> Path:
    if not is_link(source):
        return Path(source)
    parts = urllib.parse.urlsplit(source)
    if parts.netloc not in ("", "localhost"):
        raise ConfigError(
            f"{source} names a file on another machine, {parts.netloc}; copy it here and give its "
            "path"
        )
    return Path(os.fsdecode(urllib.request.url2pathname(parts.path)))
