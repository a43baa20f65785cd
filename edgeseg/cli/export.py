"""`edgeseg export`: turn a model into files that a device can run."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[str, typer.Argument(help="released model, model folder or weight file")],
    out: Annotated[Path, typer.Argument(help="folder to write; new or empty")],
    target: Annotated[str, typer.Option(help="name of a target, or a TOML file")] = "onnx_fp32",
    image_size: Annotated[
        int | None, typer.Option(help="side of the model input in pixels; default: as trained")
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="folder of photographs, for int8 and float16")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="folder of images to compare on beside random ones")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="labelled images (SA-1B layout) to compare mIoU on")
    ] = None,
    max_images: Annotated[int, typer.Option(help="labelled images per domain")] = 10,
) -> None:
    """Export a model, compare the files with PyTorch, and keep them only if they are equal.

    Targets: onnx_fp32, onnx_fp16, onnx_int8_dynamic, onnx_int8, onnx_tensorrt,
    onnx_sam_compatible, coreml_fp16, coreml_linear8, coreml_palette6, coreml_palette4, web.
    """
    from edgeseg.cli.labelled_data import list_validation, read_photos
    from edgeseg.cli.verify import summary
    from edgeseg.exporter.release import export_model
    from edgeseg.exporter.targets import find_target
    from edgeseg.exporter.written_files import ExportFacts
    from edgeseg.manifest import find_weights, licence_of, sha256_of
    from edgeseg.modeling.checkpoints import load_model

    chosen = find_target(target)
    weights = find_weights(model)
    result = export_model(
        load_model(weights, image_size),
        out,
        chosen,
        ExportFacts(sha256_of(weights), licence_of(weights)),
        calibration=[image for _, image in read_photos(calibrate, chosen.num_calibration_images)],
        photos=read_photos(photos, 4),
        records=list_validation(data, max_images),
        progress=lambda step: typer.echo(step, err=True),
    )
    typer.echo(summary(result.report))
    for file in result.manifest.files:
        typer.echo(f"{out / file.path} {file.size_bytes / 1e6:.1f} MB")
        if file.notes:
            typer.echo(f"  {len(file.notes)} notes in export.json, such as: {file.notes[0]}")
    own_target = f" --target {target}" if target.endswith(".toml") else ""
    again = f"edgeseg verify {out} --weights {model}{own_target}"
    typer.echo(f"next: {again}")
    if result.manifest.format == "onnx_sam_compatible":  # for other programs; ours loads the rest
        typer.echo(f"      {again} --photos FOLDER")
    else:
        on_mac = "  (on macOS)" if result.manifest.format == "coreml" else ""
        typer.echo(f"      edgeseg segment PHOTO --model {out} --point X,Y{on_mac}")
