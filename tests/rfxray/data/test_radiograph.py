import io
import os
import socket

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import RLELossless

from rfxray.data import radiograph
from rfxray.data.radiograph import Refused
from tests.rfxray.data.radiographs import colour, dicom, eight, save


def test_orientation_is_kept_and_exif_is_applied(chest, tmp_path):
    chest = chest.copy()
    chest[:40, :40] = 4000  # a bright upper left corner
    image = radiograph.ingest(save(tmp_path / "a.png", chest), 100)["image"]
    corners = [image[:20, 10:30], image[:20, 70:90], image[80:, 10:30], image[80:, 70:90]]
    assert np.argmax([corner.mean() for corner in corners]) == 0
    # the EXIF orientation is applied, as viewers do
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = save(tmp_path / "b.jpg", eight(chest)[::-1, ::-1], exif=exif, quality=98)
    upright = save(tmp_path / "c.jpg", eight(chest), quality=98)
    difference = radiograph.ingest(turned, 64)["image"] - radiograph.ingest(upright, 64)[
        "image"
    ].astype(int)
    assert np.abs(difference).mean() < 1000


def test_twelve_bit_and_eight_bit_files_give_the_same_image(chest, tmp_path):
    twelve = radiograph.ingest(save(tmp_path / "a.png", chest), 64)
    eight_bits = radiograph.ingest(save(tmp_path / "b.png", eight(chest)), 64)
    difference = twelve["image"].astype(int) - eight_bits["image"].astype(int)
    assert np.abs(difference).max() < 65535 / 50
    assert (twelve["original_bits"], eight_bits["original_bits"]) == (16, 8)
    assert twelve["image"].dtype == np.uint16
    assert twelve["image"].max() > 60000
    assert twelve["original_size"] == (200, 160)
    assert twelve["content_box"] == (0, 6, 64, 51)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_grey_image_in_a_colour_mode_is_read_as_grey(chest, tmp_path, mode):
    grey = Image.fromarray(eight(chest))
    grey.convert(mode).save(tmp_path / "a.png")
    grey.save(tmp_path / "b.png")
    found, expected = (radiograph.ingest(tmp_path / f"{x}.png", 64)["image"] for x in "ab")
    np.testing.assert_array_equal(found, expected)


def test_grey_jpeg_in_colour_mode_is_read(chest, tmp_path):
    Image.fromarray(eight(chest)).convert("RGB").save(tmp_path / "a.jpg", quality=95)
    assert radiograph.ingest(tmp_path / "a.jpg", 64)["image"].max() > 60000


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("colour.jpg", lambda p, c: save(p, colour(c)), "colour: in "),
        ("colour.png", lambda p, c: save(p, colour(c)), "colour: in "),
        (
            "cmyk.jpg",
            lambda p, c: Image.fromarray(eight(c)).convert("CMYK").save(p),
            "colour: CMYK",
        ),
        ("bits.png", lambda p, c: Image.fromarray(c > 2000).save(p), "only black and white"),
        ("two.png", lambda p, c: save(p, eight(c) // 255 * 255), "blank: one grey value"),
        ("black.png", lambda p, c: save(p, c * 0), "blank: one grey value"),
        ("binary.png", lambda p, c: save(p, (c > 2000) * np.uint8(255)), "only black and white"),
        ("strip.png", lambda p, c: save(p, np.tile(c[:40], (1, 3))), "too narrow: 40 × 480"),
        ("small.png", lambda p, c: save(p, c[:31, :60]), "too small: 31 × 60"),
        ("empty.png", lambda p, c: p.write_bytes(b""), "an empty file"),
        ("text.png", lambda p, c: p.write_text("not found"), "neither PNG, JPEG nor DICOM"),
        ("text.dcm", lambda p, c: p.write_text("not found"), "a DICOM file without pixel data"),
        (
            "glass.png",
            lambda p, c: save(p, np.stack([eight(c), eight(c)], -1)),
            "partly transparent",
        ),
    ],
)
def test_files_that_are_not_radiographs_are_refused(chest, tmp_path, name, make, reason):
    make(tmp_path / name, chest)
    with pytest.raises(Refused, match=reason):
        radiograph.ingest(tmp_path / name, 64)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(Refused, match="unreadable: No such file"):
        radiograph.read(tmp_path / "a.png")


def test_sixteen_bit_colour_png_is_refused(chest, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.stack([chest] * 3, -1))
    with pytest.raises(Refused, match="16-bit PNG in colour"):
        radiograph.read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "dcm", "rle.dcm"])
@pytest.mark.parametrize("share", [0.15, 0.5, 0.9, 0.99])
def test_truncated_file_is_refused(chest, tmp_path, suffix, share):
    whole = tmp_path / f"whole.{suffix}"
    if suffix.endswith("dcm"):
        dicom(whole, chest, syntax=RLELossless if suffix == "rle.dcm" else None)
    else:
        save(whole, eight(chest))
    radiograph.read(whole)
    torn = tmp_path / f"torn.{suffix}"
    torn.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    with pytest.raises(Refused, match=r"does not decode|torn"):
        radiograph.read(torn)


def test_flipped_bit_in_a_png_is_refused(chest, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(chest).save(buffer, "PNG")
    for place in np.linspace(60, len(buffer.getvalue()) - 30, 20).astype(int):
        data = bytearray(buffer.getvalue())
        data[place] ^= 16
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(Refused, match="does not decode"):
            radiograph.read(tmp_path / "a.png")


def test_versions_list_every_decoder():
    found = radiograph.versions()
    assert set(found) >= {"pillow", "opencv-python-headless", "pydicom", "python-gdcm"}
    assert "absent" not in (found["pillow"], found["pydicom"], found["numpy"])


@pytest.mark.parametrize("name", ["a", "a.png", "a.dcm"])
def test_what_is_not_a_regular_file_is_refused_without_opening_it(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(Refused, match="not a regular file: a FIFO"):
        radiograph.read(tmp_path / name)
    (tmp_path / "link").symlink_to(name)
    with pytest.raises(Refused, match="not a regular file: a FIFO"):
        radiograph.read(tmp_path / "link")


def test_sockets_devices_and_folders_are_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tmp_path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/s")  # the path of a socket is at most 108 bytes
        os.close(here)
        for path, kind in (
            (tmp_path / "s", "socket"),
            ("/dev/zero", "device"),
            (tmp_path, "folder"),
        ):
            with pytest.raises(Refused, match=f"not a regular file: a {kind}"):
                radiograph.read(path)


def test_colour_png_of_grey_is_as_its_grey_within_a_level_of_difference(chest, tmp_path):
    grey = eight(chest)
    channels = np.stack([grey, grey, grey], -1)
    channels[0, 0] += np.array([0, 1, 2], np.uint8)  # read as their mean
    found = radiograph.read(save(tmp_path / "a.png", channels)).pixels
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.ravel()[1:], grey.ravel()[1:])
    assert found[0, 0] == int(grey[0, 0]) + 1
