"""A model by name or folder, ready to segment, without PyTorch."""

import os
from pathlib import Path

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.export_manifest import EXPORT_MANIFEST_NAME, ExportManifest, read_export
from edgeseg.manifest import MANIFEST_NAME, RELEASED, how_to_get, named_models, user_models
from edgeseg.runtime.segmenter import MAX_PROMPTS_A_CALL, Segmenter
from edgeseg.signature import POINTS_XY_MODEL, PromptSlots

FORMATS = {
    "auto": ("onnx", "coreml"),
    "onnx": ("onnx",),
    "openvino": ("onnx",),
    "coreml": ("coreml",),
}
"""Program that runs exported files -> the formats it takes, best first."""

_PROMPTS_AT_512 = 8
"""Prompts a processor decodes at a time with input up to 512 pixels; 16 need 90 MB more and no less
time each, since they leave the cache (at 256 pixels 3.7 ms each by eights, 4.4 by sixty-fours)."""
_PREFERRED_FOLDER = "onnx_fp32"
_PRECISIONS = ("float32", "float16", "int8")

_TORCH = (
    "edgeseg.load runs exported files, without PyTorch; to run {name} by PyTorch write: "
    "from edgeseg.modeling.checkpoints import load_model; "
    "from edgeseg.modeling.torch_backend import TorchBackend; "
    "segmenter = edgeseg.Segmenter(TorchBackend(load_model({name!r}), fused=True))"
)


def load(
    name_or_folder: str | os.PathLike[str],
    backend: str = "auto",
    threads: int | None = None,
    strict: bool = False,
) -> Segmenter:
    """Load an exported model.

    Args:
        name_or_folder: A folder that `edgeseg export` wrote, or the name or folder of a model,
            released or brought in by the user, that has such a folder inside: `onnx_fp32`, else the
            one of highest precision.
        backend: What runs it: "auto", "onnx", "openvino" or "coreml"; a colon adds where, such as
            "onnx:cuda", "openvino:GPU" or "coreml:cpu_and_ne".
        threads: Threads of one call on the CPU; default: one a core.
        strict: Refuse, instead of warning, when ONNX Runtime does not run the files where it was
            told to.

    Returns:
        A segmenter; threads may share it. On a CPU it decodes few prompts at a time, which saves
        memory; see its `max_prompts_a_call`.

    Raises:
        WeightsError: There is no such model, it has no exported files, or they are damaged.
        ConfigError: The backend is unknown, or not available under `strict`.
        MissingExtraError: The backend is not installed.
        PlatformError: The backend does not exist on this operating system.
    """
    runner, _, place = backend.partition(":")
    if runner == "torch":
        raise ConfigError(_TORCH.format(name=os.fspath(name_or_folder)))
    if runner not in FORMATS or (runner == "auto" and place):
        raise ConfigError(
            f"unknown backend {backend!r}; choose auto, onnx, openvino or coreml, or one with a "
            "place such as onnx:cuda"
        )
    folder = find_export(name_or_folder, runner)
    if folder is None:
        name = os.fspath(name_or_folder)
        out = f"{Path(name).stem}-export"
        raise WeightsError(
            f"{name} has no exported files that backend {runner!r} runs; run: "
            f"edgeseg export {name} {out}; then load {out!r}"
        )
    return _open(folder, runner, place, threads, strict)


def find_export(name_or_folder: str | os.PathLike[str], runner: str = "auto") -> Path | None:
    """Return the exported folder meant by a path or a model's name.

    Args:
        name_or_folder: See `load`; a weight file is a model, too.
        runner: A key of `FORMATS`.

    Returns:
        None for a model that exists but has no files the runner takes.

    Raises:
        WeightsError: There is no such model, or its export is described wrongly.
    """
    path = Path(name_or_folder)
    if (path / EXPORT_MANIFEST_NAME).is_file():
        return path
    if path.is_file():
        if (path.parent / EXPORT_MANIFEST_NAME).is_file():
            raise WeightsError(
                f"{path} is one file of an exported model; give its folder, {path.parent}"
            )
        return None
    model = _model_folder(path)
    exports = _exports_in(model, FORMATS[runner]) if model is not None else []
    if exports:
        return exports[0]
    if model is not None and (model / MANIFEST_NAME).is_file():
        return None
    name, yours = os.fspath(name_or_folder), named_models(user_models())
    own = f", nor one of yours ({', '.join(yours)})" if yours else ""
    raise WeightsError(
        f"no model {name!r}: it is neither a folder that `edgeseg export` wrote, nor a file, nor a "
        f"released model ({', '.join(named_models(RELEASED)) or 'none are installed'}){own}; "
        f"{how_to_get(name)}"
    )


def _model_folder(path: Path) -> Path | None:
    if (path / MANIFEST_NAME).is_file():
        return path
    released = (folder for folder in RELEASED.glob("*") if folder.name == str(path))
    return next(released, None) or named_models(user_models()).get(str(path))


def _exports_in(model: Path, formats: tuple[str, ...]) -> list[Path]:
    """Return the exported folders of a model that can be run, the best first."""
    preferred = model / _PREFERRED_FOLDER
    if "onnx" in formats and (preferred / EXPORT_MANIFEST_NAME).is_file():
        return [preferred]
    folders = sorted(entry.parent for entry in model.glob(f"*/{EXPORT_MANIFEST_NAME}"))
    found = [(read_export(folder, check_hashes=False), folder) for folder in folders]
    usable = [
        (formats.index(manifest.format), _precision_rank(manifest), folder)
        for manifest, folder in found
        if manifest.format in formats and _is_ours(manifest)
    ]
    return [folder for *_, folder in sorted(usable)]


def _is_ours(manifest: ExportManifest) -> bool:
    """Whether the folder has a pair by `edgeseg.signature`, and is not for other programs."""
    decoder = manifest.file("decoder")
    if decoder is None or manifest.file("encoder") is None:
        return False
    return POINTS_XY_MODEL in [tensor.name for tensor in decoder.inputs]


def _precision_rank(manifest: ExportManifest) -> int:
    known = manifest.precision in _PRECISIONS
    return _PRECISIONS.index(manifest.precision) if known else len(_PRECISIONS)


def _open(folder: Path, runner: str, place: str, threads: int | None, strict: bool) -> Segmenter:
    """Open a folder; each backend is imported only when it is used."""
    if runner == "auto":
        runner = read_export(folder, check_hashes=False).format
    if runner == "coreml":
        from edgeseg.runtime.coreml_backend import open_coreml

        model = open_coreml(folder, place or "all")
    elif runner == "openvino":
        from edgeseg.runtime.openvino_backend import open_openvino

        model = open_openvino(folder, threads, place or "CPU")
    else:
        from edgeseg.runtime.onnx_backend import open_onnx

        model = open_onnx(folder, threads, place or "auto", strict)
    is_on_cpu = model.runs_on["decoder"][:1] in (("cpu",), ("CPU",))
    return Segmenter(model, _prompts_a_call(model.image_size, model.slots, is_on_cpu))


def _prompts_a_call(image_size: int, slots: PromptSlots, is_on_cpu: bool) -> int:
    """Return how many prompts to decode at a time.

    A processor gains nothing from more than a few, but each needs memory at the resolution of the
    masks. Other devices want as many as possible, and a decoder with fixed slots splits by itself.
    """
    if not is_on_cpu or slots.num_prompts is not None:
        return MAX_PROMPTS_A_CALL
    return max(1, min(_PROMPTS_AT_512, _PROMPTS_AT_512 * 512**2 // image_size**2))
