import json
import shutil

import pytest
from pycocotools import mask as coco_mask
from pydantic import ValidationError
from tiny_data_sets import rectangle, sa1b_json, write_image, write_pair

from edgeseg.data.sources import SourceConfig, expand_path, list_records
from edgeseg.errors import DataError


def names(*sources):
    return [record.name for record in list_records(sources)]


def sa1b(path, **fields):
    return SourceConfig(format="sa1b", path=path, **fields)


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
