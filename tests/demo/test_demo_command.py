import http.client
import os
import signal
import subprocess
import sys
import webbrowser
from functools import partial
from pathlib import Path

import pytest
import torch
from demo_folders import fake_runtime

from edgeseg.cli import main
from edgeseg.demo.server import DemoServer
from edgeseg.demo.web_runtime import install_runtime
from edgeseg.manifest import sha256_of
from edgeseg.modeling.checkpoints import save_weights
from edgeseg.modeling.registry import build_model

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from exported_folders import write_folder  # noqa: E402  # shared with the tests of the runtime


@pytest.fixture
def export(tmp_path):
    return write_folder(tmp_path / "export", normalises=True)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """A student of the smallest size with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(build_model("edgeseg_tiny"), path)
    return path


@pytest.fixture
def archive(monkeypatch, tmp_path):
    return fake_runtime(monkeypatch, tmp_path)


def test_without_the_runtime_the_command_says_how_to_get_it(export, archive, capsys):
    assert main(["demo", str(export)]) == 3

    assert "run: edgeseg demo --install" in capsys.readouterr().err


def test_one_folder_to_upload_is_written(export, archive, tmp_path, capsys):
    out = tmp_path / "site"

    words = ["demo", str(export), "--install-from", str(archive), "--site", str(out)]
    assert main(words) == 0

    assert (out / "index.html").is_file()
    assert (out / "model" / "encoder.onnx").is_file()
    assert (out / "runtime" / "ort.wasm.min.mjs").is_file()
    assert "upload this folder" in capsys.readouterr().out


def test_an_unknown_model_is_refused(archive, capsys):
    install_runtime(lambda here, total: None, archive)

    assert main(["demo", "edgeseg_xxl"]) == 1

    assert "no model 'edgeseg_xxl'" in capsys.readouterr().err


def test_weights_are_exported_once_for_the_browser(
    archive, monkeypatch, tmp_path, tiny_weights, capsys
):
    install_runtime(lambda here, total: None, archive)
    exported = []

    def export_model(net, out, target, facts, progress):
        exported.append((net.name, target.name, facts.weights_sha256))
        progress("writing the encoder")
        return write_folder(out, normalises=True)

    monkeypatch.setattr("edgeseg.exporter.release.export_model", export_model)
    sites = [tmp_path / "first", tmp_path / "second"]
    for site in sites:
        assert main(["demo", str(tiny_weights), "--site", str(site)]) == 0

    assert exported == [("edgeseg_tiny", "web", sha256_of(tiny_weights))]
    assert (sites[1] / "model" / "encoder.onnx").is_file()
    assert "writing the encoder" in capsys.readouterr().err


def test_weights_without_pytorch_say_both_ways_out(archive, monkeypatch, tiny_weights, capsys):
    install_runtime(lambda here, total: None, archive)
    monkeypatch.setitem(sys.modules, "edgeseg.exporter.release", None)  # as if it were missing

    assert main(["demo", str(tiny_weights)]) == 3

    message = capsys.readouterr().err
    assert "pip install 'edgeseg[train,export]', or give a folder that" in message


def test_a_port_that_is_no_port_is_wrong_usage(export, capsys):
    assert main(["demo", str(export), "--port", "70000"]) == 2


def serve(folder, port=0):
    """Start the command on a written site, for which nothing has to be installed."""
    words = [sys.executable, "-m", "edgeseg", "demo", str(folder), "--port", str(port)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Tests that a script runs in the background ignore Ctrl-C, and so would their children.
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL) if os.name == "posix" else None
    return subprocess.Popen(words, text=True, env=environment, preexec_fn=hear, **pipes)


@pytest.fixture
def site(export, archive, tmp_path):
    folder = tmp_path / "site"
    main(["demo", str(export), "--install-from", str(archive), "--site", str(folder)])
    return folder


def test_the_page_is_served_until_ctrl_c_and_its_port_is_taken_meanwhile(site):
    with serve(site) as process:
        try:
            url = process.stdout.readline().split()[0]
            connection = http.client.HTTPConnection(url.removeprefix("http://").rstrip("/"))
            connection.request("GET", "/model/export.json")
            status = connection.getresponse().status
            connection.close()
            taken = main(["demo", str(site), "--port", url.rstrip("/").rpartition(":")[2]])
            process.send_signal(signal.SIGINT)
            _, last_words = process.communicate(timeout=60)
        finally:
            process.kill()

    assert status == 200
    assert taken == 1
    assert (process.returncode, last_words) == (0, "stopped\n")


def test_a_model_is_shown_without_torch(site):
    probe = (
        "import sys; from edgeseg.cli import main; from edgeseg.demo import server, web_runtime;"
        "server.DemoServer.serve_forever = lambda self: None;"
        f"status = main(['demo', {str(site)!r}]);"
        "sys.exit(status or bool({'torch', 'onnxruntime'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_others_are_only_let_in_when_asked_for_and_with_a_warning(site, monkeypatch, capsys):
    monkeypatch.setattr(DemoServer, "serve_forever", lambda self: None)

    assert main(["demo", str(site)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["demo", str(site), "--host", "0.0.0.0"]) == 0
    assert "others can open this page, too" in capsys.readouterr().err


def test_a_browser_is_opened_on_a_terminal_only(site, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(DemoServer, "serve_forever", lambda self: None)

    main(["demo", str(site)])
    assert opened == []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(["demo", str(site), "--no-open"])
    assert opened == []
    main(["demo", str(site)])
    assert len(opened) == 1
