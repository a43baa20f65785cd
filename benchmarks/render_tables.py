"""Render the tables of the READMEs and of docs/everything.md from the results.

Prints Markdown; with --write it replaces what stands between the markers of these files, with
--check it says whether that would change them.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edgeseg.bench.counts import COUNTER
from edgeseg.bench.results import BenchResult
from edgeseg.bench.roofline import read_roofline
from edgeseg.bench.suite import SuiteConfig
from edgeseg.bench.summary import ratio_of_medians
from edgeseg.bench.tables import milliseconds

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
README, EXPORT_README = ROOT / "README.md", ROOT / "export" / "README.md"
BENCHMARKS_README = ROOT / "benchmarks" / "README.md"
EVERYTHING_PAGE = ROOT / "docs" / "everything.md"
MARKERS = "<!-- figures: python benchmarks/render_tables.py --write -->\n", "<!-- end -->\n"
BOTH = ("encoder", "decoder")
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


def small_encoders() -> str:
    """Return the latency of the backbones that could carry edgeseg_xs."""
    result = json.loads((RESULTS / "small_encoders.json").read_text("utf-8"))
    rows = [
        [
            f"`{row['backbone']}`",
            str(row["deepest_stride"]),
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['latency_ms']:.0f} ms",
            "yes" if row["imagenet_weights"] else "no",
        ]
        for row in sorted(result["encoders"], key=lambda row: row["latency_ms"])
    ]
    return table(
        ["backbone", "to stride", "parameters", "latency", "ImageNet weights at hand"], rows
    )


def speed() -> str:
    """Return size, work and latency of every contender of the suite for processors."""
    path = RESULTS / "bench_cpu.json"
    result = BenchResult.read(path)
    reference = SuiteConfig.read(ROOT / "benchmarks" / "suites" / "cpu.toml").reference
    assert reference is not None
    peaks = {start.label: start.peak_memory_mb for start in result.cold_starts}
    parts = ("encoder", "decoder", "decoder@64", "end_to_end")
    rows = []
    for card in result.contenders:
        found = {part: result.find(card.label, part) for part in parts}
        times = [milliseconds(each.summary.p50_ms) if each else "-" for each in found.values()]
        both = in_turns(result, card.label)
        theirs = in_turns(result, reference)
        faster = ratio_of_medians(theirs, both, len(theirs) == len(both)) if both else None
        rows.append(
            [
                card.label,
                str(card.image_size),
                f"{sum(card.num_parameters[part] for part in BOTH) / 1e6:.2f}",
                f"{sum(card.macs[part] for part in BOTH) / 1e9:.2f}",
                f"{sum(card.num_activations[part] for part in BOTH) / 1e6:.0f}",
                *times,
                f"{peaks[card.label]:.0f}" if card.label in peaks else "-",
                "-" if faster is None else str(faster) if faster.low < faster.high else "1",
            ]
        )
    header = ["", "input", "M parameters", "GMACs", "M activations", "encoder ms", "1 prompt"]
    header += ["64 prompts", "file to mask", "peak MB", f"times faster than {reference}"]
    machine = result.machine
    return (
        f"Encoder and decoder on {result.threads} threads of {machine['processor']}, contenders "
        f"in turns, medians; the last column is for encoder and one prompt together, with its 95 % "
        f"interval. Forms of peers have random weights. Work is counted by {COUNTER}.\n\n"
        + table(header, rows)
    )


def in_turns(result: BenchResult, label: str) -> list[float]:
    """Return encoder and one prompt together, call by call, in ms."""
    found = [result.find(label, part) for part in BOTH]
    samples = [each.samples_ms for each in found if each is not None]
    return [sum(pair) for pair in zip(*samples, strict=True)] if len(samples) == len(BOTH) else []


def exports(result: dict[str, Any]) -> str:
    """Return size, latency and parity of every target of one model."""
    machine, latency = result["machine"], result["latency_p50_ms"]
    rows = [["PyTorch, fused", "", "", *_latencies(latency["pytorch"]), "", "", ""]]
    not_made = []
    for row in result["targets"]:
        if "not_made" in row:
            not_made.append(f"`{row['target']}`: {row['not_made']}.")
            continue
        parity = {figures["output"]: figures for figures in row["parity"]}
        errors = [figures["relative_error"] for name, figures in parity.items() if "res_s" in name]
        errors.append(parity["pair.image_embedding"]["relative_error"])
        ious = [figures["min_mask_iou"] for figures in parity.values() if figures["min_mask_iou"]]
        accuracy = {figures["prompt_set"]: figures for figures in row["accuracy"]}
        rows.append(
            [
                f"`{row['target']}`",
                *(f"{row['size_bytes'][role] / 1e6:.1f}" for role in ("encoder", "decoder")),
                *_latencies(latency.get(row["target"], {})),
                f"{max(errors):.0e}",
                f"{min(ious):.4f}",
                ", ".join(
                    f"{round(100 * (figures['miou'] - figures['miou_pytorch']), 2) + 0.0:+.2f}"
                    for figures in accuracy.values()
                ),
            ]
        )
    header = ["target", "encoder MB", "decoder MB", "encoder ms", "1 prompt ms", "64 prompts ms"]
    header += ["feature error", "mask IoU", "mIoU, box and centre"]
    caption = (
        f"`{result['model']}` at {result['image_size']} pixels, {result['threads']} threads of "
        f"{machine['processor']}, ONNX Runtime {machine['onnxruntime']}, medians of "
        f"{result['rounds']} calls in turns:\n\n"
    )
    text = caption + table(header, rows)
    return text + ("\nNot made: " + " ".join(not_made) + "\n" if not_made else "")


def _latencies(latency: dict[str, float]) -> list[str]:
    calls = ("encoder", "decoder, 1", "decoder, 64")
    return [f"{latency[call]:.0f}" if call in latency else "-" for call in calls]


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
            speed(),
            training_step(),
        ]
    )


def rooflines() -> str:
    """Return how near every profiled graph comes to the machine's limit."""
    rows = []
    for path in sorted(RESULTS.glob("roofline_*.json")):
        title, found = read_roofline(path)
        beyond = {op: ms - limit for op, (ms, limit) in found.by_operation().items()}
        most = sorted(beyond, key=beyond.__getitem__, reverse=True)[:3]
        rows.append(
            [
                title,
                f"{found.time_ms:.1f}",
                f"{found.limit_ms:.1f}",
                f"{100 * found.achieved_share:.0f} %",
                ", ".join(f"{op} {beyond[op]:.1f}" for op in most),
            ]
        )
    return table(["graph", "ms", "limit ms", "reached", "most beyond the limit, ms"], rows)


def render_encoders() -> str:
    """Return what folding gives, what could carry the smallest model, and how near the limit is."""
    return "\n".join(
        [
            "Graphs against the limits of this machine, layer by layer, ONNX Runtime "
            "(`edgeseg bench roofline FOLDER --out benchmarks/results/roofline_NAME.json`, with "
            "`--role decoder --prompts 64` for decoders):\n",
            rooflines(),
            "Image encoders in PyTorch, batch 1, two threads, median, before and after folding "
            "branches and norms:\n",
            fusion(),
            "Backbones that could carry `edgeseg_xs`, with the same pyramid at 384 pixels, norms "
            "folded, PyTorch, two threads:\n",
            small_encoders(),
        ]
    )


def clicks() -> str:
    """Return mIoU of a single click with and without boxes, by domain."""
    result = json.loads((RESULTS / "click_boxes.json").read_text("utf-8"))
    domains = list(result["num_objects"])
    rows = [
        [name, *(points(row["domains"][domain]) for domain in domains), points(row["mean"])]
        for name, row in result["rows"].items()
    ]
    header = [f"{name} ({result['num_objects'][name]})" for name in domains]
    recall = ", ".join(f"AR@{n} {points(value)}" for n, value in result["box_recall"].items())
    caption = (
        f"A click in the middle of each object, alone and with the box that `{result['model']}` "
        "proposes for it; mIoU in points, objects in brackets (`python benchmarks/click_boxes.py "
        f"{result['model']}`). Proposed boxes alone have {recall}.\n\n"
    )
    return caption + table(["", *header, "mean"], rows)


def everything() -> str:
    """Return recall and cost of the searches for everything."""
    result = json.loads((RESULTS / "everything.json").read_text("utf-8"))
    package = result["rows"]["segment_anything 32 x 32"]
    rows = []
    for name, row in result["rows"].items():
        faster = package["mean_seconds"] / row["mean_seconds"]
        rows.append(
            [
                name,
                *(points(value) for value in row["recall"].values()),
                f"{row['mean_prompts']:.0f}",
                f"{row['mean_seconds']:.2f}",
                f"{faster:.1f}",
            ]
        )
    caption = (
        f"Everything in {result['num_images']} validation images with the weights of "
        f"`{result['model']}` in PyTorch, {result['threads']} threads: average recall of the "
        "annotated masks, mean of the domains, in points; all grids keep masks of predicted IoU "
        f"{result['min_score']:g} and stability {result['min_stability']:g} or more "
        f"(`python benchmarks/everything.py {result['model']}`).\n\n"
    )
    header = ["search", "AR@10", "AR@100", "AR@1000", "prompts", "seconds", "times faster"]
    return caption + table(header, rows)


def graph_variants() -> str:
    """Return what each idea for a faster encoder gave."""
    result = json.loads((RESULTS / "graph_variants.json").read_text("utf-8"))
    latency = result["latency_p50_ms"]
    released = latency["as released"]
    rows = [
        [title, f"{value:.0f} ms", f"{100 * (value / released - 1):+.0f} %"]
        for title, value in latency.items()
    ]
    caption = (
        f"What each idea gives: the image encoder of `{result['model']}` at {result['image_size']} "
        f"pixels, {result['threads']} threads, one change at a time, in turns "
        "(`python benchmarks/graph_variants.py`):\n\n"
    )
    return caption + table(["variant", "latency", "against the released form"], rows)


def render_exports() -> str:
    """Return the tables of all models that were exported."""
    results = [json.loads(path.read_text("utf-8")) for path in RESULTS.glob("exports_*.json")]
    tables = [exports(result) for result in sorted(results, key=lambda each: each["model"])]
    return "\n".join([*tables, graph_variants()])


def with_tables(path: Path, text: str) -> str:
    """Return what a file would be with text between its markers."""
    before, rest = path.read_text("utf-8").split(MARKERS[0])
    return before + MARKERS[0] + text + rest[rest.index(MARKERS[1]) :]


def main() -> None:
    """Print the tables, write them into the files, or check that they are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the tables of all files")
    parser.add_argument("--check", action="store_true", help="exit with 1 if that changes a file")
    given = parser.parse_args()
    tables = {
        README: render(),
        BENCHMARKS_README: render_encoders(),
        EVERYTHING_PAGE: "\n".join([clicks(), everything()]),
        EXPORT_README: render_exports(),
    }
    if given.write:
        for path, text in tables.items():
            path.write_text(with_tables(path, text), "utf-8")
    elif given.check:
        stale = [
            path
            for path, text in tables.items()
            if with_tables(path, text) != path.read_text("utf-8")
        ]
        sys.exit(f"run this with --write: {stale}" if stale else 0)
    else:
        print("\n".join(tables.values()))


if __name__ == "__main__":
    main()
