import io
import json
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edgeseg.cli import main
from edgeseg.cli.download_progress import download_progress, plain_progress
from edgeseg.downloads import note_of
from edgeseg.manifest import RELEASED, sha256_of


@pytest.fixture
def yours(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESEG_MODELS", str(tmp_path / "yours"))
    return tmp_path / "yours"


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client may stop listening."""


@pytest.fixture
def link(tiny_weights, monkeypatch):
    """The address of the weights of a tiny student."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    handler = partial(Handler, directory=str(tiny_weights.parent))
    with QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{tiny_weights.name}"
        server.shutdown()
        thread.join()


def test_the_list_has_what_is_here_and_what_can_be_brought_in(yours, capsys):
    assert main(["models", "list"]) == 0

    released, _, rest = capsys.readouterr().out.partition(f"yours, in {yours}:\n  none\n")
    assert released.startswith(f"released, in {RELEASED}:\n  edgeseg_m        edgeseg_m, ")
    assert "research and evaluation only" in released
    assert rest.startswith("not here; edgeseg models fetch NAME --from FILE_OR_LINK brings them in")
    assert "  sam_vit_b        vit_b, 1024 px, 93.74 M parameters, 375.0 MB\n" in rest
    assert "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth" in rest
    assert "S-Lab License 1.0 (non-commercial)" in rest


def test_the_list_as_json(yours, tiny_weights, capsys):
    assert main(["models", "fetch", "edgeseg_tiny", "--from", str(tiny_weights)]) == 0
    downloads = yours / ".fetching-sam_vit_b" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "original.pth").write_bytes(b"12345")
    note_of(downloads / "original.pth").write_text("{}")
    capsys.readouterr()

    assert main(["models", "list", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["released_folder"], found["your_folder"]) == (str(RELEASED), str(yours))
    assert [row["name"] for row in found["models"] if row["place"] == "yours"] == ["edgeseg_tiny"]
    assert [row["name"] for row in found["can_be_fetched"]] == [
        "sam_vit_b",
        "sam_vit_l",
        "sam_vit_h",
        "edgesam",
        "edgesam_3x",
    ]
    assert found["unfinished_downloads"] == {"sam_vit_b": 5}


def test_a_released_model_is_shown_with_commands_that_take_it(yours, capsys):
    assert main(["models", "show", "edgeseg_m", "--card"]) == 0

    out = capsys.readouterr().out
    weights = RELEASED / "edgeseg_m" / "student.safetensors"
    assert out.startswith(f"edgeseg_m\n  folder       {RELEASED / 'edgeseg_m'}\n")
    assert f"  sha256       {sha256_of(weights)}, right\n" in out
    assert (RELEASED / "edgeseg_m" / "MODEL_CARD.md").read_text("utf-8").strip() in out
    assert "\nnext: edgeseg segment PHOTO --model edgeseg_m --point X,Y\n" in out
    assert "--set teacher.weights=edgeseg_m\n" in out


def test_a_model_that_is_not_here_is_shown_with_the_way_to_it(yours, capsys):
    assert main(["models", "show", "sam_vit_h"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("sam_vit_h, not here\n")
    assert "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e" in out
    assert "next: edgeseg models fetch sam_vit_h --from FILE_OR_LINK\n" in out

    assert main(["models", "show", "edgesam", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["is_here"], found["sha256"]) == (False, None)


def test_an_unknown_model_is_one_line(yours, capsys):
    assert main(["models", "show", "nonesuch"]) == 1

    assert capsys.readouterr().err.startswith("edgeseg: no model 'nonesuch': ")


def test_a_fetched_model_is_found_by_every_command(yours, tiny_weights, link, photo, capsys):
    digest = sha256_of(tiny_weights)

    assert main(["models", "fetch", "mine", "--from", link, "--sha256", digest]) == 0

    out, err = capsys.readouterr()
    assert out.startswith(f"mine\n  folder       {yours / 'mine'}\n  network      edgeseg_tiny, ")
    assert f"  its sha256   {digest}, equal to the given one\n" in out
    assert "next: edgeseg segment PHOTO --model mine --point X,Y\n" in out
    assert err.startswith(f"downloading {link} (licence: not stated")
    assert " MB are here\n" in err
    words = ["segment", str(photo), "--backend", "torch", "--model", "mine", "--box", "20,10,40,30"]
    assert main([*words, "--rle"]) == 0


def test_what_was_compared_with_nothing_is_told(yours, tiny_weights, capsys):
    assert main(["models", "fetch", "mine", "--from", str(tiny_weights)]) == 0

    out, err = capsys.readouterr()
    assert "edgeseg: warning: no hash of this file is known, so it was compared with nothing" in err
    assert f"  its sha256   {sha256_of(tiny_weights)}, compared with nothing\n" in out


def test_the_same_file_again_is_no_error(yours, tiny_weights, capsys):
    words = ["models", "fetch", "mine", "--from", str(tiny_weights)]
    words += ["--sha256", sha256_of(tiny_weights)]
    assert main(words) == 0
    capsys.readouterr()

    assert main(words) == 0

    assert capsys.readouterr().err == "mine was brought in before, from the same file\n"


def test_a_wrong_hash_is_one_line_with_both(yours, link, tiny_weights, capsys):
    words = ["models", "fetch", "mine", "--from", link, "--sha256", "ab" * 32]

    assert main(words) == 1

    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"edgeseg: {link} is not the file that was expected: its sha256 is ")
    assert sha256_of(tiny_weights) in last
    assert "ab" * 32 in last
    assert list(yours.iterdir()) == []


def test_a_file_larger_than_allowed_is_refused(yours, link, capsys):
    words = ["models", "fetch", "mine", "--from", link, "--max-size-gb", "0.000001"]

    assert main(words) == 1

    assert "is larger than allowed: it has " in capsys.readouterr().err
    assert list(yours.iterdir()) == []


def test_nothing_is_fetched_without_being_told_from_where(yours, capsys):
    assert main(["models", "fetch", "sam_vit_b"]) == 2

    assert "--from" in capsys.readouterr().err
    assert not yours.exists()


def test_another_folder_is_named_by_its_path_in_the_next_commands(
    yours, tiny_weights, tmp_path, capsys
):
    other = tmp_path / "other place"
    words = ["models", "fetch", "mine", "--from", str(tiny_weights), "--library", str(other)]

    assert main(words) == 0

    assert f"next: edgeseg segment PHOTO --model '{other / 'mine'}' " in capsys.readouterr().out
    assert main(["models", "show", "mine", "--library", str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hash_is_right"] is True
    assert main(["models", "show", "mine"]) == 1


def test_damaged_weights_are_shown_and_fail(yours, tiny_weights, capsys):
    main(["models", "fetch", "mine", "--from", str(tiny_weights)])
    (yours / "mine" / "weights.safetensors").write_bytes(b"damaged")
    capsys.readouterr()

    assert main(["models", "show", "mine"]) == 1

    out = capsys.readouterr().out
    assert ", WRONG\n" in out
    assert "is damaged or was replaced" in out
    assert "next:" not in out


def test_an_interrupted_download_says_that_it_can_be_continued(yours, link, capsys, monkeypatch):
    from edgeseg.modeling import fetched_weights

    def stop(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetched_weights, "sha256_of", stop)

    assert main(["models", "fetch", "mine", "--from", link]) == 130

    assert "what came is kept; give the same command to continue\n" in capsys.readouterr().err
    assert main(["models", "list"]) == 0
    assert "unfinished: mine, " in capsys.readouterr().out


def test_listing_and_showing_need_no_torch(yours):
    probe = (
        "import sys; from edgeseg.cli import main; main(['models', 'list']); "
        "main(['models', 'show', 'edgeseg_m', '--json']); main(['models', 'fetch', '--help']); "
        "sys.exit(bool({'torch', 'cv2', 'onnxruntime'} & set(sys.modules)))"
    )

    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False)

    assert run.returncode == 0


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys):
    now = 0.0
    show = plain_progress(lambda: now)

    show(1_000_000, 4_000_000)
    now = 9.0
    show(2_000_000, 4_000_000)
    now = 10.0
    show(3_000_000, 4_000_000)
    now = 11.0
    show(4_000_000, 4_000_000)
    now = 21.0
    show(5_000_000, None)

    assert capsys.readouterr().err.splitlines() == [
        "3.0 of 4.0 MB are here",
        "4.0 of 4.0 MB are here",
        "5.0 MB are here",
    ]


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())

    with download_progress() as show:
        assert sys.stderr.getvalue() == ""  # nothing is downloaded yet
        show(1_000_000, 4_000_000)
        show(4_000_000, 4_000_000)
        sys.stderr.write("next line")

    assert "4.0/4.0 MB" in sys.stderr.getvalue()
    assert sys.stderr.getvalue().endswith("next line")
