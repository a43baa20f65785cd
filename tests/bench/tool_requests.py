"""Requests to tool drivers and programs that play the tools."""

import sys

from edgeseg.bench.driver import Request
from edgeseg.bench.stopwatch import Rounds
from edgeseg.bench.suite import ContenderConfig

PARTS = ("encoder", "decoder")


def request(folder, driver, parts=PARTS, counted=3, warmup=2, threads=2, **options):
    contender = ContenderConfig(label="ours", model="tiny_pair", driver=driver, options=options)
    return Request(contender, folder, parts, Rounds(counted, warmup), threads, folder / "no.png")


def write_program(path, source):
    """Write Python source as an executable that starts quickly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable} -IS\n{source}")
    path.chmod(0o755)
    return path


def reasons(report):
    return {missing.part: missing.reason for missing in report.missing}
