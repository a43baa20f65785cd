"""Render the tables of the README from the committed results.

Prints Markdown; with --write it replaces what stands between the markers of the README.
"""

import argparse
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
MARKERS = "<!-- figures: python benchmarks/render_tables.py --write -->\n", "<!-- end -->\n"
PROMPT_SETS = ("box", "box+1", "box+2", "center", "center+1", "center+2")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def means(name: str, metric: str) -> dict[str, str]:
    """Return the means of all rows of a result in points, by row."""
    report = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return {row["name"]: points(row["mean"][metric]) for row in report["rows"]}


def points(value: float | None) -> str:
    """Return a share as points of a hundred."""
    return "-" if value is None else f"{100 * value:.1f}"


def accuracy() -> str:
    """Return mIoU by prompt set of the released models, with the floors."""
    rows = []
    for path in sorted(RESULTS.glob("accuracy_*.json")):
        name = path.stem.removeprefix("accuracy_")
        for label, metric in (("mIoU", "iou"), ("boundary", "boundary_iou")):
            found = means(path.stem, metric)
            row = [f"`{name}`", label, *(found[prompts] for prompts in PROMPT_SETS)]
            rows.append([*row, found["center:best"], found["filled box"], found["GrabCut"]])
    names = [name.replace("center", "centre") for name in PROMPT_SETS]
    return table(["model", "", *names, "centre, best of 4", "filled box", "GrabCut"], rows)


def distillation() -> str:
    """Return the agreement of edgeseg_s with its teacher at the three milestones."""
    titles = {"start": "start", "after_encoder": "after stage 1", "student": "after stage 2"}
    rows = []
    for name, title in titles.items():
        found = means(f"distill_s_{name}", "agreement")
        rows.append([title, *(found[prompts] for prompts in PROMPT_SETS)])
    return table(["student", *(name.replace("center", "centre") for name in PROMPT_SETS)], rows)


def training_step() -> str:
    """Return the speed of a training step."""
    result: dict[str, Any] = json.loads((RESULTS / "training_step.json").read_text("utf-8"))
    return (
        f"One step of stage 2 (`{result['model']}`, {result['image_size']} px, "
        f"{result['batch_size']} images, up to {result['instances']} objects each, "
        f"{result['threads']} threads): {result['images_per_s']:.2f} images/s, "
        f"{result['speedup']:.1f} times the straightforward step; loading takes "
        f"{100 * result['loading_share']:.1f} % of it.\n"
    )


def fusion() -> str:
    """Return latency of the encoders before and after folding branches and norms."""
    result = json.loads((RESULTS / "encoder_fusion.json").read_text("utf-8"))
    rows = [
        [
            f"`{row['model']}`",
            str(row["image_size"]),
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['plain_ms']:.0f} ms",
            f"{row['fused_ms']:.0f} ms",
            f"{row['max_difference']:.0e}",
        ]
        for row in result["models"]
    ]
    return table(["encoder", "input", "parameters", "plain", "fused", "largest difference"], rows)


def render() -> str:
    """Return all tables with their captions."""
    return "\n".join(
        [
            "Accuracy on the validation images of eight domains (mean of the domains' means, in "
            "points; at most 8 objects an image):\n",
            accuracy(),
            "Distillation of `edgeseg_s` by `edgeseg_m` (agreement with the teacher, mean IoU in "
            "points):\n",
            distillation(),
            training_step(),
            "Image encoders in PyTorch, batch 1, two threads, median, before and after folding "
            "branches and norms:\n",
            fusion(),
        ]
    )


def main() -> None:
    """Print the tables or write them into the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the tables of the README")
    if not parser.parse_args().write:
        print(render())
        return
    text = README.read_text("utf-8")
    before, rest = text.split(MARKERS[0])
    README.write_text(before + MARKERS[0] + render() + rest[rest.index(MARKERS[1]) :], "utf-8")


if __name__ == "__main__":
    main()
