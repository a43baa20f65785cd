import json
import sys
from pathlib import Path

import pytest
from demo_folders import fake_runtime

from edgeseg.demo.headers import HEADERS
from edgeseg.demo.site import build_site, is_site, read_site, write_site
from edgeseg.demo.web_runtime import install_runtime
from edgeseg.errors import ConfigError, WeightsError
from edgeseg.signature import PromptSlots

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from exported_folders import write_folder  # noqa: E402  # shared with the tests of the runtime


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    return install_runtime(lambda here, total: None, fake_runtime(monkeypatch, tmp_path))


@pytest.fixture
def export(tmp_path):
    return write_folder(tmp_path / "export", normalises=True)


def test_a_site_has_the_page_the_runtime_and_the_model(export, runtime):
    site = build_site(export, runtime)

    assert {"index.html", "app.js", "samples/coffee.jpg", "licences.txt"} <= site.keys()
    assert {name for name in site if name.startswith("runtime/")} == {
        f"runtime/{path.name}" for path in runtime.iterdir()
    }
    assert {name for name in site if name.startswith("model/")} == {
        "model/export.json",
        "model/encoder.onnx",
        "model/decoder.onnx",
    }
    assert "package.json" not in site


def test_only_what_the_manifest_names_is_shown_of_an_export(export, runtime):
    (export / "private.txt").write_text("not to be seen")

    assert "model/private.txt" not in build_site(export, runtime)


def test_a_graph_that_is_a_link_to_elsewhere_is_refused(export, runtime, tmp_path):
    elsewhere = tmp_path / "elsewhere.onnx"
    (export / "encoder.onnx").rename(elsewhere)
    (export / "encoder.onnx").symlink_to(elsewhere)

    with pytest.raises(WeightsError, match=r"encoder\.onnx leads out of its folder"):
        build_site(export, runtime)


def test_a_damaged_export_is_refused(export, runtime):
    (export / "encoder.onnx").write_bytes(b"")

    with pytest.raises(WeightsError, match="is damaged or was replaced"):
        build_site(export, runtime)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"slots": PromptSlots(16, 6)}, "takes fixed numbers of prompts and points"),
        ({"dtype": "float16"}, "its encoder takes {'image': 'float16'}"),
        ({"dtype": "float16", "normalises": True}, "its decoder takes points as float16"),
    ],
)
def test_an_export_for_something_else_says_how_to_make_one(tmp_path, runtime, options, reason):
    export = write_folder(tmp_path / "other", **options)

    with pytest.raises(WeightsError, match=reason) as caught:
        build_site(export, runtime)

    assert "run: edgeseg export tiny_pair OUT --target web" in str(caught.value)


def test_a_core_ml_export_is_refused(export, runtime):
    path = export / "export.json"
    manifest = json.loads(path.read_text("utf-8")) | {"format": "coreml"}
    path.write_text(json.dumps(manifest), "utf-8")

    with pytest.raises(WeightsError, match="it has the format coreml"):
        build_site(export, runtime)


def test_a_written_site_is_the_same_files_and_headers_for_a_host(export, runtime, tmp_path):
    site = build_site(export, runtime)
    out = tmp_path / "deep" / "site"

    write_site(site, out)

    for address, path in site.items():
        assert (out / address).read_bytes() == path.read_bytes()
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == site.keys() | {"_headers"}
    lines = (out / "_headers").read_text("utf-8").splitlines()
    assert lines == ["/*", *(f"  {name}: {value}" for name, value in HEADERS.items())]
    assert is_site(out)
    assert read_site(out).keys() == written


def test_a_folder_with_something_in_it_is_not_overwritten(export, runtime, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")

    with pytest.raises(ConfigError, match="is not empty; choose another folder"):
        write_site(build_site(export, runtime), tmp_path)

    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_a_site_that_cannot_be_finished_leaves_nothing(export, runtime, tmp_path):
    site = {**build_site(export, runtime), "last.txt": tmp_path / "not there"}

    with pytest.raises(FileNotFoundError):
        write_site(site, tmp_path / "out" / "site")

    assert list((tmp_path / "out").iterdir()) == []


def test_hidden_files_and_links_that_leave_a_site_are_not_shown(export, runtime, tmp_path):
    out = tmp_path / "site"
    write_site(build_site(export, runtime), out)
    (out / ".secret").write_text("hidden")
    (out / "host.txt").symlink_to("/etc/hostname")
    (out / "etc").symlink_to("/etc")
    (out / "inside.js").symlink_to(out / "app.js")

    shown = read_site(out)

    assert ".secret" not in shown
    assert not [address for address in shown if address.startswith(("host", "etc"))]
    assert "inside.js" in shown


def test_a_folder_that_is_no_site_is_refused(tmp_path):
    assert not is_site(tmp_path)
    with pytest.raises(ConfigError, match="is no folder that `edgeseg demo MODEL --site FOLDER`"):
        read_site(tmp_path)
