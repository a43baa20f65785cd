import re
import sys

import pytest

from edgeseg.bench.tool import ToolOutput, run_tool
from edgeseg.errors import BenchError


def python(source):
    """A command that runs a line of Python."""
    return [sys.executable, "-IS", "-c", source]


def test_both_outputs_are_returned_apart():
    output = run_tool(python("import sys; print('five'); print('six', file=sys.stderr)"), 20)

    assert output == ToolOutput("five\n", "six\n")


def test_a_tool_cannot_wait_for_an_answer():
    assert run_tool(python("import sys; print(repr(sys.stdin.read()))"), 20).stdout == "''\n"


def test_bytes_that_are_no_text_do_not_hide_the_rest():
    source = r"import sys; sys.stdout.buffer.write(b'GPU \xff 1 ms')"

    assert run_tool(python(source), 20).stdout == "GPU \N{REPLACEMENT CHARACTER} 1 ms"


def test_a_failure_names_the_status_the_last_lines_and_the_command():
    source = (
        "import sys; [print(n) for n in range(9)]; print('no GPU', file=sys.stderr); sys.exit(3)"
    )

    with pytest.raises(BenchError) as caught:
        run_tool(python(source), 20)

    message = str(caught.value)
    assert "failed with exit status 3; it printed last: 4 | 5 | 6 | 7 | 8 | no GPU;" in message
    assert message.endswith(f"to see all of it run: {sys.executable} -IS -c '{_quoted(source)}'")
    assert "\n" not in message


def _quoted(source):
    return source.replace("'", "'\"'\"'")  # as a shell wants a quote inside quotes


def test_a_silent_failure_says_so():
    with pytest.raises(BenchError, match="exit status 1; it printed last: nothing; to see all"):
        run_tool(python("import sys; sys.exit(1)"), 20)


def test_a_tool_that_never_ends_is_stopped():
    source = "import time; print('building', flush=True); time.sleep(60)"
    message = "did not end within 0.5 s and was stopped; it printed last: building; raise the"

    with pytest.raises(BenchError, match=message):
        run_tool(python(source), 0.5)


def test_a_tool_that_is_not_there_is_named(tmp_path):
    message = "cannot start trtexec: No such file or directory; install it, or correct the path"

    with pytest.raises(BenchError, match=re.escape(message)):
        run_tool([str(tmp_path / "trtexec")], 20)


def test_a_file_that_is_no_program_is_named(tmp_path):
    (tmp_path / "trtexec").write_text("")

    with pytest.raises(BenchError, match="cannot start trtexec: Permission denied"):
        run_tool([str(tmp_path / "trtexec")], 20)
