import io

import cv2
import numpy as np
import pytest
from PIL import Image

from edgeseg.errors import ImageError
from edgeseg.images import decode_image, read_image


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_an_image_is_rgb_with_height_first():
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 2] = (250, 20, 1)

    decoded = decode_image(saved(Image.fromarray(image), "PNG"), "a.png")

    np.testing.assert_array_equal(decoded, image)
    assert decoded.dtype == np.uint8


def test_a_file_is_read_by_path(tmp_path):
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(image).save(tmp_path / "Übung 1.bmp")

    np.testing.assert_array_equal(read_image(tmp_path / "Übung 1.bmp"), image)
    np.testing.assert_array_equal(read_image(str(tmp_path / "Übung 1.bmp")), image)


def test_a_grey_image_has_three_equal_channels():
    decoded = decode_image(png(np.uint8([[0, 7, 255]])), "grey")

    assert decoded.tolist() == [[[0] * 3, [7] * 3, [255] * 3]]


def test_sixteen_bits_become_the_upper_eight():
    decoded = decode_image(png(np.uint16([[0x0000, 0x0280, 0xFF00]])), "deep")

    assert decoded[..., 0].tolist() == [[0, 2, 255]]
    assert decoded.shape == (1, 3, 3)


def test_alpha_is_dropped():
    rgba = np.uint8([[[10, 20, 30, 0], [40, 50, 60, 128]]])

    decoded = decode_image(saved(Image.fromarray(rgba), "PNG"), "rgba")

    assert decoded.tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_palette_images_show_their_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 100, 50])
    image.putpixel((1, 0), 1)

    decoded = decode_image(saved(image, "PNG"), "palette")

    assert decoded.tolist() == [[[200, 0, 0], [0, 100, 50]]]


def test_a_photo_is_turned_as_its_exif_orientation_says():
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16, 0] = 255  # left half red
    stored[:, 16:, 2] = 255  # right half blue
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise: left comes to the top
    data = saved(Image.fromarray(stored), "JPEG", exif=exif, subsampling=0, quality=95)

    decoded = decode_image(data, "phone.jpg").astype(int)

    assert decoded.shape == (32, 16, 3)
    np.testing.assert_allclose(decoded[:14], np.broadcast_to([254, 0, 0], (14, 16, 3)), atol=4)
    np.testing.assert_allclose(decoded[18:], np.broadcast_to([0, 0, 254], (14, 16, 3)), atol=4)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_half_a_file_is_refused_with_its_name(form, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), form)

    with pytest.raises(ImageError, match=r"decode half\.img \(\d+ bytes\); .* complete JPEG"):
        decode_image(data[: len(data) // 2], "half.img")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()

    with pytest.raises(ImageError, match=r"empty\.jpg: the file is empty; copy it again"):
        read_image(tmp_path / "empty.jpg")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image at all")

    with pytest.raises(ImageError, match=r"notes\.txt \(15 bytes\); it must be a complete JPEG"):
        read_image(tmp_path / "notes.txt")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ImageError, match=r"cannot read .*gone\.jpg: No such file.*; give the path"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="cannot read .*: Is a directory"):
        read_image(tmp_path)


def test_an_error_inside_the_decoder_is_one_of_ours(monkeypatch):
    def too_large(buffer, flags):
        raise cv2.error("pixels <= CV_IO_MAX_IMAGE_PIXELS")

    monkeypatch.setattr(cv2, "imdecode", too_large)

    with pytest.raises(ImageError, match=r"cannot decode huge\.png: .*; save it as an ordinary"):
        decode_image(b"data", "huge.png")
