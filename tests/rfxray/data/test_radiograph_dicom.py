import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from rfxray.data import radiograph
from rfxray.data.radiograph import Refused
from tests.rfxray.data.radiographs import SYNTAXES, colour, compressed, dicom, eight, save


def test_pixels_and_canonical_fields_are_read(chest, tmp_path):
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


def test_spacing_falls_back_to_the_imager_then_to_zero(chest, tmp_path):
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


def test_window_and_rescale_follow_the_standard(chest, tmp_path):
    path = dicom(
        *(tmp_path / "a.dcm", chest),
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=[4000, 1],
        WindowWidth=[3000, 1],
    )
    pixels = radiograph.read(path).pixels
    # PS3.3 C.11.2.1.2.1 with the first window
    rescaled = chest * 2.0 - 1000
    expected = np.clip((rescaled - (4000 - 0.5)) / (3000 - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_voi_lut_is_applied(chest, tmp_path):
    lut = Dataset()
    lut.LUTDescriptor = [4096, 0, 16]
    lut.LUTData = (np.arange(4096) ** 2 // 256).astype("<u2").tobytes()
    path = dicom(tmp_path / "a.dcm", chest, VOILUTSequence=pydicom.Sequence([lut]))
    expected = (chest.astype(int) ** 2) // 256 / 65535
    np.testing.assert_allclose(radiograph.read(path).pixels, expected, atol=1e-6)


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
def test_window_that_shows_nothing_is_ignored(chest, tmp_path, window):
    path = dicom(tmp_path / "a.dcm", chest, **{"WindowCenter": 2000, **window})
    np.testing.assert_array_equal(radiograph.read(path).pixels, chest)


@pytest.mark.parametrize(
    "without", ["HighBit", "PixelRepresentation", "PhotometricInterpretation", "SamplesPerPixel"]
)
def test_missing_tag_gets_its_default(chest, tmp_path, without):
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
def test_empty_tag_is_treated_as_missing(chest, tmp_path, tags):
    path = dicom(tmp_path / "a.dcm", chest, **tags)
    np.testing.assert_array_equal(radiograph.read(path).pixels, chest)


def test_lower_case_monochrome1_is_inverted(chest, tmp_path):
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
        (lambda c: c, {"HighBit": 5}),  # impossible, so 11 is assumed
        (lambda c: overlaid(c, 15, 1), {}),  # overlay bits without a declaration
        (lambda c: overlaid(c, 15, 90), {"position": 15}),
        (lambda c: overlaid(c << 4, 2, 90), {"HighBit": 15, "position": 2}),
    ],
)
def test_stored_bits_are_found_at_any_position(chest, tmp_path, stored, tags, big_endian):
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
def test_signed_pixels_with_or_without_sign_extension_are_read(chest, tmp_path, extended):
    signed = chest.astype(np.int16) - 2048
    words = signed if extended else (signed & 0xFFF).astype(np.int16)
    np.testing.assert_array_equal(radiograph.read(dicom(tmp_path / "a.dcm", words)).pixels, signed)


@pytest.mark.parametrize(
    ("stored", "tags"),
    [
        (lambda c: c, {"BitsStored": 10, "HighBit": 9}),
        (lambda c: c << 4, {}),
        (lambda c: c, {"HighBit": 15}),  # not left-aligned
        (lambda c: overlaid(c, 12, 3), {}),
    ],
)
def test_values_beyond_the_stored_bits_are_refused(chest, tmp_path, stored, tags):
    path = dicom(tmp_path / "a.dcm", stored(chest), **tags)
    with pytest.raises(Refused, match=r"values beyond BitsStored: in \d"):
        radiograph.read(path)


def test_signed_pixels_are_read(chest, tmp_path):
    signed = chest.astype(np.int16) - 2048
    path = dicom(tmp_path / "a.dcm", signed, BitsStored=16, HighBit=15)
    np.testing.assert_array_equal(radiograph.read(path).pixels, signed)


@pytest.mark.parametrize("syntax", ["RLELossless", *SYNTAXES])
def test_compressed_dicom_is_read(chest, tmp_path, syntax):
    path = compressed(dicom(tmp_path / "a.dcm", chest), tmp_path / "b.dcm", syntax)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(radiograph.read(path).pixels, chest)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(Refused, match=r"does not decode|torn"):
        radiograph.read(path)


def test_multiple_frames_and_colour_are_refused(chest, tmp_path):
    frames = dicom(tmp_path / "a.dcm", chest, NumberOfFrames=2)
    with pytest.raises(Refused, match="several frames: 2"):
        radiograph.read(frames)
    stamped = dicom(tmp_path / "b.dcm", colour(chest), "RGB")
    with pytest.raises(Refused, match="colour: in "):
        radiograph.read(stamped)
    grey = dicom(tmp_path / "c.dcm", np.stack([eight(chest)] * 3, -1), "RGB")
    np.testing.assert_array_equal(radiograph.read(grey).pixels, eight(chest))
