"""Exports and runtimes so small that nothing has to be downloaded or computed."""

import base64
import hashlib
import io
import tarfile

from edgeseg.demo import web_runtime

CONTENTS = {name: f"// {name}\n".encode() for name in web_runtime.FILES}


def fake_runtime(monkeypatch, folder):
    """Make a runtime of a few bytes the right one, in a user's folder; return its archive."""
    archive = folder / "runtime.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        for name, content in {**CONTENTS, "ort.all.mjs": b"not needed"}.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    digest = hashlib.sha512(archive.read_bytes()).digest()
    integrity = f"sha512-{base64.b64encode(digest).decode()}"
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    monkeypatch.setattr(web_runtime, "INTEGRITY", integrity)
    monkeypatch.setattr(web_runtime, "FILES", hashes)
    monkeypatch.setenv("EDGESEG_MODELS", str(folder / "yours" / "models"))
    return archive
