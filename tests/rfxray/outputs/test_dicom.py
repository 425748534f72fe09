import json
import shutil
import subprocess
import uuid

import numpy as np
import pydicom
import pytest

from rfxray.outputs import dicom

ENTRY = {
    "weights": "ab" * 32,
    "seed": 3,
    "index": 7,
    "attributes": {"sex": "F", "age": 10 / 12, "view": "PA"},
}
IMAGE = (np.arange(64 * 48).reshape(64, 48) * 21).astype(np.uint16)


def saved(folder, image=IMAGE, **changes):
    path = folder / "one.dcm"
    dicom.save(path, image, {**ENTRY, **changes}, burned_in=False)
    return pydicom.dcmread(path)


@pytest.mark.parametrize(
    ("years", "text"),
    [
        *[(0, "000D"), (3 / 365.25, "003D"), (30 / 365.25, "030D"), (1 / 12, "001M")],
        *[(np.float32(10 / 12), "010M"), (0.999, "011M"), (1, "001Y"), (1.99, "001Y")],
        *[(63, "063Y"), (103, "103Y")],
    ],
)
def test_age_is_in_years_months_or_days(years, text):
    assert dicom.age_string(float(years)) == text


def test_uids_are_uuids_of_version_8():
    found = [uuid.UUID(int=int(dicom.uid("x", k).removeprefix("2.25."))) for k in range(50)]
    assert {(each.version, each.variant) for each in found} == {(8, uuid.RFC_4122)}
    assert len(set(found)) == 50


def test_same_content_is_the_same_object_and_any_other_is_another(tmp_path):
    first = saved(tmp_path)
    same = saved(tmp_path, checkpoint="/elsewhere/run", command="rfxray sample", path="DOE.png")
    assert first == same  # every tag, pixels and UIDs included
    other = IMAGE.copy()
    other[0, 0] ^= 1
    found = [first, saved(tmp_path, other), saved(tmp_path, steps=3), saved(tmp_path, seed=4)]
    found.append(saved(tmp_path, IMAGE.reshape(48, 64)))
    assert len({file.SOPInstanceUID for file in found}) == 5
    # Other bits of one request are of the same patient, another seed is not.
    assert found[1].PatientID == first.PatientID != found[3].PatientID


def test_file_names_no_path_and_no_clock(tmp_path):
    said = saved(tmp_path, checkpoint="/home/DOE/run", command="--out /home/DOE", edit_of="DOE.png")
    assert b"DOE" not in (tmp_path / "one.dcm").read_bytes()
    assert json.loads(said.ImageComments) == ENTRY
    dated = [each for each in said if each.VR in ("DA", "TM", "DT") and each.value]
    assert not dated
    assert (said.StudyID, len(said.StudyID)) == (said.PatientID[7:23].upper(), 16)
    assert said.SoftwareVersions


@pytest.mark.parametrize(("found", "value"), [(None, None), (False, "NO"), (True, "YES")])
def test_burned_in_annotation_is_said_only_if_somebody_looked(tmp_path, found, value):
    dicom.save(tmp_path / "one.dcm", IMAGE, ENTRY, burned_in=found)
    assert pydicom.dcmread(tmp_path / "one.dcm").get("BurnedInAnnotation") == value


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy of dicom3tools is absent")
def test_dciodvfy_finds_no_error(tmp_path):
    saved(tmp_path)
    done = subprocess.run(
        ["dciodvfy", "-new", tmp_path / "one.dcm"], capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert "SCImage" in lines
    # Synthetic Data (0008,001C) is newer than the dictionary of that program.
    errors = [line for line in lines if "Error" in line and "001c" not in line]
    assert not errors
