"""`edgeseg info`: what is this file?"""

from typing import Annotated

import typer


def info(
    file: Annotated[
        str, typer.Argument(help="weights, checkpoint, .onnx, .mlpackage, recipe, folder or model")
    ],
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of text")] = False,
) -> None:
    """Tell what a file or folder is: model, size, precision, tensors, operations, hash.

    Nothing in the file is run, and no pickle is read but as tensors.
    """
    import json
    import sys

    from edgeseg.inspection.describe import describe
    from edgeseg.inspection.description_text import description_text

    def report(text: str) -> None:
        if sys.stderr.isatty():
            typer.echo(text, err=True)

    found = describe(file, report)
    typer.echo(json.dumps(found.as_dict(), indent=2) if json_ else description_text(found))
