import json
import shutil
import tarfile

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pydantic import ValidationError
from tiny_data_sets import rectangle, sa1b_json, write_image, write_pair

from edgeseg.data.run_lengths import decode_rle
from edgeseg.data.sources import SourceConfig, expand_path, list_records
from edgeseg.errors import DataError


def names(*sources):
    return [record.name for record in list_records(sources)]


def sa1b(path, **fields):
    return SourceConfig(format="sa1b", path=path, **fields)


def pack(tar_path, folder, suffix=""):
    with tarfile.open(tar_path, "w") as tar:
        for file in sorted(folder.iterdir(), reverse=True):
            tar.add(file, arcname=f"./{file.name}{suffix}")


# Folders, domains and splits


def test_a_split_is_read_from_every_domain(two_domains):
    write_pair(two_domains / "cats" / "val" / "c9")

    records = list_records([sa1b(two_domains, split="train")])

    assert [record.name for record in records] == [
        *(f"cats/train/c{k}" for k in range(3)),
        *(f"dogs/train/d{k}" for k in range(5)),
    ]
    assert [record.domain for record in records] == ["cats"] * 3 + ["dogs"] * 5


def test_one_domain_alone_gets_the_names_it_has_among_all(two_domains):
    all_names = names(sa1b(two_domains, split="train"))

    assert names(sa1b(two_domains / "cats", split="train")) == all_names[:3]


def test_without_a_split_everything_is_read(two_domains):
    write_pair(two_domains / "cats" / "val" / "c9")

    assert len(names(sa1b(two_domains))) == 9


def test_images_in_the_root_itself_take_its_name(tmp_path):
    write_pair(tmp_path / "birds" / "b.1")

    (record,) = list_records([sa1b(tmp_path / "birds")])

    assert (record.name, record.domain) == ("birds/b.1", "birds")


def test_a_given_domain_replaces_the_folders(two_domains):
    records = list_records([sa1b(two_domains, split="train", domain="pets")])

    assert {record.domain for record in records} == {"pets"}
    assert records[0].name == "pets/cats/train/c0"


def test_an_absent_split_names_what_there_is(two_domains):
    with pytest.raises(DataError, match="no split 'test'.*found the folders: cats, dogs"):
        list_records([sa1b(two_domains, split="test")])


def test_hidden_files_and_other_files_are_passed_over(two_domains):
    (two_domains / "cats" / "train" / "._c0.jpg").write_bytes(b"resource fork")
    (two_domains / "cats" / "train" / "notes.txt").write_text("no image")
    (two_domains / ".cache").mkdir()
    write_image(two_domains / ".cache" / "train" / "x.jpg", (3, 4))

    assert len(names(sa1b(two_domains))) == 8


def test_links_are_followed_but_not_in_a_circle(tmp_path, two_domains):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "pets").symlink_to(two_domains)
    (two_domains / "cats" / "again").symlink_to(two_domains)

    assert len(names(sa1b(tmp_path / "linked"))) == 8


# Tar shards


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


# COCO and LVIS


def coco_document():
    square = [[2, 1, 6, 1, 6, 5, 2, 5]]  # 4 x 4 px from (2, 1)
    return {
        "images": [
            {"id": 7, "file_name": "000007.jpg", "height": 30, "width": 40},
            {"id": 3, "file_name": "000003.jpg", "height": 30, "width": 40},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "segmentation": square, "iscrowd": 0},
            {"id": 2, "image_id": 7, "segmentation": {"size": [30, 40], "counts": [0, 1200]}},
            {
                "id": 3,
                "image_id": 7,
                "segmentation": {"size": [30, 40], "counts": [5, 1195]},
                "iscrowd": 1,
            },
            {"id": 4, "image_id": 99, "segmentation": square},  # of an image that is not listed
        ],
    }


def write_coco(folder, document):
    (folder / "instances.json").write_text(json.dumps(document))
    for number in (3, 7):
        write_image(folder / "images" / f"00000{number}.jpg", (30, 40))
    return SourceConfig(format="coco", path=folder / "instances.json", images=folder / "images")


def test_coco_instances_go_to_their_images_and_crowds_are_left_out(tmp_path):
    third, seventh = list_records([write_coco(tmp_path, coco_document())])

    polygon, everything = (decode_rle(rle) for rle in seventh.read_masks((30, 40)))

    assert (third.name, seventh.name, third.domain) == ("coco/000003", "coco/000007", "coco")
    assert third.read_masks((30, 40)) == []
    assert seventh.read_image().shape == (30, 40, 3)
    assert polygon.tolist() == rectangle((30, 40), 2, 1, 6, 5).tolist()
    assert everything.all()


def test_a_coco_image_of_another_size_than_stated_is_refused(tmp_path):
    document = coco_document()
    document["images"][0]["height"] = 31

    (_, seventh) = list_records([write_coco(tmp_path, document)])

    with pytest.raises(DataError, match=r"instances\.json \[coco/000007\] is about an image of 31"):
        seventh.read_masks((30, 40))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda document: document.pop("images"), "no list of tables 'images'"),
        (lambda document: document.update(annotations=[3]), "no list of tables 'annotations'"),
        (lambda document: document["images"][1].pop("file_name"), "image 1 has no usable file"),
        (lambda document: document["annotations"][2].pop("image_id"), "annotation 2 has no"),
        (
            lambda document: [entry.update(id=str(entry["id"])) for entry in document["images"]],
            "no annotation of .* belongs to one of its images",
        ),
    ],
)
def test_a_malformed_coco_file_is_refused(tmp_path, change, reason):
    document = coco_document()
    change(document)

    with pytest.raises(DataError, match=reason):
        list_records([write_coco(tmp_path, document)])


def test_truncated_coco_json_is_named(tmp_path):
    source = write_coco(tmp_path, coco_document())
    source.path.write_text(source.path.read_text()[:-9])

    with pytest.raises(DataError, match=r"instances\.json is not valid JSON"):
        list_records([source])


@pytest.mark.parametrize("has_split_folders", [True, False])
def test_lvis_names_its_images_by_their_coco_address(tmp_path, has_split_folders):
    split = "val2017/" if has_split_folders else ""
    write_image(tmp_path / "images" / f"{split}000000000042.jpg", (30, 40))
    address = "http://images.cocodataset.org/val2017/000000000042.jpg"
    document = {
        "images": [{"id": 42, "coco_url": address, "height": 30, "width": 40}],
        "annotations": [{"image_id": 42, "segmentation": [[0, 0, 4, 0, 4, 2, 0, 2]]}],
    }
    (tmp_path / "lvis.json").write_text(json.dumps(document))

    (record,) = list_records(
        [SourceConfig(format="lvis", path=tmp_path / "lvis.json", images=tmp_path / "images")]
    )

    assert record.name == f"lvis/{split}000000000042"
    assert record.read_image().shape == (30, 40, 3)
    assert coco_mask.area(record.read_masks((30, 40))).tolist() == [8]


def test_lvis_file_names_of_2014_mean_the_image_with_that_number(tmp_path):
    write_image(tmp_path / "000000000042.jpg", (30, 40))
    image = {"id": 42, "file_name": "COCO_val2014_000000000042.jpg"}
    (tmp_path / "lvis.json").write_text(json.dumps({"images": [image], "annotations": []}))

    (record,) = list_records(
        [SourceConfig(format="lvis", path=tmp_path / "lvis.json", images=tmp_path)]
    )

    assert record.read_image().shape == (30, 40, 3)


# Plain folders


def test_a_plain_folder_has_images_and_no_masks(two_domains):
    records = list_records([SourceConfig(format="images", path=two_domains, split="train")])

    assert len(records) == 8
    assert {record.annotations for record in records} == {None}


def test_masks_written_elsewhere_are_matched_by_folder_and_name(tmp_path, two_domains):
    masks = sa1b_json([rectangle((30, 40), 0, 0, 5, 5)], (30, 40))
    (tmp_path / "teacher" / "dogs" / "train").mkdir(parents=True)
    (tmp_path / "teacher" / "dogs" / "train" / "d3.json").write_text(json.dumps(masks))

    records = list_records(
        [SourceConfig(format="images", path=two_domains, annotations=tmp_path / "teacher")]
    )

    assert [record.name for record in records if record.annotations] == ["dogs/train/d3"]
    (labelled,) = (record for record in records if record.annotations)
    assert coco_mask.area(labelled.read_masks((30, 40))).tolist() == [25]


def test_masks_that_belong_to_no_image_are_refused(tmp_path, two_domains):
    write_pair(tmp_path / "teacher" / "other")

    with pytest.raises(DataError, match="none of the 1 JSON files .* belongs to an image"):
        list_records(
            [SourceConfig(format="images", path=two_domains, annotations=tmp_path / "teacher")]
        )


# Paths, several sources, limits


def test_environment_variables_in_paths_are_expanded(monkeypatch, two_domains):
    monkeypatch.setenv("EDGESEG_TEST_ROOT", str(two_domains.parent))

    assert len(names(sa1b("$EDGESEG_TEST_ROOT/pets", split="train"))) == 8
    assert expand_path(sa1b("${EDGESEG_TEST_ROOT}/pets").path) == two_domains


def test_an_unset_variable_is_named(monkeypatch):
    monkeypatch.delenv("EDGESEG_TEST_ROOT", raising=False)

    with pytest.raises(DataError, match="environment variable EDGESEG_TEST_ROOT .* is not set"):
        list_records([sa1b("$EDGESEG_TEST_ROOT/pets")])


def test_an_absent_path_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="sa1b data .*gone does not exist"):
        list_records([sa1b(tmp_path / "gone")])
    with pytest.raises(DataError, match="holds no images"):
        list_records([sa1b(tmp_path)])
    with pytest.raises(DataError, match="no data source"):
        list_records([])


def test_the_order_does_not_depend_on_the_order_of_the_sources(two_domains):
    cats, dogs = (sa1b(two_domains / name, split="train") for name in ("cats", "dogs"))

    assert names(cats, dogs) == names(dogs, cats) == sorted(names(cats, dogs))


def test_two_images_of_one_name_are_refused(tmp_path, two_domains):
    copy = tmp_path / "copy" / "cats"
    shutil.copytree(two_domains / "cats", copy)

    with pytest.raises(DataError, match=r"two images have the name 'cats/train/c0'.*'domain'"):
        list_records([sa1b(two_domains), sa1b(copy, split="train")])
    assert len(names(sa1b(two_domains), sa1b(copy, domain="more"))) == 11


def test_a_limit_spreads_over_the_whole_list(two_domains):
    # Of the 8 records, number 0, 8 * 1 // 3 = 2 and 8 * 2 // 3 = 5.
    expected = ["cats/train/c0", "cats/train/c2", "dogs/train/d2"]

    assert names(sa1b(two_domains, limit=3)) == expected
    assert len(names(sa1b(two_domains, limit=99))) == 8


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"format": "coco"}, "needs 'images'"),
        ({"format": "sa1b", "images": "x"}, "has no 'images'"),
        ({"format": "sa1b", "annotations": "x"}, "has no 'annotations'"),
        ({"format": "lvis", "images": "x", "split": "train"}, "has no 'split'"),
        ({"format": "images", "images": "x"}, "has no 'images'"),
        ({"format": "sa1b", "limit": 0}, "greater than or equal to 1"),
        ({"format": "sa1b", "folder": "x"}, "not permitted"),
        ({"format": "voc"}, "'sa1b', 'coco', 'lvis' or 'images'"),
    ],
)
def test_a_source_with_fields_its_format_does_not_have_is_refused(fields, reason):
    with pytest.raises(ValidationError, match=reason):
        SourceConfig(path="x", **fields)


def test_the_real_data_is_listed_and_every_mask_of_a_sample_fits(real_data):
    records = list_records([sa1b(real_data, split="train", limit=40)])

    assert len({record.domain for record in records}) > 1
    for record in records:
        image = record.read_image()
        assert record.read_masks(image.shape[:2])
