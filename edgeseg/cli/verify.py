"""`edgeseg verify`: is an exported folder equal to PyTorch?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeseg.exporter.verification import VerificationReport


def verify(
    folder: Annotated[Path, typer.Argument(help="what `edgeseg export` wrote")],
    weights: Annotated[
        str | None,
        typer.Option(help="the weights that were exported; default: the released model's"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="whose tolerances hold; default: those it was exported for"),
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="folder of images to ask beside the random ones")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="labelled images (SA-1B layout) to compare mIoU on")
    ] = None,
    max_images: Annotated[int, typer.Option(help="labelled images per domain")] = 10,
    exact: Annotated[
        bool, typer.Option("--exact", help="do not round Core ML results to float16 as devices do")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Run every file and compare with PyTorch, on random and real images.

    ONNX files run in ONNX Runtime; Core ML packages run in Core ML on macOS and in EdgeSeg's own
    interpreter elsewhere. Exit status: 0 equal, 1 different, 2 wrong usage, 3 something is not
    installed or could not be run.
    """
    import json

    from edgeseg.cli.labelled_data import list_validation, read_photos
    from edgeseg.export_manifest import read_export
    from edgeseg.exporter.targets import find_target
    from edgeseg.exporter.verification import verify_export
    from edgeseg.modeling.checkpoints import load_model

    manifest = read_export(folder)
    net = load_model(weights or manifest.model)
    report = verify_export(
        folder,
        net,
        find_target(target or manifest.target).tolerance,
        photos=read_photos(photos),
        records=list_validation(data, max_images),
        exact_arithmetic=exact,
        progress=lambda step: typer.echo(step, err=True),
    )
    typer.echo(json.dumps(report.as_dict(), indent=2) if json_ else summary(report))
    if report.status != "PASS":
        raise typer.Exit(1 if report.status == "FAIL" else 3)


def summary(report: "VerificationReport") -> str:
    """Return a line a part and a line an output."""
    lines = []
    for part in report.parts:
        runner = f" ({part.report.runner})" if part.report else ""
        lines.append(f"{part.status} {part.part}{runner}{': ' if part.reason else ''}{part.reason}")
        for figure in part.report.figures() if part.report else ():
            iou = "" if figure.min_mask_iou is None else f", mask IoU {figure.min_mask_iou:.4f}"
            lines.append(
                f"  {figure.output:28} largest difference {figure.max_difference:.1e}, mean "
                f"{figure.mean_difference:.1e}{iou} ({figure.num_cases} cases)"
            )
        for row in part.report.accuracy if part.report else ():
            lines.append(
                f"  {row.prompt_set + ' mIoU':28} {100 * row.miou:.2f}, PyTorch "
                f"{100 * row.miou_pytorch:.2f} ({row.num_objects} objects)"
            )
    return "\n".join(lines)
