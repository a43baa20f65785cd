"""`edgeseg segment`: masks of one image."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeseg.prompts import Prompt
    from edgeseg.runtime.everything import EverythingSettings
    from edgeseg.runtime.mask_grid import GridSettings
    from edgeseg.runtime.masks import Masks
    from edgeseg.runtime.segmenter import Segmenter


def segment(
    image: Annotated[Path, typer.Argument(help="photograph")],
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y[,LABEL]", help="pixel on the object; LABEL 0: not on it"),
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option(metavar="X0,Y0,X1,Y1", help="box; each one is an object")
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="every point is an object of its own")
    ] = False,
    multimask: Annotated[
        bool, typer.Option("--multimask", help="three answers a prompt instead of one")
    ] = False,
    proposals: Annotated[
        bool, typer.Option("--proposals", help="give each single point the box proposed for it")
    ] = False,
    granularities: Annotated[
        bool, typer.Option("--granularities", help="part, object and group of a single point")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--everything", help="all that the model itself proposes, unprompted")
    ] = False,
    grid: Annotated[
        int | None,
        typer.Option(min=1, help="everything by a grid of so many points a side; slow"),
    ] = None,
    max_prompts: Annotated[
        int | None, typer.Option(min=1, help="most proposals that become prompts")
    ] = None,
    model: Annotated[
        str, typer.Option(help="released model, exported folder, model folder or weight file")
    ] = "edgeseg_m",
    backend: Annotated[
        str,
        typer.Option(
            help="auto, onnx, openvino, coreml or torch; with a place: onnx:cuda, openvino:GPU"
        ),
    ] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="fail if the model does not run where it was told to")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="threads on the CPU; default: one a core")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="side of the model input in pixels, by torch; default: as trained"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps, by torch; default: cpu")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the results; default: IMAGE's name + -masks")
    ] = None,
    rle: Annotated[
        bool, typer.Option("--rle", help="print run lengths as JSON instead of writing pictures")
    ] = False,
) -> None:
    """Segment what the prompts point at, or everything.

    Points without --each mean one object together, with the box if there is one. Several boxes are
    several objects. Writes a mask PNG per object and an overlay; everything is written as one JSON
    file in the layout of SA-1B. Exported files are run without PyTorch; weights, which have no
    exported files yet, by PyTorch.
    """
    from edgeseg.cli.prompt_options import (
        parse_everything,
        parse_prompts,
        single_point,
        with_proposals,
    )
    from edgeseg.images import read_image

    given = {
        "--point": point,
        "--box": box,
        "--each": each,
        "--multimask": multimask,
        "--proposals": proposals,
        "--granularities": granularities,
    }
    prompting = [name for name, value in given.items() if value]
    settings = parse_everything(everything, grid, max_prompts, prompting)
    if settings is not None:
        pixels = read_image(image)
        segmenter = _load(model, backend, strict, threads, image_size, device)
        _segment_everything(segmenter, image, pixels, settings, out, rle)
        return
    prompts = parse_prompts(point or [], box or [], each)
    clicked = None
    if granularities:
        clicked = single_point(prompts, [n for n in ("--multimask", "--proposals") if given[n]])
    pixels = read_image(image)
    segmenter = _load(model, backend, strict, threads, image_size, device)
    encoded = segmenter.encode(pixels)
    if clicked is not None:
        masks = segmenter.segment_click(encoded, clicked)
    else:
        if proposals:
            prompts = with_proposals(segmenter, encoded, prompts)
        masks = segmenter.segment(encoded, prompts, multimask=multimask)
    if rle:
        rows = [
            {"segmentation": run_lengths, "score": float(score), "prompt": int(index)}
            for run_lengths, score, index in zip(
                masks.to_rle(), masks.scores, masks.prompt_indices, strict=True
            )
        ]
        typer.echo(json.dumps({"image": str(image), "masks": rows}))
        return
    folder = out or image.with_name(f"{image.stem}-masks")
    _write_pictures(folder, pixels, masks, prompts)
    for number, score in enumerate(masks.scores):
        typer.echo(f"{folder / f'mask_{number}.png'}  score {score:.3f}")
    typer.echo(str(folder / "overlay.png"))


def _segment_everything(
    segmenter: "Segmenter",
    image: Path,
    pixels: "NDArray[np.uint8]",
    settings: "EverythingSettings | GridSettings",
    out: Path | None,
    rle: bool,
) -> None:
    found = segmenter.segment_everything(pixels, settings)
    typer.echo(found.summary(), err=True)
    height, width = found.masks.image_hw
    about = {"file_name": image.name, "height": height, "width": width}
    annotations = [{"id": number, **row} for number, row in enumerate(found.to_sam())]
    text = json.dumps({"image": about, "annotations": annotations})  # the layout of SA-1B
    if rle:
        typer.echo(text)
        return
    from edgeseg.files import write_atomically

    folder = out or image.with_name(f"{image.stem}-masks")
    path = folder / "everything.json"
    write_atomically(path, lambda temporary: temporary.write_text(text + "\n", "utf-8"))
    _write_picture(folder / "overlay.png", found.masks.overlay(pixels))
    typer.echo(f"{path}\n{folder / 'overlay.png'}")


def _load(
    model: str,
    backend: str,
    strict: bool,
    threads: int | None,
    image_size: int | None,
    device: str | None,
) -> "Segmenter":
    """Load exported files where there are some, weights otherwise."""
    import warnings

    from edgeseg.errors import ConfigError
    from edgeseg.runtime.loading import load

    for_torch = {"--image-size": image_size, "--device": device}
    given = " and ".join(option for option, value in for_torch.items() if value is not None)
    reason = _why_torch(model, given) if backend == "auto" else ""
    if reason:
        typer.echo(f"edgeseg: torch runs {model}, because {reason}", err=True)
    if reason or backend == "torch":
        return _load_torch(model, threads, image_size, device)
    if given:
        raise ConfigError(
            f"{given} cannot be given for exported files: they have one input size, and their "
            "place is part of the backend, such as --backend onnx:cuda; leave it out, or give "
            "weights and --backend torch"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        segmenter = load(model, backend, threads, strict)
    for warning in caught:
        typer.echo(f"edgeseg: warning: {warning.message}", err=True)
    return segmenter


def _why_torch(model: str, given: str) -> str:
    """Return why a model cannot be run from exported files, empty if it can."""
    from edgeseg.runtime.loading import find_export

    folder = find_export(model)
    if folder is None:
        return f"it has no exported files; `edgeseg export {model} OUT` makes them"
    if given and folder != Path(model):  # the model has weights, too
        return f"{given} needs it"
    return ""


def _load_torch(
    model: str, threads: int | None, image_size: int | None, device: str | None
) -> "Segmenter":
    from edgeseg.cli.torch_models import load_segmenter

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return load_segmenter(model, image_size, device or "cpu")


def _write_pictures(
    folder: Path, image: "NDArray[np.uint8]", masks: "Masks", prompts: "list[Prompt]"
) -> None:
    """Write a black and white PNG per mask, and the masks drawn over the photograph."""
    for number, crop in enumerate(masks.crops):
        _write_picture(folder / f"mask_{number}.png", crop.to_mask().astype("uint8") * 255)
    _write_picture(folder / "overlay.png", masks.overlay(image, prompts=prompts))


def _write_picture(path: Path, picture: "NDArray[np.uint8]") -> None:
    """Write (H, W) or (H, W, 3) RGB pixels as PNG, atomically."""
    import cv2

    from edgeseg.files import write_atomically

    pixels = picture if picture.ndim == 2 else picture[..., ::-1]
    write_atomically(path, lambda temporary: cv2.imwrite(str(temporary), pixels))
