"""`edgeseg models`: which models can be named, what is known of each, and how to bring in more."""

from pathlib import Path
from typing import Annotated

import typer

models = typer.Typer(
    name="models",
    help="List, describe and bring in models.",
    no_args_is_help=True,
)

Library = Annotated[
    Path | None,
    typer.Option(
        help="folder of your models; default: $EDGESEG_MODELS, else the data folder of this "
        "account, such as ~/.local/share/edgeseg/models"
    ),
]


@models.command("list")
def list_(
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of text")] = False,
    library: Library = None,
) -> None:
    """List every model that can be named, and those that can be brought in.

    Nothing is downloaded and no weights are read.
    """
    import dataclasses
    import json

    from edgeseg.cli.model_texts import listed_text, megabytes, published_row
    from edgeseg.manifest import RELEASED, user_models
    from edgeseg.model_assembly import unfinished_downloads
    from edgeseg.model_library import list_models
    from edgeseg.published_checkpoints import PUBLISHED

    yours = library or user_models()
    found = list_models(yours)
    here = {model.name for model in found}
    others = [checkpoint for name, checkpoint in PUBLISHED.items() if name not in here]
    unfinished = unfinished_downloads(yours)
    if json_:
        report = {
            "released_folder": str(RELEASED),
            "your_folder": str(yours),
            "models": [model.as_dict() for model in found],
            "can_be_fetched": [dataclasses.asdict(checkpoint) for checkpoint in others],
            "unfinished_downloads": unfinished,
        }
        typer.echo(json.dumps(report, indent=2))
        return
    for place, title in (("released", f"released, in {RELEASED}"), ("yours", f"yours, in {yours}")):
        typer.echo(f"{title}:")
        rows = [model for model in found if model.place == place]
        typer.echo("\n".join(listed_text(model) for model in rows) or "  none")
    if others:
        typer.echo("not here; edgeseg models fetch NAME --from FILE_OR_LINK brings them in:")
        typer.echo("\n".join(published_row(checkpoint) for checkpoint in others))
    for name, size_bytes in unfinished.items():
        typer.echo(f"unfinished: {name}, {megabytes(size_bytes)} are here; fetch it again")


@models.command("show")
def show(
    name: Annotated[str, typer.Argument(help="name of a model, or a folder with model.toml")],
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of text")] = False,
    card: Annotated[bool, typer.Option("--card", help="print the model card, too")] = False,
    library: Library = None,
) -> None:
    """Show all that is known of a model, and whether its weights are the right ones.

    Exit status 1 if the weights or the manifest are damaged.
    """
    import dataclasses
    import json

    from edgeseg.cli.model_texts import (
        description_text,
        name_or_folder,
        next_commands,
        published_text,
    )
    from edgeseg.manifest import user_models
    from edgeseg.model_library import describe_model, is_here
    from edgeseg.published_checkpoints import PUBLISHED

    yours = library or user_models()
    if name in PUBLISHED and not is_here(name, yours):
        checkpoint = PUBLISHED[name]
        text = json.dumps(dataclasses.asdict(checkpoint) | {"is_here": False}, indent=2)
        typer.echo(text if json_ else published_text(checkpoint))
        return
    found = describe_model(name, yours)
    typer.echo(json.dumps(found.as_dict(), indent=2) if json_ else description_text(found))
    if card and not json_ and found.card is not None:
        typer.echo(f"\n{found.card.read_text('utf-8').rstrip()}\n")
    if not found.is_usable:
        raise typer.Exit(1)
    if not json_:
        typer.echo(next_commands(name_or_folder(found.listed, yours), found.listed.manifest))


@models.command("fetch")
def fetch(
    name: Annotated[
        str,
        typer.Argument(help="a checkpoint of `edgeseg models list`, a network, or a name of yours"),
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="FILE_OR_LINK",
            help="weights, a model folder, an http(s) link, or `official`: the authors' address",
        ),
    ],
    sha256: Annotated[
        str | None,
        typer.Option(help="of the file; default: the published one, where one is known"),
    ] = None,
    new_name: Annotated[
        str | None, typer.Option("--name", metavar="NEWNAME", help="call it so; default: NAME")
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="point to your file instead of storing a copy")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(help="of the weights, where it is not known")
    ] = None,
    max_size_gb: Annotated[
        float, typer.Option(min=0, help="largest file that is downloaded")
    ] = 4.0,
    timeout_s: Annotated[
        float, typer.Option(min=0.1, help="seconds of silence after which a server is given up")
    ] = 30.0,
    library: Library = None,
) -> None:
    """Bring a model in: official SAM or EdgeSAM checkpoints, or weights of your own.

    Nothing is downloaded but what --from names. The SHA-256 is compared before anything reads the
    file, and it is loaded strictly into its network before it gets its name, by which --model finds
    it then. Official checkpoints are stored as safetensors with the same numbers. A download that
    was interrupted continues when the same command is given again. Needs the extra `train`.
    """
    from edgeseg.cli.download_progress import download_progress
    from edgeseg.cli.model_texts import description_text, name_or_folder, next_commands
    from edgeseg.fetch_request import FetchRequest
    from edgeseg.manifest import user_models
    from edgeseg.model_assembly import unfinished_downloads
    from edgeseg.model_library import describe_model
    from edgeseg.modeling.fetched_weights import fetch_model

    request = FetchRequest(
        name=name,
        source=source,
        yours=library or user_models(),
        new_name=new_name,
        sha256=sha256,
        licence=licence,
        in_place=link,
        max_bytes=round(max_size_gb * 1e9),
        timeout_s=timeout_s,
    )
    try:
        with download_progress() as progress:
            result = fetch_model(request, progress, lambda line: typer.echo(line, err=True))
    except KeyboardInterrupt:
        if (new_name or name) in unfinished_downloads(request.yours):
            typer.echo("what came is kept; give the same command to continue", err=True)
        raise
    if result.manifest.source_compared_with == "nothing":
        typer.echo(
            "edgeseg: warning: no hash of this file is known, so it was compared with nothing; if "
            "its authors publish one, compare it with the one printed here",
            err=True,
        )
    if result.was_here:
        typer.echo(f"{result.name} was brought in before, from the same file", err=True)
    found = describe_model(result.name, request.yours)
    typer.echo(description_text(found))
    typer.echo(next_commands(name_or_folder(found.listed, request.yours), result.manifest))
