"""Exported folders that are damaged, incomplete or for something else."""

import pytest
from exported_folders import describe, write_folder

from edgeseg.errors import WeightsError
from edgeseg.export_manifest import hash_of, read_export, write_export
from edgeseg.runtime.onnx_backend import open_onnx


def test_a_missing_folder_or_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match="nowhere.*give a folder that `edgeseg export` wrote"):
        open_onnx(tmp_path / "nowhere")

    folder = write_folder(tmp_path)
    (folder / "decoder.onnx").unlink()
    with pytest.raises(WeightsError, match=r"names decoder\.onnx, which is missing; export again"):
        open_onnx(folder)


def test_a_damaged_file_is_refused(tmp_path):
    folder = write_folder(tmp_path)
    path = folder / "decoder.onnx"
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(WeightsError, match=r"decoder\.onnx is damaged or was replaced"):
        open_onnx(folder)

    manifest = read_export(folder, check_hashes=False)
    broken = manifest.files[1].model_copy(update={"sha256": hash_of(path)})
    write_export(folder, manifest.model_copy(update={"files": (manifest.files[0], broken)}))
    with pytest.raises(WeightsError, match=r"cannot open .*decoder\.onnx: .*; export it again"):
        open_onnx(folder)


def test_a_folder_for_another_program_is_refused(tmp_path):
    coreml = write_folder(tmp_path / "coreml", format="coreml")
    with pytest.raises(
        WeightsError, match="holds coreml files, this backend runs onnx; load it wi"
    ):
        open_onnx(coreml)

    folder = write_folder(tmp_path / "alone")
    manifest = read_export(folder)
    write_export(folder, manifest.model_copy(update={"files": manifest.files[:1]}))
    with pytest.raises(WeightsError, match="must hold an encoder and a decoder, got encoder; expo"):
        open_onnx(folder)


def test_files_that_do_not_keep_the_signature_are_refused(tmp_path):
    folder = write_folder(tmp_path / "swapped")
    manifest = read_export(folder)
    (folder / "encoder.onnx").rename(folder / "moved.onnx")
    (folder / "decoder.onnx").rename(folder / "encoder.onnx")
    (folder / "moved.onnx").rename(folder / "decoder.onnx")
    files = tuple(describe(folder / f"{role}.onnx", role) for role in ("encoder", "decoder"))
    write_export(folder, manifest.model_copy(update={"files": files}))
    with pytest.raises(
        WeightsError, match=r"the encoder must take image and return .*, got image_"
    ):
        open_onnx(folder)

    with pytest.raises(
        WeightsError, match=r"image must have the shape \(1, 3, 128, 128\) .*64, 64"
    ):
        open_onnx(with_manifest(tmp_path / "size", image_size=128))
    with pytest.raises(WeightsError, match="the encoder must take image_rgb .* got image and"):
        open_onnx(with_manifest(tmp_path / "rgb", normalises=True))
    with pytest.raises(WeightsError, match=r"mean and deviation \[0\.0, .*normalisation inside"):
        open_onnx(write_folder(tmp_path / "mean", pixel_mean=(0, 0, 0)))


def with_manifest(folder, **changes):
    """A folder whose files were exported for something else than its manifest says."""
    write_folder(folder)
    write_export(folder, read_export(folder).model_copy(update=changes))
    return folder


def test_another_mean_does_not_matter_to_an_encoder_that_normalises(tmp_path):
    folder = write_folder(tmp_path, normalises=True, pixel_mean=(0, 0, 0))

    assert open_onnx(folder).normalises
