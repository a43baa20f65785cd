import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.bench.drivers import all_drivers
from edgeseg.bench.results import BenchResult
from edgeseg.bench.suite import SuiteConfig

ROOT = Path(__file__).parents[2]
SUITES = sorted((ROOT / "benchmarks" / "suites").glob("*.toml"))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_is_read_and_names_drivers_that_exist(path):
    suite = SuiteConfig.read(path)

    assert suite.name == path.stem
    assert {contender.driver for contender in suite.contender} <= all_drivers().keys()


def test_a_suite_leaves_samples_a_table_and_a_page(tmp_path, proposing_tiny, one_rectangle):
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'name = "tiny"\nrounds = 2\nthreads = 1\nreference = "network"\n'
        'parts = ["encoder", "proposals"]\n'
        f'[[contender]]\nlabel = "network"\nmodel = "{proposing_tiny}"\ndriver = "pytorch"\n'
        '[[contender]]\nlabel = "phone"\nmodel = "edgeseg_tiny"\ndriver = "iphone"\n'
    )
    photo = one_rectangle / "shapes" / "val" / "a.png"
    words = [sys.executable, ROOT / "benchmarks" / "run_suite.py", suite, "--photo", photo]
    words += ["--work", tmp_path / "work", "--out", tmp_path / "tiny.json"]

    run = subprocess.run(words, check=False, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    result = BenchResult.read(tmp_path / "tiny.json")
    assert result.parts() == ["encoder", "proposals"]
    assert result.card("network").num_parameters.keys() == {"encoder", "decoder", "proposals"}
    assert [each.label for each in result.missing] == ["phone"]
    assert result.cold_starts[0].label == "network"
    assert (tmp_path / "tiny.csv").is_file()
    assert "<svg" in (tmp_path / "tiny.html").read_text("utf-8")
