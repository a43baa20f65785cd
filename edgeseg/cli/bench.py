"""`edgeseg bench`: how long it takes, on what, beside what, and whether that changed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeseg.bench.results import BenchResult
    from edgeseg.bench.suite import ContenderConfig, SuiteConfig

bench = typer.Typer(
    name="bench",
    help="Measure latency, start-up and memory; compare results.",
    no_args_is_help=True,
)


@bench.command("run")
def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="models to time with every driver given by --driver"),
    ] = None,
    suite: Annotated[
        Path | None, typer.Option(help="what to run (TOML), instead of models")
    ] = None,
    driver: Annotated[
        list[str] | None, typer.Option(help="who runs the models; see `edgeseg bench drivers`")
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help="encoder, decoder@8, proposals, everything, end_to_end, batch@4"),
    ] = None,
    photo: Annotated[
        Path | None, typer.Option(help="image file; default: one that scikit-image brings")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="threads of one call on a processor")] = None,
    rounds: Annotated[int | None, typer.Option(help="calls that count, in turns")] = None,
    work: Annotated[Path, typer.Option(help="where files exported for this are kept")] = Path(
        "out/bench"
    ),
    out: Annotated[Path | None, typer.Option(help="JSON file for every sample")] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV file for the figures")] = None,
    html: Annotated[Path | None, typer.Option(help="HTML file for a report with plots")] = None,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Time models in turns, and say what could not be measured and why."""
    from edgeseg.bench.drivers import all_drivers
    from edgeseg.bench.html_report import write_html
    from edgeseg.bench.run import run_suite
    from edgeseg.bench.suite import ContenderConfig, SuiteConfig
    from edgeseg.files import write_atomically

    if (suite is None) == (not models):
        raise typer.BadParameter("give either models or --suite")
    if suite is not None:
        if driver or part:
            raise typer.BadParameter("the suite says drivers and parts; leave these options out")
        config = SuiteConfig.read(suite)
    else:
        drivers = driver or ["onnx"]
        contenders = tuple(
            ContenderConfig(label=f"{_name(model)} {name}", model=model, driver=name)
            for model in dict.fromkeys(models or ())
            for name in dict.fromkeys(drivers)
        )
        config = _quick_suite(contenders, part)
    changes = {"threads": threads, "rounds": rounds}
    update = {key: value for key, value in changes.items() if value is not None}
    config = SuiteConfig.model_validate({**config.model_dump(exclude_unset=True), **update})
    result = run_suite(
        config,
        all_drivers(),
        photo or _photo(work),
        work,
        lambda text: typer.echo(text, err=True),
        lambda found: None if out is None else found.write(out),
    )
    if out is not None:
        result.write(out)
    if csv is not None:
        write_atomically(csv, lambda path: path.write_text(result.to_csv(), "utf-8"))
    if html is not None:
        write_html(result, html, config.reference)
    typer.echo(result.model_dump_json(indent=1) if json_ else _report(result, config.reference))
    if not result.measurements:
        raise typer.Exit(1)


@bench.command("report")
def report(
    result: Annotated[Path, typer.Argument(help="a JSON file that a benchmark wrote")],
    reference: Annotated[str | None, typer.Option(help="contender that ratios are against")] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV file for the figures")] = None,
    html: Annotated[Path | None, typer.Option(help="HTML file for a report with plots")] = None,
    roofline: Annotated[
        list[Path] | None,
        typer.Option(help="for the page: what `edgeseg bench roofline --out` wrote"),
    ] = None,
) -> None:
    """Show a result again, as tables, CSV or a page."""
    from edgeseg.bench.html_report import write_html
    from edgeseg.bench.results import BenchResult
    from edgeseg.bench.roofline import read_roofline
    from edgeseg.files import write_atomically

    found = BenchResult.read(result)
    typer.echo(_report(found, reference))
    if csv is not None:
        write_atomically(csv, lambda path: path.write_text(found.to_csv(), "utf-8"))
    if html is not None:
        rooflines = dict(read_roofline(path) for path in roofline or ())
        write_html(found, html, reference, rooflines=rooflines)


@bench.command("compare")
def compare(
    before: Annotated[Path, typer.Argument(help="JSON of an earlier run")],
    after: Annotated[Path, typer.Argument(help="JSON of a later run")],
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="such as 'latency>+10%'; also memory, size, cold_start"),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Compare two runs of one suite. Exit status 1 if a limit of --fail-if is broken."""
    import dataclasses
    import json

    from edgeseg.bench.comparing import Limit, compare_results, lost
    from edgeseg.bench.results import BenchResult
    from edgeseg.bench.tables import change_table, percent

    limits = [Limit.parse(text) for text in fail_if or ()]
    first, second = BenchResult.read(before), BenchResult.read(after)
    changes = compare_results(first, second)
    gone = lost(first, second)
    broken = [change for change in changes if any(change.breaks(limit) for limit in limits)]
    if json_:
        rows = [
            {**dataclasses.asdict(change), "ratio": change.ratio.model_dump()} for change in changes
        ]
        typer.echo(json.dumps({"changes": rows, "missing_now": gone, "broken": len(broken)}))
    else:
        typer.echo(change_table(changes), nl=False)
    if first.machine.get("processor") != second.machine.get("processor"):
        typer.echo("the results are of different machines", err=True)
    for name in gone:
        typer.echo(f"measured before and missing now: {name}", err=True)
    for change in broken:
        text = f"{change.label} {change.what}: {percent(change.ratio.value)}"
        typer.echo(f"over the limit: {text}", err=True)
    if broken or (limits and gone):
        raise typer.Exit(1)


@bench.command("drivers")
def drivers() -> None:
    """List who can run models here, and why the others cannot."""
    from edgeseg.bench.drivers import all_drivers

    for driver in all_drivers().values():
        reason = driver.unavailable()
        state = "ready" if reason is None else f"no: {reason}"
        typer.echo(f"{driver.name:16} {driver.about}: {state}")
        if driver.untested:
            typer.echo(f"{'':16} {driver.untested}")


@bench.command("roofline")
def roofline(
    folder: Annotated[Path, typer.Argument(help="what `edgeseg export` wrote in an ONNX format")],
    role: Annotated[str, typer.Option(help="encoder, decoder or proposals")] = "encoder",
    prompts: Annotated[int, typer.Option(min=1, help="prompts of one call of the decoder")] = 1,
    threads: Annotated[int, typer.Option(help="threads of one call")] = 2,
    rounds: Annotated[int, typer.Option(help="calls that count")] = 10,
    layers: Annotated[int, typer.Option(help="layers to show")] = 12,
    out: Annotated[Path | None, typer.Option(help="JSON file for all layers")] = None,
) -> None:
    """Compare the time of every layer with what this machine could do at best."""
    import json
    import tempfile
    from functools import partial

    from edgeseg.bench.layer_work import profile_layers
    from edgeseg.bench.machine import describe_machine
    from edgeseg.bench.roofline import Roofline, measure_limits, roofline_report
    from edgeseg.errors import ConfigError
    from edgeseg.export_manifest import read_export
    from edgeseg.files import write_atomically

    manifest = read_export(folder)
    file = manifest.file(role)
    if file is None or not manifest.format.startswith("onnx"):
        raise ConfigError(f"{folder} has no {role} that ONNX Runtime runs; give an ONNX export")
    with tempfile.TemporaryDirectory() as work:
        before = measure_limits(Path(work), threads)
        measured = profile_layers(folder / file.path, manifest.image_size, threads, rounds, prompts)
        limits = before.or_better(measure_limits(Path(work), threads))
    found = Roofline(limits, tuple(measured))
    typer.echo(roofline_report(found, layers))
    if out is not None:
        document = {
            "model": manifest.model,
            "image_size": manifest.image_size,
            "precision": manifest.precision,
            "role": role if prompts == 1 else f"{role}@{prompts}",
            "threads": threads,
            "machine": describe_machine(("edgeseg", "onnxruntime")),
            **found.as_dict(),
        }
        text = json.dumps(document, indent=1) + "\n"
        write_atomically(out, partial(Path.write_text, data=text))


@bench.command("estimate")
def estimate(
    networks: Annotated[list[str], typer.Argument(help="names of networks, such as edgeseg_s")],
    image_size: Annotated[
        int | None, typer.Option(help="side of the input; default: each network's own")
    ] = None,
    devices: Annotated[
        Path | None, typer.Option(help="sheets of devices (TOML); default: those that come along")
    ] = None,
) -> None:
    """Estimate encoder and decoder, one prompt, on devices that are not at hand."""
    from edgeseg.bench.estimates import estimate_table, read_devices, released_devices

    sheets = read_devices(devices or released_devices())
    typer.echo(estimate_table(sheets.values(), networks, image_size))


def _name(model: str) -> str:
    """Return what to call a model: its name, or what a folder was exported from and to."""
    from edgeseg.export_manifest import EXPORT_MANIFEST_NAME, read_export

    path = Path(model)
    if not (path / EXPORT_MANIFEST_NAME).is_file():
        return path.stem
    manifest = read_export(path, check_hashes=False)
    return f"{manifest.model} {manifest.target}"


def _quick_suite(
    contenders: "tuple[ContenderConfig, ...]", parts: list[str] | None
) -> "SuiteConfig":
    from pydantic import ValidationError

    from edgeseg.bench.suite import SuiteConfig
    from edgeseg.errors import ConfigError

    chosen = tuple(parts or ("encoder", "decoder", "decoder@8", "end_to_end"))
    try:
        return SuiteConfig(name="quick", parts=chosen, contender=contenders)
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"]) from None


def _report(result: "BenchResult", reference: str | None) -> str:
    from edgeseg.bench.tables import latency_table, missing_lines, start_table

    machine = ", ".join(f"{key} {value}" for key, value in result.machine.items())
    tables = [latency_table(result, reference) if result.measurements else "", start_table(result)]
    head = f"{machine}; {result.threads} threads a call\n"
    return "\n".join(filter(None, [head, *tables, missing_lines(result)])).rstrip("\n")


def _photo(work: Path) -> Path:
    """Write a photograph that scikit-image brings, and return its path."""
    import cv2

    from edgeseg.errors import missing_extra

    try:
        from skimage import data
    except ModuleNotFoundError:
        raise missing_extra("scikit-image", "train") from None
    work.mkdir(parents=True, exist_ok=True)
    path = work / "coffee.jpg"
    cv2.imwrite(str(path), data.coffee()[:, :, ::-1])
    return path
