import io

import gdcm
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from rfxray.data import radiograph
from rfxray.data.radiograph import Refused


@pytest.fixture(scope="module")
def chest():
    """[200, 160] uint16 of 12 bits: two dark lungs in a bright body, with noise."""
    y, x = np.mgrid[0:200, 0:160]
    lungs = sum(np.exp(-(((x - c) / 25) ** 2 + ((y - 90) / 60) ** 2)) for c in (45, 115))
    noise = np.random.default_rng(0).normal(0, 20, y.shape)
    return np.clip(3000 - 2000 * lungs + 2 * y + noise, 0, 4095).astype(np.uint16)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def eight(chest):
    return (chest >> 4).astype(np.uint8)


def dicom(path, pixels, photometric="MONOCHROME2", without=(), syntax=None, **tags):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset.PatientName = "Doe^Jane"
    dataset.Rows, dataset.Columns = pixels.shape[-2:] if pixels.ndim == 2 else pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = min(12, dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PixelData = pixels.tobytes()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    if syntax:
        dataset.compress(syntax, encoding_plugin="pydicom")
    for tag in without:
        delattr(dataset, tag)
    dataset.save_as(path, enforce_file_format=True)
    return path


# ---------------------------------------------------------------------------------------------
# Geometry


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(32, 400),
    aspect=st.floats(0.25, 4.0),
    size=st.integers(16, 300),
    seed=st.integers(0, 9),
)
def test_aspect_is_kept_and_the_rest_is_black(height, aspect, size, seed):
    width = min(max(32, round(height * aspect)), 4 * height)
    image = np.random.default_rng(seed).uniform(0.5, 1, (height, width)).astype(np.float32)
    square, (top, left, new_height, new_width) = radiograph.to_square(image, size)
    assert square.shape == (size, size)
    assert max(new_height, new_width) == size
    # the shorter side is within half a pixel of the exact aspect
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
    # area averaging keeps the mean; a linear enlargement nearly so
    assert abs(square[inside].mean() - image.mean()) < 0.02


def test_downscaling_is_antialiased():
    stripes = np.tile(np.array([0, 1], np.float32), (512, 256))
    square, _ = radiograph.to_square(stripes, 64)
    np.testing.assert_allclose(square, 0.5, atol=1e-6)


def test_nothing_is_mirrored_or_turned(chest, tmp_path):
    chest = chest.copy()
    chest[:40, :40] = 4000  # a bright upper left
    image = radiograph.ingest(save(tmp_path / "a.png", chest), 100)["image"]
    corners = [image[:20, 10:30], image[:20, 70:90], image[80:, 10:30], image[80:, 70:90]]
    assert np.argmax([corner.mean() for corner in corners]) == 0
    # a viewer turns a picture with an EXIF orientation, and so do we
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


def test_normalisation_is_monotone_and_full(chest):
    image = radiograph.normalise(chest.astype(np.float32))
    order = np.argsort(chest, axis=None)
    assert (np.diff(image.ravel()[order]) >= 0).all()
    assert image.min() == 0
    assert image.max() == 1
    assert 0.005 < (image == 0).mean() < 0.03
    assert 0.005 < (image == 1).mean() < 0.03


@pytest.mark.parametrize("gain", [1.0, 0.25, 7.0])
@pytest.mark.parametrize("offset", [0.0, -1024.0, 9000.0])
def test_gain_and_offset_do_not_matter(chest, gain, offset):
    plain = radiograph.normalise(chest.astype(np.float32))
    np.testing.assert_allclose(
        radiograph.normalise(chest * np.float32(gain) + offset), plain, atol=1e-4
    )


def test_markers_and_padding_do_not_decide_the_contrast(chest):
    plain = radiograph.normalise(chest.astype(np.float32))
    dressed = np.zeros((300, 160), np.float32)
    dressed[50:250] = chest
    dressed[60:75, 5:20] = 65535.0  # a burned-in letter, far above all tissue
    image = radiograph.normalise(dressed)[50:250]
    tissue = np.ones_like(plain, bool)
    tissue[10:25, 5:20] = False
    assert np.abs(image - plain)[tissue].max() < 0.05


@pytest.mark.parametrize("shift", [0, 2])  # 12 bits, 10 bits
@pytest.mark.parametrize("value", [65535, 16383])
@pytest.mark.parametrize("stamp", [np.s_[100, 80], np.s_[10:25, 5:20]])
def test_a_hot_pixel_or_a_marker_in_a_shallow_film_changes_nothing_else(chest, shift, value, stamp):
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


def test_a_picture_without_outliers_keeps_its_reach(chest):
    for picture in (chest, eight(chest), np.pad(chest, 60), 4095 - np.pad(chest, 60)):
        pixels = picture.astype(np.float32)
        reach = float(pixels.min()), float(pixels.max())
        assert radiograph._reach(pixels, *reach) == reach


def test_twelve_bits_in_sixteen_come_out_as_eight_do(chest, tmp_path):
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
def test_grey_in_colour_clothes_is_grey(chest, tmp_path, mode):
    grey = Image.fromarray(eight(chest))
    grey.convert(mode).save(tmp_path / "a.png")
    grey.save(tmp_path / "b.png")
    found, expected = (radiograph.ingest(tmp_path / f"{x}.png", 64)["image"] for x in "ab")
    np.testing.assert_array_equal(found, expected)


def test_grey_colour_jpeg_is_read(chest, tmp_path):
    Image.fromarray(eight(chest)).convert("RGB").save(tmp_path / "a.jpg", quality=95)
    assert radiograph.ingest(tmp_path / "a.jpg", 64)["image"].max() > 60000


def colour(chest):
    return np.stack([eight(chest), eight(chest), np.full_like(eight(chest), 30)], -1)


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
def test_what_is_no_radiograph_is_refused(chest, tmp_path, name, make, reason):
    make(tmp_path / name, chest)
    with pytest.raises(Refused, match=reason):
        radiograph.ingest(tmp_path / name, 64)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(Refused, match="unreadable: No such file"):
        radiograph.read(tmp_path / "a.png")


def test_sixteen_bit_colour_png_is_refused_not_cut_to_eight(chest, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.stack([chest] * 3, -1))
    with pytest.raises(Refused, match="16-bit PNG in colour"):
        radiograph.read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "dcm", "rle.dcm"])
@pytest.mark.parametrize("share", [0.15, 0.5, 0.9, 0.99])
def test_a_torn_file_is_refused_never_filled_with_grey(chest, tmp_path, suffix, share):
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


def test_a_flipped_bit_in_a_png_is_refused(chest, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(chest).save(buffer, "PNG")
    for place in np.linspace(60, len(buffer.getvalue()) - 30, 20).astype(int):
        data = bytearray(buffer.getvalue())
        data[place] ^= 16
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(Refused, match="does not decode"):
            radiograph.read(tmp_path / "a.png")


# ---------------------------------------------------------------------------------------------
# DICOM


def test_dicom_pixels_and_the_four_canonical_tags(chest, tmp_path):
    path = dicom(
        tmp_path / "a.dcm", chest, PixelSpacing=[0.2, 0.201], ImageLaterality="R", Laterality="L"
    )
    fields = radiograph.ingest(path, 64)
    expected = radiograph.ingest(save(tmp_path / "a.png", chest), 64)
    np.testing.assert_array_equal(fields["image"], expected["image"])
    assert fields["original_bits"] == 12
    assert fields["pixel_spacing"] == (0.2, 0.201)
    assert fields["laterality"] == "R"
    assert set(fields) == {
        *("image", "content_box", "original_size", "original_bits", "pixel_spacing", "laterality")
    }


def test_spacing_falls_back_to_the_imager_and_then_to_nothing(chest, tmp_path):
    imager = dicom(tmp_path / "a.dcm", chest, ImagerPixelSpacing=[0.1, 0.1], PixelSpacing=[0, 0])
    assert radiograph.read(imager).pixel_spacing == (0.1, 0.1)
    assert radiograph.read(dicom(tmp_path / "b.dcm", chest)).pixel_spacing == (0.0, 0.0)
    assert radiograph.read(dicom(tmp_path / "c.dcm", chest, Laterality="B")).laterality == ""


def test_monochrome1_is_inverted(chest, tmp_path):
    negative = dicom(tmp_path / "a.dcm", 4095 - chest, "MONOCHROME1")
    positive = dicom(tmp_path / "b.dcm", chest)
    np.testing.assert_array_equal(
        radiograph.ingest(negative, 64)["image"], radiograph.ingest(positive, 64)["image"]
    )


def test_window_and_rescale_act_as_the_standard_says(chest, tmp_path):
    path = dicom(
        *(tmp_path / "a.dcm", chest),
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=[3000, 1],
        WindowWidth=[2000, 1],
    )
    pixels = radiograph.read(path).pixels
    # PS3.3 C.11.2.1.2.1, of the first window; the output range is that of the rescaled bits
    rescaled = chest * 2.0 - 1000
    expected = np.clip((rescaled - (3000 - 0.5)) / (2000 - 1) + 0.5, 0, 1)
    scaled = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    np.testing.assert_allclose(scaled, expected, atol=1e-5)


def test_voi_lut_is_applied(chest, tmp_path):
    lut = Dataset()
    lut.LUTDescriptor = [4096, 0, 16]
    lut.LUTData = (np.arange(4096) ** 2 // 256).astype("<u2").tobytes()
    path = dicom(tmp_path / "a.dcm", chest, VOILUTSequence=pydicom.Sequence([lut]))
    np.testing.assert_array_equal(radiograph.read(path).pixels, (chest.astype(int) ** 2) // 256)


@pytest.mark.parametrize(
    "window",
    [
        {"WindowWidth": 0},
        {"WindowWidth": 100, "WindowCenter": 60000},
        {"WindowWidth": None},
        {"WindowWidth": 0, "VOILUTSequence": pydicom.Sequence([])},
        {"WindowWidth": 0, "VOILUTSequence": pydicom.Sequence([Dataset()])},
    ],
)
def test_a_window_that_shows_nothing_is_left_out(chest, tmp_path, window):
    path = dicom(tmp_path / "a.dcm", chest, **{"WindowCenter": 2000, **window})
    np.testing.assert_array_equal(radiograph.read(path).pixels, chest)


@pytest.mark.parametrize(
    "without", ["HighBit", "PixelRepresentation", "PhotometricInterpretation", "SamplesPerPixel"]
)
def test_a_missing_tag_is_filled_in(chest, tmp_path, without):
    path = dicom(tmp_path / "a.dcm", chest, without=[without])
    np.testing.assert_array_equal(radiograph.read(path).pixels, chest)


@pytest.mark.parametrize(
    "tags",
    [
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"RescaleSlope": None, "RescaleIntercept": 0},
        {"PhotometricInterpretation": ""},
        {"PhotometricInterpretation": "monochrome2"},
        {"HighBit": None},
    ],
)
def test_a_void_tag_is_a_missing_one(chest, tmp_path, tags):
    path = dicom(tmp_path / "a.dcm", chest, **tags)
    np.testing.assert_array_equal(radiograph.read(path).pixels, chest)


def test_a_negative_in_lower_case_is_inverted(chest, tmp_path):
    path = dicom(tmp_path / "a.dcm", 4095 - chest, PhotometricInterpretation="monochrome1 ")
    pixels = radiograph.read(path).pixels
    np.testing.assert_array_equal(pixels - pixels.min(), chest - chest.min())


def overlaid(chest, bit, rows):
    words = chest.copy()
    words[:rows] |= 1 << bit
    return words


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("stored", "tags"),
    [
        (lambda c: c << 4, {"HighBit": 15}),
        (lambda c: c << 2, {"HighBit": 13}),
        (lambda c: c, {"HighBit": 5}),  # impossible, so it is taken for 11
        (lambda c: overlaid(c, 15, 1), {}),  # declared by nobody, as it happens
        (lambda c: overlaid(c, 15, 90), {"position": 15}),
        (lambda c: overlaid(c << 4, 2, 90), {"HighBit": 15, "position": 2}),
    ],
)
def test_stored_bits_are_found_wherever_they_lie(chest, tmp_path, stored, tags, big_endian):
    words = stored(chest)
    assert words.dtype == np.uint16
    path = dicom(tmp_path / "a.dcm", words, HighBit=tags.get("HighBit", 11))
    dataset = pydicom.dcmread(path)
    if "position" in tags:
        dataset.add_new((0x6000, 0x0102), "US", tags["position"])
    if big_endian:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        dataset.PixelData = words.byteswap().tobytes()
    pydicom.dcmwrite(path, dataset, **({} if big_endian else {"enforce_file_format": True}))
    np.testing.assert_array_equal(radiograph.read(path).pixels, chest)


@pytest.mark.parametrize("extended", [True, False])
def test_a_sign_may_fill_the_unused_bits_or_not(chest, tmp_path, extended):
    signed = chest.astype(np.int16) - 2048
    words = signed if extended else (signed & 0xFFF).astype(np.int16)
    np.testing.assert_array_equal(radiograph.read(dicom(tmp_path / "a.dcm", words)).pixels, signed)


@pytest.mark.parametrize(
    ("stored", "tags"),
    [
        (lambda c: c, {"BitsStored": 10, "HighBit": 9}),
        (lambda c: c << 4, {}),
        (lambda c: c, {"HighBit": 15}),  # not left-aligned after all
        (lambda c: overlaid(c, 12, 3), {}),
    ],
)
def test_values_beyond_the_stored_bits_are_refused_not_wrapped(chest, tmp_path, stored, tags):
    path = dicom(tmp_path / "a.dcm", stored(chest), **tags)
    with pytest.raises(Refused, match=r"values beyond BitsStored: in \d"):
        radiograph.read(path)


def test_signed_pixels_are_read(chest, tmp_path):
    signed = chest.astype(np.int16) - 2048
    path = dicom(tmp_path / "a.dcm", signed, BitsStored=16, HighBit=15)
    np.testing.assert_array_equal(radiograph.read(path).pixels, signed)


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"]
)
def test_compressed_dicom_is_read(chest, tmp_path, syntax):
    plain, path = dicom(tmp_path / "a.dcm", chest), tmp_path / "b.dcm"
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(radiograph.read(path).pixels, chest)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(Refused, match=r"does not decode|torn"):
        radiograph.read(path)


def test_several_frames_and_colour_are_refused(chest, tmp_path):
    frames = dicom(tmp_path / "a.dcm", chest, NumberOfFrames=2)
    with pytest.raises(Refused, match="several frames: 2"):
        radiograph.read(frames)
    stamped = dicom(tmp_path / "b.dcm", colour(chest), "RGB")
    with pytest.raises(Refused, match="colour: in "):
        radiograph.read(stamped)
    grey = dicom(tmp_path / "c.dcm", np.stack([eight(chest)] * 3, -1), "RGB")
    np.testing.assert_array_equal(radiograph.read(grey).pixels, eight(chest))


def test_versions_name_every_decoder():
    found = radiograph.versions()
    assert set(found) >= {"pillow", "opencv-python-headless", "pydicom", "python-gdcm"}
    assert "absent" not in (found["pillow"], found["pydicom"], found["numpy"])
