"""Exported files for contenders that are not exported yet, kept for the next run."""

from collections.abc import Callable
from pathlib import Path

from edgeseg.bench.suite import ContenderConfig
from edgeseg.errors import ConfigError
from edgeseg.export_manifest import EXPORT_MANIFEST_NAME, read_export


def exported_folder(
    contender: ContenderConfig, target: str, work: Path, say: Callable[[str], None]
) -> Path:
    """Return a folder of exported files for a contender, exporting it if need be.

    Args:
        contender: Its model may be an exported folder already.
        target: Name of an export target, or a TOML file.
        work: Folder of what was exported before; a folder there is used again if it is of the same
            weights.
        say: Told what is being done.

    Raises:
        WeightsError: There is no such model.
        ExportError: It cannot be exported to this target.
        MissingExtraError: What exporting needs is not installed.
    """
    given = Path(contender.model)
    if (given / EXPORT_MANIFEST_NAME).is_file():
        if contender.image_size not in (None, read_export(given, check_hashes=False).image_size):
            raise ConfigError(
                f"{given} was exported for {read_export(given).image_size} pixel input, got "
                f"image_size = {contender.image_size}; leave it out, or give the weights"
            )
        return given
    from edgeseg.bench.pytorch_driver import load_or_build  # needs torch, as exporting does
    from edgeseg.exporter.release import export_model
    from edgeseg.exporter.targets import find_target
    from edgeseg.exporter.written_files import ExportFacts

    net, sha256 = load_or_build(contender)
    chosen = find_target(target)
    folder = work / f"{net.name}-{net.image_size}-{sha256[:12] or 'random'}-{chosen.name}"
    if not (folder / EXPORT_MANIFEST_NAME).is_file():
        say(f"exporting {contender.label} to {folder}")
        facts = ExportFacts(sha256, "random weights" if not sha256 else "see the model")
        export_model(net, folder, chosen, facts, progress=say)
    return folder
