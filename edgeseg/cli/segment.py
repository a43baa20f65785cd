"""`edgeseg segment`: masks of one image."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeseg.prompts import Prompt
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
    """Segment what the prompts point at.

    Points without --each mean one object together, with the box if there is one. Several boxes are
    several objects. Writes a mask PNG per object and an overlay. Exported files are run without
    PyTorch; weights, which have no exported files yet, by PyTorch.
    """
    from edgeseg.cli.prompt_options import parse_prompts
    from edgeseg.images import read_image

    prompts = parse_prompts(point or [], box or [], each)
    pixels = read_image(image)
    segmenter = _load(model, backend, strict, threads, image_size, device)
    masks = segmenter.segment(segmenter.encode(pixels), prompts, multimask=multimask)
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
    import cv2

    from edgeseg.files import write_atomically

    def write(name: str, picture: "NDArray[np.uint8]") -> None:
        write_atomically(folder / name, lambda path: cv2.imwrite(str(path), picture))

    for number, crop in enumerate(masks.crops):
        write(f"mask_{number}.png", crop.to_mask().astype("uint8") * 255)
    write("overlay.png", masks.overlay(image, prompts=prompts)[..., ::-1])
