import tarfile

import numpy as np
import pytest
from tiny_data_sets import write_pair

from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.errors import DataError


def names(*sources):
    return [record.name for record in list_records(sources)]


def sa1b(path, **fields):
    return SourceConfig(format="sa1b", path=path, **fields)


def pack(tar_path, folder, suffix=""):
    with tarfile.open(tar_path, "w") as tar:
        for file in sorted(folder.iterdir(), reverse=True):
            tar.add(file, arcname=f"./{file.name}{suffix}")


def test_a_shard_reads_what_the_folder_holds(tmp_path, two_domains):
    folder = two_domains / "dogs" / "train"
    pack(tmp_path / "sa_000020.tar", folder)

    shard = list_records([sa1b(tmp_path / "sa_000020.tar", domain="dogs")])
    files = list_records([sa1b(folder, domain="dogs")])

    assert [record.name for record in shard] == [f"dogs/sa_000020/d{k}" for k in range(5)]
    for packed, loose in zip(shard, files, strict=True):
        assert packed.image.read() == loose.image.read()
        assert np.array_equal(packed.read_image(), loose.read_image())
        assert packed.read_masks((30, 40)) == loose.read_masks((30, 40))


def test_shards_in_folders_follow_the_rules_of_folders(tmp_path, two_domains):
    for domain in ("cats", "dogs"):
        pack(two_domains / domain / "train" / "sa_1.tar", two_domains / domain / "train")
        for file in (two_domains / domain / "train").glob("*.j*"):
            file.unlink()

    records = list_records([sa1b(two_domains, split="train")])

    assert records[0].name == "cats/train/sa_1/c0"
    assert [record.domain for record in records] == ["cats"] * 3 + ["dogs"] * 5


def test_only_visible_regular_files_of_a_shard_are_listed(tmp_path):
    write_pair(tmp_path / "pets" / "a")
    (tmp_path / "pets" / "._a.jpg").write_bytes(b"resource fork")
    (tmp_path / "pets" / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "pets" / "folder.jpg").mkdir()
    with tarfile.open(tmp_path / "sa_1.tar", "w") as tar:
        tar.add(tmp_path / "pets", arcname="inner/pets")

    assert names(sa1b(tmp_path / "sa_1.tar", domain="d")) == ["d/sa_1/inner/pets/a"]


@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_truncated_shard_is_named(tmp_path, two_domains, share):
    pack(tmp_path / "sa_1.tar", two_domains / "dogs" / "train")
    data = (tmp_path / "sa_1.tar").read_bytes()
    (tmp_path / "sa_1.tar").write_bytes(data[: int(len(data.rstrip(b"\0")) * share)])

    with pytest.raises(DataError, match=r"tar shard .*sa_1\.tar.*fetch it again"):
        list_records([sa1b(tmp_path / "sa_1.tar")])


def test_a_shard_cut_between_two_members_is_refused(tmp_path, two_domains):
    pack(tmp_path / "sa_1.tar", two_domains / "dogs" / "train")
    with tarfile.open(tmp_path / "sa_1.tar") as tar:
        third = tar.getmembers()[2].offset
    data = (tmp_path / "sa_1.tar").read_bytes()
    data = data[:third].rstrip(b"\0")  # a member's padding is not an end mark
    (tmp_path / "sa_1.tar").write_bytes(data + b"x" * (-len(data) % 512))

    with pytest.raises(DataError, match="truncated"):
        list_records([sa1b(tmp_path / "sa_1.tar")])


def test_a_compressed_shard_is_refused(tmp_path, two_domains):
    with tarfile.open(tmp_path / "sa_1.tar", "w:gz") as tar:
        tar.add(two_domains)

    with pytest.raises(DataError, match="must be an uncompressed tar"):
        list_records([sa1b(tmp_path / "sa_1.tar")])


def test_an_image_without_its_json_is_listed_and_reported_when_masks_are_read(tmp_path):
    write_pair(tmp_path / "pets" / "a")
    (tmp_path / "pets" / "a.json").unlink()
    pack(tmp_path / "shard.tar", tmp_path / "pets")

    for source in (sa1b(tmp_path / "pets"), sa1b(tmp_path / "shard.tar")):
        (record,) = list_records([source])
        assert record.read_image().shape == (30, 40, 3)
        with pytest.raises(DataError, match=r"cannot read .*a\.json"):
            record.read_masks((30, 40))
