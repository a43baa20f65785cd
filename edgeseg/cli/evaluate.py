"""`edgeseg evaluate`: how good a model is, on images with masks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

_TABLE_WIDTH = 140
"""Columns a table of eight domains needs."""


def evaluate(
    model: Annotated[str, typer.Argument(help="released model, model folder or weight file")],
    data: Annotated[
        Path, typer.Argument(help="SA-1B folder or tar shard, or COCO / LVIS instance JSON")
    ],
    format_: Annotated[
        Literal["sa1b", "coco", "lvis"], typer.Option("--format", help="layout of the data")
    ] = "sa1b",
    images: Annotated[Path | None, typer.Option(help="folder of images of a JSON")] = None,
    split: Annotated[
        str | None, typer.Option(help="read DATA/SPLIT or DATA/DOMAIN/SPLIT only")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="side of the model input in pixels; default: as trained")
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="box, center, or click (with proposals); +K refinement clicks")
    ] = "box,box+1,box+2,center,center+1,center+2",
    teacher: Annotated[str | None, typer.Option(help="model to measure the agreement with")] = None,
    max_images: Annotated[int | None, typer.Option(help="images per domain; default: all")] = None,
    max_objects: Annotated[int | None, typer.Option(help="objects per image; default: all")] = None,
    grabcut: Annotated[bool, typer.Option(help="measure GrabCut as a floor; slow")] = True,
    boundary: Annotated[bool, typer.Option(help="measure boundary IoU")] = True,
    feed_mask: Annotated[
        bool, typer.Option("--feed-mask", help="give the last mask back with each click")
    ] = False,
    seed: Annotated[int, typer.Option(help="of the choice of images and objects")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="write the figures here (.json) and a plot beside (.png)")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Measure mIoU per prompt set and domain, with the box itself and GrabCut as floors."""
    from rich.console import Console

    from edgeseg.cli.torch_models import load_segmenter
    from edgeseg.data.sources import SourceConfig, list_records
    from edgeseg.errors import ConfigError
    from edgeseg.evaluation.config import EvaluationConfig, GrabCutConfig
    from edgeseg.evaluation.evaluator import evaluate as run_evaluation
    from edgeseg.files import write_atomically

    try:
        config = EvaluationConfig(
            prompt_sets=tuple(name.strip() for name in prompts.split(",")),
            max_images_a_domain=max_images,
            max_objects_an_image=max_objects,
            boundary=boundary,
            feed_mask=feed_mask,
            grabcut=GrabCutConfig() if grabcut else None,
            seed=seed,
        )
    except ValueError as error:
        raise ConfigError(f"cannot evaluate that: {' '.join(str(error).split())}") from error
    records = list_records([SourceConfig(format=format_, path=data, images=images, split=split)])
    segmenter = load_segmenter(model, image_size, device)
    other = load_segmenter(teacher, None, device) if teacher is not None else None
    with _progress() as advance:
        report = run_evaluation(segmenter, records, config, teacher=other, progress=advance)
    if out is not None:
        write_atomically(out, lambda temporary: temporary.write_text(report.to_json(), "utf-8"))
        report.save_plot(out.with_suffix(".png"), model)
    if json_:
        typer.echo(report.to_json())
        return
    console = Console()
    console.width = max(console.width, _TABLE_WIDTH)  # rather wrapped lines than cut figures
    console.print(report.table("iou", title=model))
    if boundary:
        console.print(report.table("boundary_iou", title=model))


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr while images are measured; yield what moves it."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("evaluating", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
