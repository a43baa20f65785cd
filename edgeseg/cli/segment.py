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
        str, typer.Option(help="released model, model folder or weight file")
    ] = "edgeseg_m",
    image_size: Annotated[
        int | None, typer.Option(help="side of the model input in pixels; default: as trained")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="folder of the results; default: IMAGE's name + -masks")
    ] = None,
    rle: Annotated[
        bool, typer.Option("--rle", help="print run lengths as JSON instead of writing pictures")
    ] = False,
) -> None:
    """Segment what the prompts point at.

    Points without --each mean one object together, with the box if there is one. Several boxes are
    several objects. Writes a mask PNG per object and an overlay.
    """
    from edgeseg.cli.prompt_options import parse_prompts
    from edgeseg.cli.torch_models import load_segmenter
    from edgeseg.images import read_image

    prompts = parse_prompts(point or [], box or [], each)
    pixels = read_image(image)
    segmenter = load_segmenter(model, image_size, device)
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


def _write_pictures(
    folder: Path, image: "NDArray[np.uint8]", masks: "Masks", prompts: "list[Prompt]"
) -> None:
    """Write a black and white PNG per mask, and the masks drawn over the photograph."""
    import cv2

    from edgeseg.files import write_atomically

    pictures = {f"mask_{n}.png": mask.astype("uint8") * 255 for n, mask in enumerate(masks.masks)}
    pictures["overlay.png"] = masks.overlay(image, prompts=prompts)[..., ::-1]
    for name, picture in pictures.items():
        write_atomically(folder / name, lambda path, p=picture: cv2.imwrite(str(path), p))  # type: ignore[misc]
