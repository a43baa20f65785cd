import json
import pickle

import numpy as np
import pytest
from tiny_data_sets import rectangle, rle_json, sa1b_json, write_pair

from edgeseg.data.records import ByteRange, ImageRecord, InlineAnnotations
from edgeseg.errors import DataError, ImageError
from edgeseg.run_lengths import decode_rle


def record_of(stem):
    return ImageRecord(
        "pets/a", "pets", ByteRange(f"{stem}.jpg"), annotations=ByteRange(f"{stem}.json")
    )


def inline(document):
    data = json.dumps(document).encode()
    return ImageRecord("a", "d", ByteRange("a.jpg"), InlineAnnotations("all.json", data))


def test_a_byte_range_reads_its_stretch_and_no_more(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")

    assert ByteRange(tmp_path / "file", offset=3, length=4).read() == b"3456"
    assert ByteRange(tmp_path / "file", offset=8).read() == b"89"
    assert ByteRange(tmp_path / "file").read() == b"0123456789"


def test_a_byte_range_beyond_the_end_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")

    with pytest.raises(DataError, match="file ends 2 bytes before the end of its entry at byte 8"):
        ByteRange(tmp_path / "file", offset=8, length=4).read()


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot read .*gone.jpg: No such file"):
        ByteRange(tmp_path / "gone.jpg").read()


def test_a_record_reads_its_image_and_masks(tmp_path):
    masks = [rectangle((30, 40), 4, 6, 30, 16), rectangle((30, 40), 39, 29, 40, 30)]
    write_pair(tmp_path / "a", (30, 40), masks)
    record = record_of(tmp_path / "a")

    image, rles = record.read_image(), record.read_masks((30, 40))

    assert image.shape == (30, 40, 3)
    assert image.dtype == np.uint8
    assert [decode_rle(rle).tolist() for rle in rles] == [mask.tolist() for mask in masks]


def test_a_record_survives_pickling_and_is_small(tmp_path):
    record = record_of("/data/pets/a")

    assert pickle.loads(pickle.dumps(record)) == record
    assert len(pickle.dumps(record)) < 400  # millions of them travel to every worker


def test_a_record_without_annotations_has_no_masks():
    assert ImageRecord("a", "d", ByteRange("a.jpg")).read_masks((30, 40)) == []


def test_a_broken_image_is_named_by_path_and_record(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"not an image")

    with pytest.raises(ImageError, match=r"a\.jpg \[pets/a\]"):
        record_of(tmp_path / "a").read_image()


def test_crowds_and_empty_masks_are_left_out():
    document = sa1b_json([rectangle((30, 40), 0, 0, 9, 9)] * 3, (30, 40))
    document["annotations"][0]["iscrowd"] = 1
    document["annotations"][2]["iscrowd"] = 0
    document["annotations"].append({"segmentation": {"size": [30, 40], "counts": [1200]}})

    assert len(inline(document).read_masks((30, 40))) == 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"annotations": [', "not valid JSON"),
        (b"\xff\xfe\x00garbage", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "must hold a JSON object, got a list"),
        (b'{"image": {}}', "no list 'annotations'"),
        (b'{"annotations": [7]}', "annotation 0 must be a table, got 7"),
        (b'{"annotations": [{}]}', "annotation 0: segmentation must be"),
    ],
)
def test_annotations_that_are_no_sa1b_json_are_refused_with_their_path(tmp_path, data, reason):
    (tmp_path / "a.json").write_bytes(data)

    with pytest.raises(DataError, match=rf"a\.json \[pets/a\].*{reason}"):
        record_of(tmp_path / "a").read_masks((30, 40))


def test_annotations_of_another_size_are_refused():
    document = {"image": {"height": 40, "width": 30}, "annotations": []}

    with pytest.raises(DataError, match=r"40 x 30 \(height x width\).*decodes to 30 x 40"):
        inline(document).read_masks((30, 40))


def test_the_second_annotation_is_named_when_it_is_the_broken_one():
    document = sa1b_json([rectangle((30, 40), 0, 0, 9, 9)], (30, 40))
    document["annotations"].append({"segmentation": rle_json(np.ones((31, 40)))})

    with pytest.raises(DataError, match=r"all\.json \[a\]: annotation 1: .*\[31, 40\]"):
        inline(document).read_masks((30, 40))
