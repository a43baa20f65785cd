"""`edgeseg adapt`: packs for domains: made, listed, judged and removed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from edgeseg.data.records import ImageRecord


class _MakeByDefault(TyperGroup):
    """Takes `edgeseg adapt DATA ...` for `edgeseg adapt make DATA ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # click's
        words = {*self.commands, "--help", "-h"}
        if args and args[0] not in words:
            args = ["make", *args]
        return super().parse_args(ctx, args)


adapt = typer.Typer(
    name="adapt",
    cls=_MakeByDefault,
    help="Make packs for domains. `edgeseg adapt DATA` is short for `edgeseg adapt make DATA`.",
    no_args_is_help=True,
)

Data = Annotated[
    Path, typer.Argument(help="images with masks, in the SA-1B layout; train/ and val/ are told")
]
Base = Annotated[str, typer.Option(help="model that is adapted: name, folder or weight file")]
Packs = Annotated[Path, typer.Option(help="folder of the packs")]
ImageSize = Annotated[
    int | None, typer.Option(help="side of the model input in pixels; default: as trained")
]
Domain = Annotated[str | None, typer.Option(help="take images of this domain only")]
_NATURAL = "natural.safetensors"
_HELD_OUT = 5  # without val/, every fifth image is kept to judge by


@adapt.command("make")
def make(
    data: Data,
    name: Annotated[str, typer.Option(help="of the domain: small letters, digits, _ and -")],
    base: Base = "edgeseg_m",
    packs: Packs = Path("packs"),
    kind: Annotated[
        Literal["neck_delta", "convolutional", "memory", "decoder"],
        typer.Option(help="what is built; neck_delta costs nothing once it is merged"),
    ] = "neck_delta",
    steps: Annotated[int, typer.Option(min=1, help="optimiser steps")] = 300,
    domain: Domain = None,
    max_images: Annotated[int | None, typer.Option(min=2, help="training images")] = None,
    licence: Annotated[str, typer.Option(help="of your images and masks")] = "the user's own",
    image_size: ImageSize = None,
    seed: Annotated[int, typer.Option(min=0, help="of views, order and prompts")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="print the manifest as JSON")] = False,
) -> None:
    """Make a pack from annotated images, and judge it on images it has not seen."""
    from edgeseg.adapt.config import AdaptConfig
    from edgeseg.adapt.making import Domain as Images
    from edgeseg.adapt.making import make_pack
    from edgeseg.data.records import evenly
    from edgeseg.errors import ConfigError
    from edgeseg.modeling.checkpoints import load_model
    from edgeseg.packs import PACK_MANIFEST_NAME

    if (packs / name / PACK_MANIFEST_NAME).is_file():
        raise ConfigError(
            f"there is a pack {packs / name} already; edgeseg adapt remove {name}, or choose "
            "another name"
        )
    training, validation = _split(data, domain)
    if max_images is not None:
        training = evenly(training, max_images)
    config = AdaptConfig.model_validate(
        {"seed": seed, "pack": {"kind": kind}, "training": {"steps": steps}}
    )
    described = f"{len(training)} images of {data.resolve().name}"
    images = Images(name, training, validation, described, f"{licence}; and that of {base}")
    net = load_model(base, image_size)
    cache = packs / ".cache"
    made = make_pack(
        net, images, config, packs / name, cache, lambda text: typer.echo(text, err=True)
    )
    if json_:
        typer.echo(made.model_dump_json(indent=2))
        return
    typer.echo(packs / name)
    for figures in made.figures:
        low, high = figures.gain_interval
        typer.echo(
            f"{figures.prompt_set}: {100 * figures.base:.1f} -> {100 * figures.adapted:.1f} mIoU "
            f"(gain {100 * low:+.1f} to {100 * high:+.1f}, 95 %), {figures.num_images} images"
        )
    typer.echo(f"next: edgeseg adapt natural PHOTOS --base {base} --packs {packs}")
    typer.echo(f"      edgeseg adapt evaluate {data} --base {base} --packs {packs}")


@adapt.command("natural")
def natural(
    photos: Annotated[Path, typer.Argument(help="folder of ordinary photographs, no masks needed")],
    base: Base = "edgeseg_m",
    packs: Packs = Path("packs"),
    max_images: Annotated[int, typer.Option(min=2, help="photographs that are looked at")] = 60,
    image_size: ImageSize = None,
) -> None:
    """Show the router images that need no pack."""
    from edgeseg.adapt.torch_packs import image_vectors
    from edgeseg.data.records import evenly
    from edgeseg.data.sources import SourceConfig, list_records
    from edgeseg.modeling.checkpoints import load_model
    from edgeseg.packs import save_vectors

    records = list_records([SourceConfig(format="images", path=photos)])
    vectors = image_vectors(load_model(base, image_size), evenly(records, max_images))
    save_vectors(packs / _NATURAL, vectors)
    typer.echo(f"{packs / _NATURAL}: {len(vectors)} photographs")


@adapt.command("list")
def list_(
    packs: Packs = Path("packs"),
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of text")] = False,
) -> None:
    """List the packs of a folder, with what each gives."""
    import json

    from edgeseg.packs import ADAPTER_NAME, find_packs, read_pack

    found = [(folder, read_pack(folder)) for folder in find_packs(packs)]
    if json_:
        typer.echo(json.dumps([pack.model_dump(mode="json") for _, pack in found], indent=2))
        return
    for folder, pack in found:
        size_kb = (folder / ADAPTER_NAME).stat().st_size / 1e3
        gains = ", ".join(
            f"{f.prompt_set} {100 * f.base:.1f} -> {100 * f.adapted:.1f}" for f in pack.figures
        )
        typer.echo(
            f"{pack.name}: {pack.kind} for {pack.base.model} at {pack.base.image_size} px, "
            f"{size_kb:.0f} kB, {pack.num_images} images{'; ' if gains else ''}{gains}"
        )
    if not found:
        typer.echo(f"no packs in {packs}; edgeseg adapt DATA --name DOMAIN makes one")


@adapt.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="of the pack")], packs: Packs = Path("packs")
) -> None:
    """Remove a pack; the others stay as they are."""
    import shutil

    from edgeseg.packs import PACK_MANIFEST_NAME, read_pack

    folder = packs / read_pack(packs / name).name
    (folder / PACK_MANIFEST_NAME).unlink()  # from here on it is no pack, whatever happens
    shutil.rmtree(folder)
    typer.echo(f"removed {folder}")


@adapt.command("evaluate")
def evaluate(
    data: Data,
    base: Base = "edgeseg_m",
    packs: Packs = Path("packs"),
    pack: Annotated[
        str | None, typer.Option(help="use this pack for all images; default: the router chooses")
    ] = None,
    domain: Domain = None,
    max_images: Annotated[int | None, typer.Option(min=1, help="images")] = None,
    max_objects: Annotated[int, typer.Option(min=1, help="objects of an image")] = 8,
    prompts: Annotated[str, typer.Option(help="box, center; +K refinement clicks")] = "box,center",
    image_size: ImageSize = None,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of text")] = False,
) -> None:
    """Measure a base with its packs beside the base alone, on the same images."""
    import json
    from collections import Counter
    from dataclasses import asdict

    from edgeseg.adapt.config import AdaptEvaluationConfig
    from edgeseg.adapt.torch_packs import load_packs
    from edgeseg.data.records import evenly
    from edgeseg.evaluation.paired import gain, score_images
    from edgeseg.modeling.checkpoints import load_model
    from edgeseg.modeling.torch_backend import TorchBackend
    from edgeseg.runtime.segmenter import Segmenter

    net = load_model(base, image_size)
    vectors = packs / _NATURAL
    backend = load_packs(net, packs, vectors if vectors.is_file() else None, pack)
    names = tuple(name.strip() for name in prompts.split(","))
    config = AdaptEvaluationConfig(prompt_sets=names, max_objects_an_image=max_objects)
    records = _split(data, domain)[1]
    records = records if max_images is None else evenly(records, max_images)
    before = score_images(Segmenter(TorchBackend(net)), records, config)
    segmenter = Segmenter(backend)
    after = score_images(segmenter, records, config)
    chosen = Counter(
        backend.pack_of(segmenter.encode(record.read_image()).features) or "base"
        for record in records
    )
    gains = {name: gain(before, after, name) for name in names}
    if json_:
        report = {"packs_used": chosen, "gains": {n: asdict(g) for n, g in gains.items()}}
        typer.echo(json.dumps(report, indent=2))
        return
    typer.echo(", ".join(f"{name} {count}" for name, count in chosen.most_common()))
    for name, found in gains.items():
        typer.echo(f"{name}: {found} mIoU, 95 % interval of the gain")


def _split(data: Path, domain: str | None) -> "tuple[list[ImageRecord], list[ImageRecord]]":
    """Return images to learn from and to judge by: train/ and val/, or every fifth held out."""
    from edgeseg.data.sources import SourceConfig, list_records
    from edgeseg.errors import DataError

    def listed(split: str | None) -> "list[ImageRecord]":
        found = list_records([SourceConfig(format="sa1b", path=data, split=split)])
        return [record for record in found if domain in (None, record.domain)]

    if any(data.glob("val")) or any(data.glob("*/val")):
        training, validation = listed("train"), listed("val")
    else:
        found = listed(None)
        validation = found[::_HELD_OUT] if len(found) > _HELD_OUT else []
        training = [r for n, r in enumerate(found) if n % _HELD_OUT] if validation else found
    if not training:
        raise DataError(f"{data} has no images of {domain or 'any domain'}; give images with masks")
    return training, validation
