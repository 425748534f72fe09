"""Headers as they are in files: other body parts, commas, tables, functions; pydicom's files."""

import gzip
import pathlib
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from rfxray.data import dicom_header, radiograph
from rfxray.data.radiograph import Refused
from tests.rfxray.data.radiographs import dicom


def raw(path, **texts):
    """Writes texts into decimal tags as a careless writer does."""
    dataset = pydicom.dcmread(path)
    for keyword, text in texts.items():
        tag = Tag(keyword)
        value = text.encode() + b" " * (len(text) % 2)
        dataset._dict[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)
    dataset.save_as(path)
    return path


# ---------------------------------------------------------------------------------------------
# What is not a radiograph of a chest


@pytest.mark.parametrize(
    "part",
    [
        *("KNEE", "HAND", "SKULL", "FOOT", "ANKLE", "ABDOMEN", "PELVIS", "HIP", "CSPINE"),
        *("LSPINE", "TSPINE", "SHOULDER", "knee", " KNEE ", "LEFT KNEE", "HANDS", "L-SPINE"),
        *("C_SPINE", "KNEE 2 VIEWS", "FEET", "LUMBAR SPINE", "HIP_LEFT", "EXTREMITY"),
    ],
)
def test_other_body_part_is_refused(chest, tmp_path, part):
    path = dicom(tmp_path / "a.dcm", chest, BodyPartExamined=part)
    with pytest.raises(Refused, match=r"not a chest: body part \w+"):
        radiograph.read(path)


@pytest.mark.parametrize(
    "part",
    [
        *("CHEST", "chest", "PORT CHEST", "CHEST_TO_ABDOMEN", "CHESTABDOMEN", "NECKCHEST"),
        *("THORAX", "TORAX", "RIBS", "RIB", "LUNG", "STERNUM", "", "UNKNOWN", "TRUNK", "Brustkorb"),
        "WHOLEBODY",
    ],
)
def test_chest_and_unknown_body_parts_pass(chest, tmp_path, part):
    path = dicom(tmp_path / "a.dcm", chest, BodyPartExamined=part)
    np.testing.assert_array_equal(radiograph.read(path).pixels, chest)


@pytest.mark.parametrize("modality", ["CT", "ct", " mr ", "Mg", "PT"])
def test_other_modality_is_refused(chest, tmp_path, modality):
    with pytest.raises(Refused, match="not a radiograph: modality"):
        radiograph.read(dicom(tmp_path / "a.dcm", chest, Modality=modality))


@pytest.mark.parametrize(
    ("orientation", "noted"),
    [
        *((usual, False) for usual in (["L", "F"], ["A", "F"], ["P", "F"], "", None)),
        *((other, True) for other in (["R", "F"], ["L", "H"], ["F", "L"], "L")),
    ],
)
def test_unusual_orientation_is_noted(chest, tmp_path, orientation, noted):
    found = radiograph.read(dicom(tmp_path / "a.dcm", chest, PatientOrientation=orientation))
    assert [note.split(":")[0] for note in found.notes] == ["unusual PatientOrientation"] * noted


# ---------------------------------------------------------------------------------------------
# Numbers


def test_decimal_commas_are_points_everywhere(chest, tmp_path):
    texts = {
        "RescaleSlope": ("1,5", "1.5"),
        "RescaleIntercept": ("-10,25", "-10.25"),
        "WindowCenter": ("3000,5\\1,0", "3000.5\\1.0"),
        "WindowWidth": ("4000,5\\1,0", "4000.5\\1.0"),
        "PixelSpacing": ("0,2\\0,2", "0.2\\0.2"),
    }
    commas = raw(dicom(tmp_path / "a.dcm", chest), **{t: v[0] for t, v in texts.items()})
    points = raw(dicom(tmp_path / "b.dcm", chest), **{t: v[1] for t, v in texts.items()})
    found, expected = radiograph.read(commas), radiograph.read(points)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.pixel_spacing == expected.pixel_spacing == (0.2, 0.2)
    assert found.notes == (f"a decimal comma was read as a point: {', '.join(texts)}",)
    assert expected.notes == ()


@pytest.mark.parametrize("tag", ["PixelSpacing", "ImagerPixelSpacing"])
def test_decimal_commas_do_not_hide_oblong_pixels(chest, tmp_path, tag):
    path = raw(dicom(tmp_path / "a.dcm", chest), **{tag: "0,2\\0,4"})
    with pytest.raises(Refused, match=rf"pixels that are not square: {tag} 0.2, 0.4"):
        radiograph.read(path)


@pytest.mark.parametrize("tag", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
@pytest.mark.parametrize("text", ["1..2", "much", "nan", "inf", "1,700.5"])
def test_what_is_not_a_number_is_refused(chest, tmp_path, tag, text):
    both = {"WindowCenter": "2000", "WindowWidth": "4000", tag: text}
    with pytest.raises(Refused, match=f"unreadable number: {tag}"):
        radiograph.read(raw(dicom(tmp_path / "a.dcm", chest), **both))


def test_slope_of_zero_is_refused(chest, tmp_path):
    path = dicom(tmp_path / "a.dcm", chest, RescaleSlope=0, RescaleIntercept=5)
    with pytest.raises(Refused, match=r"contradictory header: RescaleSlope 0$"):
        radiograph.read(path)


@pytest.mark.parametrize("intercept", [None, "", 0])
def test_empty_intercept_beside_a_negative_slope_is_zero(chest, tmp_path, intercept):
    path = dicom(tmp_path / "a.dcm", chest, RescaleSlope=-1, RescaleIntercept=intercept)
    np.testing.assert_array_equal(radiograph.read(path).pixels, -chest.astype(float))


@pytest.mark.parametrize("slope", [None, "", 1])
def test_empty_slope_beside_an_intercept_is_one(chest, tmp_path, slope):
    path = dicom(tmp_path / "a.dcm", chest, RescaleSlope=slope, RescaleIntercept=-100)
    np.testing.assert_array_equal(radiograph.read(path).pixels, chest - 100.0)


# ---------------------------------------------------------------------------------------------
# Tables and functions


def lut(descriptor, data, vr="US"):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if min(descriptor) < 0 else "US", descriptor)
    item.add_new("LUTData", vr, data)
    return pydicom.Sequence([item])


@pytest.mark.parametrize(
    ("descriptor", "data", "reason"),
    [
        ([4096, 0, 16], [1, 2, 3], "unreadable LUT: 3 entries instead of 4096"),
        ([0, 0, 16], [1, 2, 3], "unreadable LUT: 3 entries instead of 65536"),
        ([2, 0, 32], [1, 2], "unreadable LUT: 32 bits in an entry"),
        ([2, 0, 0], [1, 2], "unreadable LUT: 0 bits in an entry"),
        ([2, 0], [1, 2], "unreadable LUT: LUTDescriptor does not have three values"),
    ],
)
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_broken_table_is_refused(chest, tmp_path, sequence, descriptor, data, reason):
    path = dicom(tmp_path / "a.dcm", chest, **{sequence: lut(descriptor, data)})
    with pytest.raises(Refused, match=reason):
        radiograph.read(path)


@pytest.mark.parametrize("function", ["SAMPLED_SIGMOID", "CUBIC"])
def test_unknown_function_is_refused(chest, tmp_path, function):
    path = dicom(
        tmp_path / "a.dcm", chest, WindowCenter=2000, WindowWidth=4000, VOILUTFunction=function
    )
    with pytest.raises(Refused, match=f"a VOI LUT function that is not read: {function}"):
        radiograph.read(path)


def test_first_input_of_a_table_written_as_unsigned_is_negative_if_its_inputs_are(chest, tmp_path):
    signed = chest.astype(np.int16) - 2048
    entries = list(range(0, 4096 * 16, 16))
    path = dicom(tmp_path / "a.dcm", signed, VOILUTSequence=lut([4096, 65536 - 2048, 16], entries))
    np.testing.assert_allclose(radiograph.read(path).pixels, chest * 16.0 / 65535, atol=1e-6)


def test_modality_table_is_looked_up_before_the_window(chest, tmp_path):
    curve = (np.arange(4096) ** 2 // 4096).astype(int)
    path = dicom(
        *(tmp_path / "a.dcm", chest),
        ModalityLUTSequence=lut([4096, 0, 16], curve.tolist()),
        RescaleSlope=None,
        WindowCenter=2000,
        WindowWidth=4000,
    )
    expected = np.clip((curve[chest] - 1999.5) / 3999 + 0.5, 0, 1)
    np.testing.assert_allclose(radiograph.read(path).pixels, expected, atol=1e-6)


def test_inverse_shape_is_refused_with_monochrome2_and_repeats_monochrome1(chest, tmp_path):
    """PS3.3 C.7.6.1: INVERSE is used with MONOCHROME1, IDENTITY with MONOCHROME2."""
    path = dicom(tmp_path / "a.dcm", chest, PresentationLUTShape="INVERSE")
    with pytest.raises(Refused, match="contradictory header: MONOCHROME2 with Presentation"):
        radiograph.read(path)
    plain = radiograph.read(dicom(tmp_path / "b.dcm", chest, "MONOCHROME1")).pixels
    for shape in ("INVERSE", "IDENTITY"):
        path = dicom(tmp_path / "c.dcm", chest, "MONOCHROME1", PresentationLUTShape=shape)
        np.testing.assert_array_equal(radiograph.read(path).pixels, plain)


# ---------------------------------------------------------------------------------------------
# Degenerate views


def test_degenerate_window_is_left_out_and_noted(chest, tmp_path):
    found = radiograph.read(dicom(tmp_path / "a.dcm", chest, WindowCenter=127, WindowWidth=255))
    np.testing.assert_array_equal(found.pixels, chest)
    (note,) = found.notes
    assert note == (
        "a window that clips most of the picture was left out: window with centre 127, width 255, "
        "100%"
    )


def test_second_window_is_used_if_the_first_is_degenerate(chest, tmp_path):
    path = dicom(tmp_path / "a.dcm", chest, WindowCenter=[127, 0, 2000], WindowWidth=[255, 0, 4000])
    found = radiograph.read(path)
    expected = np.clip((chest - 1999.5) / 3999 + 0.5, 0, 1)
    np.testing.assert_allclose(found.pixels, expected, atol=1e-6)
    assert [note.split(":")[0] for note in found.notes] == [
        "a window that clips most of the picture was left out",
        "a window without width was left out",
    ]


def test_window_is_used_if_the_table_is_degenerate(chest, tmp_path):
    steps = lut([2, 1000, 16], [0, 65535])
    path = dicom(
        tmp_path / "a.dcm", chest, VOILUTSequence=steps, WindowCenter=2000, WindowWidth=4000
    )
    found = radiograph.read(path)
    expected = np.clip((chest - 1999.5) / 3999 + 0.5, 0, 1)
    np.testing.assert_allclose(found.pixels, expected, atol=1e-6)
    assert found.notes == (
        "a VOI LUT that clips most of the picture was left out: VOI LUT 1, 100%",
    )


def test_padding_does_not_decide_whether_a_window_is_degenerate(chest, tmp_path):
    padded = np.zeros((400, 320), np.uint16)
    padded[:200, :160] = chest
    path = dicom(
        tmp_path / "a.dcm", padded, PixelPaddingValue=0, WindowCenter=2200, WindowWidth=3600
    )
    found = radiograph.read(path)
    assert found.notes == ()
    expected = np.clip((chest - 2199.5) / 3599 + 0.5, 0, 1)
    np.testing.assert_allclose(found.pixels[:200, :160], expected, atol=1e-6)


# ---------------------------------------------------------------------------------------------
# Other files


def test_gzipped_file_is_refused(chest, tmp_path):
    path = dicom(tmp_path / "a.dcm", chest)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(Refused, match="gzipped: unpack it"):
        radiograph.read(path)


def own_files():
    from pydicom import data

    root = pathlib.Path(data.__file__).parent / "test_files"
    return sorted(path for path in root.rglob("*") if path.is_file())


LIBRARY_WORDS = ("object has no attribute", "invalid literal", "could not convert", "operand")


def test_own_files_of_pydicom_are_read_or_refused_in_our_words(monkeypatch):
    monkeypatch.setattr(dicom_header, "OTHER_MODALITIES", ())
    monkeypatch.setattr(dicom_header, "OTHER_BODY_PARTS", ())
    monkeypatch.setattr(dicom_header, "SQUARE_PIXELS", 1e9)
    reasons, greys = {}, set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in own_files():
            try:
                if np.isfinite(radiograph.read(path).pixels).all():
                    greys.add(path.name)
            except Refused as refusal:
                reasons[path.name] = str(refusal)
    assert not [r for r in reasons.values() if any(words in r for words in LIBRARY_WORDS)]
    broken = reasons["JPEG2000-embedded-sequence-delimiter.dcm"]  # its SIZ says 3,722,445,056 wide
    assert broken.startswith("contradictory header: 1024 × 256 pixels, its codestream")
    assert greys >= {"MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"}
    assert greys >= {"JPEG2000.dcm", "MR_small_jpeg_ls_lossless.dcm", "J2K_pixelrep_mismatch.dcm"}


def test_own_files_of_pydicom_are_the_same_in_every_encoding(monkeypatch):
    monkeypatch.setattr(dicom_header, "OTHER_MODALITIES", ())
    files = {path.name: path for path in own_files()}
    plain = radiograph.read(files["MR_small.dcm"]).pixels
    for kind in ("RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless"):
        np.testing.assert_array_equal(radiograph.read(files[f"MR_small_{kind}.dcm"]).pixels, plain)
