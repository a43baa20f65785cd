import numpy as np
import pytest
from coremltools.libmilstoragepython import _BlobStorageReader, _BlobStorageWriter

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.element_types import element_type, unpack_elements
from edgeseg.exporter.mil.weight_file import WeightFile

# How coremltools writes, the name of its method, and values that reach both ends of the type.
STORED = {
    "fp32": ("float", np.array([1.5, -2.0, 3.25], np.float32)),
    "int8": ("int8", np.array([-128, 0, 127], np.int8)),
    "uint8": ("uint8", np.array([0, 200, 255], np.uint8)),
    "int16": ("int16", np.array([-32768, 5, 32767], np.int16)),
    "uint16": ("uint16", np.array([0, 5, 65535], np.uint16)),
    "int32": ("int32", np.array([-7, 0, 2**31 - 1], np.int32)),
    "uint32": ("uint32", np.array([7, 0, 2**32 - 1], np.uint32)),
    "int4": ("int4", np.array([-8, -1, 0, 3, 7], np.int8)),
    "uint1": ("uint1", np.array([1, 0, 1, 1, 0, 0, 0, 0, 1], np.uint8)),
    "uint2": ("uint2", np.array([3, 0, 1, 2, 3], np.uint8)),
    "uint3": ("uint3", np.array([7, 0, 5, 1, 6], np.uint8)),
    "uint4": ("uint4", np.array([15, 0, 9], np.uint8)),
    "uint6": ("uint6", np.array([63, 0, 33, 1, 62], np.uint8)),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file that coremltools wrote, and the offset it gave for each element type."""
    path = tmp_path_factory.mktemp("weights") / "weight.bin"
    writer = _BlobStorageWriter(str(path))
    offsets = {
        dtype: getattr(writer, f"write_{method}_data")(values)
        for dtype, (method, values) in STORED.items()
    }
    del writer  # it finishes the file
    return path, offsets


@pytest.mark.parametrize("dtype", STORED)
def test_every_element_type_is_read_as_coremltools_wrote_it(written, dtype):
    path, offsets = written
    method, values = STORED[dtype]

    read = WeightFile(path).read(offsets[dtype], element_type(dtype), values.shape)

    assert read.tolist() == values.tolist()
    reader = getattr(_BlobStorageReader(str(path)), f"read_{method}_data")
    assert read.tolist() == reader(offsets[dtype]).tolist()


def test_half_precision_is_read_bit_by_bit(tmp_path):
    values = np.array([1.0, -65504.0, 6e-8, np.inf], np.float16)  # 6e-8 is subnormal
    writer = _BlobStorageWriter(str(tmp_path / "w.bin"))
    offset = writer.write_fp16_data(values.view(np.uint16))
    del writer

    read = WeightFile(tmp_path / "w.bin").read(offset, element_type("fp16"), (2, 2))

    np.testing.assert_array_equal(read, values.reshape(2, 2))
    assert read.dtype == np.float16


def test_packed_elements_run_across_bytes_from_the_lowest_bit():
    # Three 6-bit numbers, least significant bit first: 1 = 100000, 2 = 010000, 63 = 111111.
    # Byte 0 = 100000 01, byte 1 = 0000 1111, byte 2 = 11 and six unused bits.
    packed = bytes([0b10000001, 0b11110000, 0b00000011])

    assert unpack_elements(packed, element_type("uint6"), 3).tolist() == [1, 2, 63]


def test_bits_after_the_last_element_are_refused():
    with pytest.raises(ExportError, match="bits are set after 1 values of type uint4"):
        unpack_elements(bytes([0x1F]), element_type("uint4"), 1)


def test_each_changed_byte_outside_of_the_values_is_refused(tmp_path):
    path = tmp_path / "weight.bin"
    writer = _BlobStorageWriter(str(path))
    packed = writer.write_int4_data(STORED["int4"][1])  # 5 values in 3 bytes, 4 bits unused
    plain = writer.write_int8_data(STORED["int8"][1])
    del writer
    content = path.read_bytes()
    values = {packed + 64, packed + 65, packed + 66, plain + 64, plain + 65, plain + 66}

    for place in sorted(set(range(len(content))) - values):
        changed = bytearray(content)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(ExportError, match=r"weight\.bin: not a weight file as written"):
            read_both(path, packed, plain)


def read_both(path, packed, plain):
    file = WeightFile(path)
    file.read(packed, element_type("int4"), (5,))
    file.read(plain, element_type("int8"), (3,))


@pytest.mark.parametrize("size", [0, 63, 64, 100, 127, -1])
def test_file_that_was_cut_off_is_refused(written, tmp_path, size):
    (tmp_path / "cut.bin").write_bytes(written[0].read_bytes()[:size])

    with pytest.raises(ExportError, match="not a weight file as written"):
        WeightFile(tmp_path / "cut.bin")


def test_bytes_after_the_last_blob_are_refused(written, tmp_path):
    (tmp_path / "long.bin").write_bytes(written[0].read_bytes() + b"\0")

    with pytest.raises(ExportError, match="blobs end at byte"):
        WeightFile(tmp_path / "long.bin")


def test_reading_something_else_than_is_stored_is_refused(written):
    path, offsets = written
    file = WeightFile(path)

    with pytest.raises(ExportError, match="no blob is described at byte 65"):
        file.read(65, element_type("fp32"), (3,))
    with pytest.raises(ExportError, match=r"has type 4, the program declares uint8 \(type 3\)"):
        file.read(offsets["int8"], element_type("uint8"), (3,))
    with pytest.raises(ExportError, match="2 values of type fp32 are 8 bytes, got 12"):
        file.read(offsets["fp32"], element_type("fp32"), (2, 1))
    with pytest.raises(ExportError, match="leaves 4 bits unused"):  # 5 values are declared as 4
        file.read(offsets["int4"], element_type("int4"), (4,))


def test_missing_weight_file_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"weight\.bin: cannot read the weight file"):
        WeightFile(tmp_path / "weight.bin")


def test_unknown_element_type_is_refused_with_the_known_ones():
    with pytest.raises(ExportError, match="element type 13 is not supported; use one of bool"):
        element_type(13)  # bfloat16 in MIL.proto
