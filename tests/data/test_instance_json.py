import json

import pytest
from pycocotools import mask as coco_mask
from tiny_data_sets import rectangle, write_image

from edgeseg.data.sources import SourceConfig, list_records
from edgeseg.errors import DataError
from edgeseg.run_lengths import decode_rle


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
