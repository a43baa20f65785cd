import json
import subprocess
import sys

import pytest

from edgeseg.cli import main
from edgeseg.inspection.health import checkup
from edgeseg.inspection.health.findings import Finding

OK = Finding("numpy", "ok", "2.4.6 (>=1.26,<3)")
WARNING = Finding("extra export", "warning", "not installed", "pip install 'edgeseg[export]'")
PROBLEM = Finding("torch works", "problem", "cannot be loaded", "pip install torch")


@pytest.fixture
def finding(monkeypatch):
    """Let the check-up find this, and note how it was asked."""
    asked = []

    def put(*findings):
        def examine(thorough, wait_s):
            asked.append((thorough, wait_s))
            return list(findings)

        monkeypatch.setattr(checkup, "examine", examine)
        return asked

    return put


def test_each_finding_is_a_line_and_its_advice_another(finding, capsys):
    finding(OK, WARNING)

    assert main(["doctor"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "ok       numpy         2.4.6 (>=1.26,<3)",
        "warning  extra export  not installed",
        "                       -> pip install 'edgeseg[export]'",
        "1 ok, 1 to be aware of, 0 to repair",
    ]


def test_a_problem_gives_status_one(finding, capsys):
    finding(OK, PROBLEM)

    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("1 ok, 0 to be aware of, 1 to repair\n")


def test_json_has_every_finding_and_their_numbers(finding, capsys):
    finding(OK, WARNING, PROBLEM, OK)

    assert main(["doctor", "--json"]) == 1

    document = json.loads(capsys.readouterr().out)
    assert document["findings"][1] == {
        "check": "extra export",
        "status": "warning",
        "found": "not installed",
        "advice": "pip install 'edgeseg[export]'",
    }
    assert (document["num_ok"], document["num_warning"], document["num_problem"]) == (2, 1, 1)


def test_how_long_and_how_thoroughly_is_passed_on(finding):
    asked = finding(OK)

    main(["doctor"])
    main(["doctor", "--thorough", "--wait-s", "7.5"])

    assert asked == [(False, None), (True, 7.5)]


def test_the_real_check_up_imports_no_torch_and_ends_soon():
    probe = (
        "import sys; from edgeseg.cli import main; main(['doctor', '--json', '--wait-s', '0.1']); "
        "sys.exit(bool({'torch', 'onnxruntime', 'openvino', 'cv2'} & set(sys.modules)))"
    )

    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    checks = [each["check"] for each in json.loads(run.stdout)["findings"]]
    assert checks[:3] == ["edgeseg", "Python", "numpy"]
    assert "cannot be checked" not in run.stdout
