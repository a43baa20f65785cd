import struct
import zipfile

import pytest

from edgeseg import torch_archives
from edgeseg.errors import WeightsError
from edgeseg.torch_archives import check_archive, is_checkpoint, list_records


def archive(path, *records, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in records:
            file.writestr(name, content)
    return path


def test_records_of_a_checkpoint_are_listed(tmp_path):
    path = archive(tmp_path / "a.pth", ("a/data.pkl", b"."), ("a/data/0", bytes(4)))

    records = list_records(path)

    assert [record.filename for record in records] == ["a/data.pkl", "a/data/0"]
    assert is_checkpoint(records)
    check_archive(path, records)


def test_another_archive_is_no_checkpoint_and_another_file_no_archive(tmp_path):
    (tmp_path / "b").write_bytes(b"PK\x03\x04 and nothing else")

    assert not is_checkpoint(list_records(archive(tmp_path / "a.zip", ("data.pkl", b"."))))
    assert list_records(tmp_path / "b") is None


def test_a_program_is_refused(tmp_path):
    path = archive(tmp_path / "a.pt", ("a/data.pkl", b"."), ("a/constants.pkl", b"."))

    with pytest.raises(WeightsError, match="TorchScript program, not weights; save the state dict"):
        check_archive(path, list_records(path))


def test_a_compressed_record_is_refused(tmp_path):
    path = archive(tmp_path / "a.pth", ("a/data.pkl", bytes(99)), compression=zipfile.ZIP_DEFLATED)

    with pytest.raises(WeightsError, match=r"'a/data\.pkl' is compressed, which could exhaust"):
        check_archive(path, list_records(path))


def test_a_pickle_that_is_too_large_is_refused_and_a_tensor_of_that_size_is_not(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(torch_archives, "MAX_PICKLE_BYTES", 8)
    path = archive(tmp_path / "a.pth", ("a/data.pkl", bytes(8)), ("a/data/0", bytes(9)))
    check_archive(path, list_records(path))

    path = archive(tmp_path / "a.pth", ("a/data.pkl", bytes(9)))
    with pytest.raises(WeightsError, match=r"'a/data\.pkl' has 9 bytes, allowed are 8"):
        check_archive(path, list_records(path))


def test_a_directory_that_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.pth", ("a/data.pkl", b"."))
    # One record: 46 bytes and its name of 10.
    monkeypatch.setattr(torch_archives, "MAX_DIRECTORY_BYTES", 56)
    assert list_records(path) is not None

    monkeypatch.setattr(torch_archives, "MAX_DIRECTORY_BYTES", 55)
    monkeypatch.setattr(zipfile, "ZipFile", None)  # must not be asked
    with pytest.raises(WeightsError, match="directory has 56 bytes, allowed are 55"):
        list_records(path)


def test_the_long_end_record_of_large_archives_counts(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.pth", ("a/data.pkl", b"."))
    whole = path.read_bytes()
    end = whole[-22:]
    long_end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 10**12, 31)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(whole) - 22, 1)
    path.write_bytes(whole[:-22] + long_end + locator + end)

    with pytest.raises(WeightsError, match="directory has 1000000000000 bytes"):
        list_records(path)


def test_a_damaged_directory_is_refused(tmp_path):
    path = archive(tmp_path / "a.pth", ("a/data.pkl", b"."))
    whole = bytearray(path.read_bytes())
    whole[-22 - 56] ^= 0xFF  # the signature of the only entry
    path.write_bytes(bytes(whole))

    with pytest.raises(WeightsError, match="is a damaged archive"):
        list_records(path)
