import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import RLELossless

from rfxray.data import radiograph
from rfxray.data.radiograph import Refused
from tests.rfxray.data.radiographs import colour, dicom, eight, save

# ---------------------------------------------------------------------------------------------
# Geometry


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(32, 400),
    aspect=st.floats(0.25, 4.0),
    size=st.integers(16, 300),
    seed=st.integers(0, 9),
)
def test_aspect_ratio_is_kept_and_padding_is_black(height, aspect, size, seed):
    width = min(max(32, round(height * aspect)), 4 * height)
    image = np.random.default_rng(seed).uniform(0.5, 1, (height, width)).astype(np.float32)
    square, (top, left, new_height, new_width) = radiograph.to_square(image, size)
    assert square.shape == (size, size)
    assert max(new_height, new_width) == size
    # the shorter side is within half a pixel of its exact length
    shorter, longer = sorted((height, width))
    assert abs(min(new_height, new_width) - size * shorter / longer) <= 0.5
    assert (new_height <= new_width) == (height <= width) or new_height == new_width
    inside = np.zeros((size, size), bool)
    inside[top : top + new_height, left : left + new_width] = True
    assert inside.sum() == new_height * new_width
    assert (square[~inside] == 0).all()
    assert (square[inside] >= 0.49).all()
    assert abs(top - (size - top - new_height)) <= 1
    assert abs(left - (size - left - new_width)) <= 1
    # area averaging keeps the mean, and linear enlargement nearly does
    assert abs(square[inside].mean() - image.mean()) < 0.02


def test_downscaling_is_antialiased():
    stripes = np.tile(np.array([0, 1], np.float32), (512, 256))
    square, _ = radiograph.to_square(stripes, 64)
    np.testing.assert_allclose(square, 0.5, atol=1e-6)


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


# ---------------------------------------------------------------------------------------------
# Intensity


def test_normalisation_is_monotone_and_uses_the_full_range(chest):
    image = radiograph.normalise(chest.astype(np.float32))
    order = np.argsort(chest, axis=None)
    assert (np.diff(image.ravel()[order]) >= 0).all()
    assert image.min() == 0
    assert image.max() == 1
    assert 0.005 < (image == 0).mean() < 0.03
    assert 0.005 < (image == 1).mean() < 0.03


@pytest.mark.parametrize("gain", [1.0, 0.25, 7.0])
@pytest.mark.parametrize("offset", [0.0, -1024.0, 9000.0])
def test_normalisation_ignores_gain_and_offset(chest, gain, offset):
    plain = radiograph.normalise(chest.astype(np.float32))
    np.testing.assert_allclose(
        radiograph.normalise(chest * np.float32(gain) + offset), plain, atol=1e-4
    )


def test_markers_and_padding_do_not_change_the_contrast(chest):
    plain = radiograph.normalise(chest.astype(np.float32))
    dressed = np.zeros((300, 160), np.float32)
    dressed[50:250] = chest
    dressed[60:75, 5:20] = 65535.0  # a burned-in letter, much brighter than tissue
    image = radiograph.normalise(dressed)[50:250]
    tissue = np.ones_like(plain, bool)
    tissue[10:25, 5:20] = False
    assert np.abs(image - plain)[tissue].max() < 0.05


@pytest.mark.parametrize("shift", [0, 2])  # 12 bits, 10 bits
@pytest.mark.parametrize("value", [65535, 16383])
@pytest.mark.parametrize("stamp", [np.s_[100, 80], np.s_[10:25, 5:20]])
def test_outlier_pixels_do_not_change_the_rest_of_the_image(chest, shift, value, stamp):
    film = (chest >> shift).astype(np.float32)
    stamped = film.copy()
    stamped[stamp] = value
    tissue = stamped == film
    difference = np.abs(radiograph.normalise(stamped) - radiograph.normalise(film))
    assert difference[tissue].max() < 0.02
    assert difference[tissue].mean() < 0.002
    cold = film + 30_000
    cold[stamp] = 0
    difference = np.abs(radiograph.normalise(cold) - radiograph.normalise(film))
    assert difference[tissue].max() < 0.02


def test_image_without_outliers_keeps_its_range(chest):
    for picture in (chest, eight(chest), np.pad(chest, 60), 4095 - np.pad(chest, 60)):
        pixels = picture.astype(np.float32)
        reach = float(pixels.min()), float(pixels.max())
        assert radiograph._reach(pixels, *reach) == reach


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


# ---------------------------------------------------------------------------------------------
# Formats


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
