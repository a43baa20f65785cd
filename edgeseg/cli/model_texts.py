"""What `edgeseg models` prints for people."""

import shlex
from pathlib import Path

from edgeseg.manifest import ModelManifest, user_models
from edgeseg.model_library import ListedModel, ModelDescription
from edgeseg.published_checkpoints import PublishedCheckpoint


def listed_text(model: ListedModel) -> str:
    """Return name and facts of a model that can be named, or why it cannot be used."""
    facts = model.manifest
    if facts is None or model.size_bytes is None:
        return f"  {model.name:16} cannot be used: {model.problem}"
    lines = [_facts(facts, model.size_bytes), facts.licence, facts.description]
    if model.problem:
        lines.append(f"cannot be used: {model.problem}")
    return _block(model.name, lines)


def published_row(checkpoint: PublishedCheckpoint) -> str:
    """Return name, facts and address of a checkpoint that can be brought in."""
    return _block(
        checkpoint.name,
        [
            _facts(checkpoint, checkpoint.size_bytes),
            checkpoint.licence,
            checkpoint.description,
            checkpoint.link,
        ],
    )


def _facts(facts: ModelManifest | PublishedCheckpoint, size_bytes: int | None) -> str:
    size = "" if size_bytes is None else f", {megabytes(size_bytes)}"
    millions = f"{facts.num_parameters / 1e6:.2f} M parameters"
    return f"{facts.model}, {facts.image_size} px, {millions}{size}"


def _block(name: str, lines: list[str]) -> str:
    return "\n".join(f"  {name if number == 0 else '':16} {t}" for number, t in enumerate(lines))


def description_text(found: ModelDescription) -> str:
    """Return all that is known of a model, a line a fact."""
    model, facts = found.listed, found.listed.manifest
    rows = [("folder", str(model.folder))]
    if facts is not None and model.size_bytes is not None:
        rows += [
            ("network", f"{facts.model}, {facts.num_parameters:,} parameters"),
            ("input", f"{facts.image_size} px"),
            ("weights", f"{found.weights}, {megabytes(model.size_bytes)}"),
            ("sha256", f"{facts.sha256}, {'WRONG' if found.hash_problem else 'right'}"),
            ("licence", facts.licence),
            ("trained on", facts.trained_on),
            ("description", facts.description),
        ]
        rows += _source_rows(facts)
    if found.card is not None:
        rows.append(("card", str(found.card)))
    rows += [
        ("exported", f"{e.folder}: {e.format}, {e.precision}, {megabytes(e.size_bytes)}")
        for e in found.exports
    ]
    problem = model.problem or found.hash_problem
    if problem:
        rows.append(("problem", problem))
    return f"{model.name}\n" + "\n".join(f"  {key:12} {value}" for key, value in rows)


def _source_rows(facts: ModelManifest) -> list[tuple[str, str]]:
    if facts.source is None:
        return []
    compared = facts.source_compared_with
    verdict = "compared with nothing" if compared == "nothing" else f"equal to the {compared} one"
    return [
        ("source", facts.source),
        ("its sha256", f"{facts.source_sha256}, {verdict}"),
    ]


def published_text(checkpoint: PublishedCheckpoint) -> str:
    """Return all that is known of a checkpoint that is not here, and how to get it."""
    size = "" if checkpoint.size_bytes is None else f", {megabytes(checkpoint.size_bytes)}"
    rows = [
        ("network", f"{checkpoint.model}, {checkpoint.num_parameters:,} parameters"),
        ("input", f"{checkpoint.image_size} px"),
        ("file", f"{checkpoint.link}{size}"),
        ("sha256", checkpoint.sha256 or "none is known"),
        ("licence", checkpoint.licence),
        ("trained on", checkpoint.trained_on),
        ("description", checkpoint.description),
        ("homepage", checkpoint.homepage),
    ]
    text = "\n".join(f"  {key:12} {value}" for key, value in rows)
    fetch = f"edgeseg models fetch {checkpoint.name} --from"
    return (
        f"{checkpoint.name}, not here\n{text}\n"
        f"next: {fetch} FILE_OR_LINK\n      {fetch} official   (downloads the file above)"
    )


def name_or_folder(model: ListedModel, yours: Path) -> str:
    """Return what other commands find a model by: they know no --library."""
    is_named = model.place == "released" or (model.place == "yours" and yours == user_models())
    return model.name if is_named else str(model.folder)


def next_commands(model: str, facts: ModelManifest | None) -> str:
    """Return commands that take the model."""
    word = shlex.quote(model)
    commands = [
        f"edgeseg segment PHOTO --model {word} --point X,Y",
        f"edgeseg evaluate {word} DATA",
    ]
    if facts is not None and not facts.model.startswith("vit_"):
        commands.append(f"edgeseg export {word} OUT")
    teacher = shlex.quote(f"teacher.weights={model}")
    commands.append(f"edgeseg distill distill_s --out RUN --set {teacher}")
    return "next: " + "\n      ".join(commands)


def megabytes(size_bytes: int) -> str:
    """Return a size in words."""
    return f"{size_bytes / 1e6:.1f} MB"
