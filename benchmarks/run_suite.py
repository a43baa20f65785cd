"""Run a suite and keep every sample, a table and a page.

    python benchmarks/run_suite.py benchmarks/suites/cpu.toml --photo photo.jpg

Writes NAME.json, NAME.csv and NAME.html; the page also shows accuracy where it was measured.
"""

import argparse
import json
from functools import partial
from pathlib import Path

from edgeseg.bench.drivers import all_drivers
from edgeseg.bench.html_report import write_html
from edgeseg.bench.results import BenchResult
from edgeseg.bench.roofline import read_roofline
from edgeseg.bench.run import run_suite
from edgeseg.bench.suite import SuiteConfig
from edgeseg.bench.tables import latency_table, missing_lines, start_table
from edgeseg.files import write_atomically

RESULTS = Path(__file__).parent / "results"


def accuracy_of(result: BenchResult, folder: Path) -> dict[str, float]:
    """Return mIoU of box prompts in points, by contender, where its model was evaluated."""
    found = {}
    for card in result.contenders:
        path = folder / f"accuracy_{card.model}.json"
        if card.weights_sha256 and path.is_file():
            rows = json.loads(path.read_text("utf-8"))["rows"]
            found[card.label] = 100 * next(r["mean"]["iou"] for r in rows if r["name"] == "box")
    return found


def main() -> None:
    """Run one suite."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", type=Path)
    parser.add_argument("--photo", type=Path, required=True, help="image that parts start from")
    parser.add_argument("--work", type=Path, default=Path("out/bench"), help="exported files")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/NAME.json")
    given = parser.parse_args()
    suite = SuiteConfig.read(given.suite)
    out = given.out or RESULTS / f"bench_{suite.name}.json"
    say = partial(print, flush=True)
    result = run_suite(suite, all_drivers(), given.photo, given.work, say, lambda r: r.write(out))
    result.write(out)
    csv = result.to_csv()
    write_atomically(out.with_suffix(".csv"), lambda path: path.write_text(csv, "utf-8"))
    accuracy = accuracy_of(result, RESULTS)
    found = [read_roofline(path) for path in sorted(RESULTS.glob("roofline_*.json"))]
    models = {card.model for card in result.contenders}
    rooflines = {title: each for title, each in found if title.split()[0] in models}
    write_html(result, out.with_suffix(".html"), suite.reference, accuracy, rooflines)
    print(latency_table(result, suite.reference))
    print(start_table(result) + missing_lines(result))


if __name__ == "__main__":
    main()
