"""An edit at the size and bits of the radiograph's own file: what changes, and what passes."""

import datetime
import json

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from rfxray import edit
from rfxray.data import canonical, radiograph, stored
from rfxray.data.stored import Stored, carry_back
from rfxray.outputs.files import read_png

HEIGHT, WIDTH = 150, 120  # the content of a model of 32² is 32 × 26, from column 3 on
FAST = ["--steps", "2", "--method", "flow", "--set", "cardiomegaly=present", "--native"]


def chest(levels=4096, low=0):
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    grey = 0.3 + 0.4 * y + 0.2 * np.sin(7 * x) + np.random.default_rng(0).normal(0, 0.02, y.shape)
    return np.clip(np.rint(low + grey * levels), low, low + levels - 1).astype(np.int64)


def dicom_file(path, values=None, **tags):
    """A 12-bit file full of what must not pass; `tags` come last."""
    values = chest() if values is None else values
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = DigitalXRayImageStorageForPresentation
    file.SOPInstanceUID, file.StudyInstanceUID, file.SeriesInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    file.PatientName, file.PatientID = "DOE^JANE", "MRN-4711"
    file.PatientBirthDate = file.StudyDate = file.AcquisitionDate = file.ContentDate = "19991231"
    file.InstitutionName = file.StudyDescription = file.ImageComments = "WARD-SEVEN"
    file.AccessionNumber, file.ReferringPhysicianName = "ACC-99", "DOE^DOCTOR"
    file.WindowCenterWidthExplanation = "DOE VIEW"
    file.PixelSpacingCalibrationDescription = "by DOE"
    file.BurnedInAnnotation, file.Modality, file.ViewPosition = "NO", "DX", "AP"
    file.Rows, file.Columns = values.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.PixelSpacing, file.ImagerPixelSpacing = [0.143, 0.143], [0.15, 0.15]
    file.PatientOrientation, file.ImageLaterality = ["L", "F"], "U"
    file.DistanceSourceToDetector = 1800
    file.add_new(0x00091001, "LO", "PRIVATE DOE")
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = values.astype("<i2" if file.PixelRepresentation else "<u2").tobytes()
    file.save_as(path, enforce_file_format=True)
    return path


def run(trained, tmp_path, image, *flags):
    argv = ["--checkpoint", trained, "--image", image, "--out", tmp_path / "out", *FAST, *flags]
    edit.main([str(a) for a in argv])
    return tmp_path / "out"


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_png_keeps_size_bits_and_all_pixels_outside_the_change(trained, tmp_path, kind):
    values = chest(200 if kind == np.uint8 else 50000).astype(kind)
    Image.fromarray(values).save(tmp_path / "a.png")
    keep = np.zeros(values.shape, np.uint8)
    keep[:, 60:] = 255
    keep[40:44, 20:23] = 255
    Image.fromarray(keep).save(tmp_path / "keep.png")
    out = run(trained, tmp_path, tmp_path / "a.png", "--keep", tmp_path / "keep.png")
    after, mask = read_png(out / "native.png"), read_png(out / "native_mask.png")
    assert (after.dtype, after.shape) == (kind, values.shape)
    np.testing.assert_array_equal(after[keep > 0], values[keep > 0])
    np.testing.assert_array_equal(mask > 0, after != values)
    assert (mask > 0)[:, :55].mean() > 0.5
    assert not (out / "native.dcm").exists()
    files = json.loads((out / "edit.json").read_text())["files"]
    assert {"native.png", "native_mask.png"} <= files.keys()


def test_the_edited_file_is_read_as_the_edited_image(trained, tmp_path):
    """Read again at the size of the model, the file is the edited image, within the blur of
    enlarging it by lines between pixels."""
    Image.fromarray(chest(50000).astype(np.uint16)).save(tmp_path / "a.png")
    out = run(trained, tmp_path, tmp_path / "a.png")
    before, after = (read_png(out / f"{n}.png").astype(float) for n in ("original", "edited"))
    low, high = canonical.contrast(chest(50000).astype(np.float32))
    native = np.clip((read_png(out / "native.png") - low) / (high - low), 0, 1)
    again = canonical.to_square(native.astype(np.float32), 32)[0] * 65535
    error = np.abs(again - after)[:, 3:29].mean()
    assert error < 0.35 * np.abs(after - before)[:, 3:29].mean()
    assert np.corrcoef((again - before).ravel(), (after - before).ravel())[0, 1] > 0.95


def table_of_8_bits():
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 8])
    item.add_new("LUTData", "OW", (np.arange(4096) // 16).astype("<u2").tobytes())
    item.LUTExplanation = "DOE TABLE"
    return item


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        {"WindowCenter": 2000, "WindowWidth": 2500},
        {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "SIGMOID"},
        {"VOILUTSequence": [table_of_8_bits()]},
        {"RescaleSlope": 0.5, "RescaleIntercept": -10, "RescaleType": "DOE"},
        {"PixelRepresentation": 1, "low": -2000},
        {"BitsStored": 14, "HighBit": 13, "levels": 16384},
    ],
    ids=lambda tags: "-".join(tags) or "plain",
)
def test_dicom_keeps_geometry_and_bits_and_all_pixels_outside_the_change(trained, tmp_path, tags):
    tags = dict(tags)
    values = chest(tags.pop("levels", 4096), tags.pop("low", 0))
    image = dicom_file(tmp_path / "a.dcm", values, **tags)
    hole = np.zeros(values.shape, np.uint8)
    hole[30:90, 30:80] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    out = run(trained, tmp_path, image, "--mask", tmp_path / "mask.png")
    before, after = pydicom.dcmread(image), pydicom.dcmread(out / "native.dcm")
    np.testing.assert_array_equal(after.pixel_array[hole == 0], values[hole == 0])
    changed = after.pixel_array != values
    assert changed[hole > 0].mean() > 0.3
    np.testing.assert_array_equal(read_png(out / "native_mask.png") > 0, changed)
    for tag in (
        *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
        *("PixelSpacing", "ImagerPixelSpacing", "PatientOrientation", "ViewPosition"),
        *("ImageLaterality", "DistanceSourceToDetector", "PhotometricInterpretation"),
        *("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept"),
    ):
        assert after.get(tag) == before.get(tag), tag
    # Outside the change it is displayed as before, read by the reader of the data sets.
    shown = [radiograph.read(file).pixels for file in (image, out / "native.dcm")]
    np.testing.assert_array_equal(shown[0][~changed], shown[1][~changed])
    # The change is the one of the image: brighter stays brighter in what is displayed.
    lower = [radiograph.to_square(each, 32)[0] for each in shown]
    edited = [read_png(out / f"{name}.png").astype(float) for name in ("edited", "original")]
    inside = slice(8, 18), slice(11, 19)
    change = (lower[1] - lower[0])[inside].ravel(), (edited[0] - edited[1])[inside].ravel()
    assert np.corrcoef(*change)[0, 1] > 0.9


def test_nothing_of_the_patient_passes(trained, tmp_path):
    image = dicom_file(
        tmp_path / "a.dcm", VOILUTSequence=[table_of_8_bits()], ViewPosition="DOE", Modality="CR"
    )
    out = run(trained, tmp_path, image, "--dicom")
    content = (out / "native.dcm").read_bytes()
    for word in (b"DOE", b"4711", b"ACC-99", b"WARD", b"1999", b"PRIVATE", b"1.2.3", b"1.2.4"):
        assert word not in content, word
    file = pydicom.dcmread(out / "native.dcm")
    assert (file.SyntheticData, file.PatientName) == ("YES", "SYNTHETIC^RFXRAY")
    assert "BurnedInAnnotation" not in file
    assert "ViewPosition" not in file
    assert not any(element.tag.is_private for element in file.iterall())
    today = datetime.date.today().strftime("%Y%m%d")
    assert today.encode() not in content
    assert file.SOPInstanceUID != pydicom.dcmread(out / "edited.dcm").SOPInstanceUID
    assert file.StudyInstanceUID == pydicom.dcmread(out / "edited.dcm").StudyInstanceUID


def test_a_tag_that_holds_no_number_does_not_pass(trained, tmp_path):
    image = dicom_file(tmp_path / "a.dcm")
    content = image.read_bytes()
    assert content.count(b"1800") == 1
    image.write_bytes(content.replace(b"1800", b"18cm"))
    file = pydicom.dcmread(run(trained, tmp_path, image) / "native.dcm")
    assert "DistanceSourceToDetector" not in file
    assert file.PixelSpacing == [0.143, 0.143]


def test_a_new_view_replaces_that_of_the_file(trained, tmp_path):
    out = run(trained, tmp_path, dicom_file(tmp_path / "a.dcm"), "--set", "view=PA")
    assert pydicom.dcmread(out / "native.dcm").ViewPosition == "PA"


def test_padding_never_changes_and_no_pixel_becomes_padding(trained, tmp_path):
    values = chest()
    values[:, :30] = 1500  # within the range of the film
    inside = values[:, 30:]
    inside[inside == 1500] = 1501
    image = dicom_file(tmp_path / "a.dcm", values, PixelPaddingValue=1500)
    out = run(trained, tmp_path, image)
    after = pydicom.dcmread(out / "native.dcm")
    np.testing.assert_array_equal(after.pixel_array == 1500, values == 1500)
    assert after.PixelPaddingValue == 1500
    assert (after.pixel_array != values)[:, 40:].mean() > 0.3


def test_other_bits_are_refused(trained, tmp_path, refusal):
    image = Image.fromarray(chest(15).astype(np.uint8) * 17).convert("P")
    image.save(tmp_path / "a.png", bits=4)
    argv = ["--checkpoint", trained, "--image", tmp_path / "a.png", "--out", tmp_path / "out"]
    code, line = refusal(edit.main, [*argv, *FAST])
    assert code == 65
    assert "8 or 16 bits" in line
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------
# The rule: the value displayed nearest to the wanted grey; of several the nearest


def carried(values, shown, change, **fields):
    values = np.asarray(values)[None]
    held = Stored(values, 3, np.asarray(shown, float), **fields)
    free = np.ones(values.shape, bool)
    return carry_back(held, np.asarray(change, np.float32)[None], free, (0.0, 1.0))[0].tolist()


@pytest.mark.parametrize(
    ("shown", "values", "change", "after"),
    [
        (range(8), [1, 2, 3, 7], [2, -1, 0.4, 3], [3, 1, 3, 7]),  # a line, to the end of the bits
        (range(0, -8, -1), [1, 2, 3], [-2, 1, 0], [3, 1, 3]),  # inverted
        ([0, 0, 0, 1, 1, 1, 2, 2], [0, 2, 4, 7], [1, 1, 0.4, -1], [3, 3, 4, 5]),  # flat steps
        ([0, 3, 1, 2, 3, 0, 1, 2], [0, 5, 2], [3, 3, 1], [1, 4, 3]),  # not monotone
        ([5] * 8, [1, 6], [1, -1], [1, 6]),  # one grey
    ],
)
def test_a_value_becomes_the_nearest_that_is_displayed_as_wanted(shown, values, change, after):
    assert carried(values, shown, change) == after


def test_no_value_becomes_a_reserved_one():
    assert carried([1, 5, 3], range(8), [2, -2, 0], reserved=(3, 3)) in ([2, 4, 3], [4, 4, 3])


def test_linear_windows_go_on_beyond_their_ends(tmp_path):
    image = dicom_file(tmp_path / "a.dcm", WindowCenter=2000.5, WindowWidth=2501)
    held = stored.read_stored_dicom(image.read_bytes())
    np.testing.assert_allclose(np.diff(held.shown), 1 / 2500, rtol=1e-9)
