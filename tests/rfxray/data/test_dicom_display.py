"""Display of whole files: beside plain formulas of PS3.3 C.11, and beside DCMTK.

The default suite takes each value of each factor at least once; the drill takes their product.
"""

import itertools
import shutil
import subprocess

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from rfxray.data import radiograph
from tests.rfxray.data.radiographs import SYNTAXES, compressed, dicom

ENCODINGS = ("native", "RLELossless", *SYNTAXES)
BITS = tuple(range(8, 17))
SLOPES = (1, -1, 2, -3)
POLARITIES = (("MONOCHROME1", ""), ("MONOCHROME2", ""), ("MONOCHROME1", "INVERSE"),
              ("MONOCHROME2", "IDENTITY"))  # fmt: skip
TABLE_BITS = (8, 10, 11, 12, 13, 14, 15, 16)
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
PACKINGS = ("list", "words", "bytes")  # US; OW of 16 bits; OW of 8 bits
VIEWS = (*FUNCTIONS, *itertools.product(TABLE_BITS, PACKINGS[:2]), (8, "bytes"))
FACTORS = (ENCODINGS, BITS, (False, True), SLOPES, POLARITIES, VIEWS)
DCMTK = shutil.which("dcm2pnm")
WITHIN = 1 / 255


def spread(factors, rounds):
    """Combinations in which every value of every factor occurs, beside others in each round."""
    longest = max(map(len, factors))
    for i in range(rounds * longest):
        turn = i // longest
        yield tuple(f[(i + turn * (n + 1)) % len(f)] for n, f in enumerate(factors))


def table(bits, packing, first, count):
    """A VOI LUT of a curve, and its entries."""
    entries = np.rint(np.linspace(0, 1, count) ** 0.7 * ((1 << bits) - 1)).astype(np.int64)
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [count, first, bits])
    kind = "<u1" if packing == "bytes" else "<u2"
    packed = entries.tolist() if packing == "list" else entries.astype(kind).tobytes()
    item.add_new("LUTData", "US" if packing == "list" else "OW", packed)
    return pydicom.Sequence([item]), entries


def case(folder, encoding, bits, signed, slope, polarity, view):
    """A file, and what it shows by the formulas of the standard."""
    y, x = np.mgrid[:64, :60]
    # A table has 65,536 entries at most (32,767 in a US), and has to meet most of its inputs
    most = (1 << bits) - 1 if view in FUNCTIONS else min((1 << bits) - 1, 40_000 // abs(slope))
    stored = np.rint((60 * y + x) / 3839 * most).astype(np.int64)
    lowest = 1 << (bits - 1)
    if view not in FUNCTIONS:  # the first input of a table is an SS
        lowest = min(lowest, 30_000 // abs(slope))
    stored -= signed * lowest
    modality = stored * slope + 7
    low, reach = int(modality.min()), int(np.ptp(modality))
    tags = {"RescaleSlope": slope, "RescaleIntercept": 7}
    if view in FUNCTIONS:
        centre, width = low + round(0.45 * reach, 1), round(0.7 * reach, 1)
        tags |= {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": view}
        if view == "SIGMOID":
            shown = 1 / (1 + np.exp(-4 * (modality - centre) / width))
        elif view == "LINEAR":
            shown = np.clip((modality - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
        else:
            shown = np.clip((modality - centre) / width + 0.5, 0, 1)
    else:
        # US or SS hold what is from -32768 to 65535; inputs on both sides of the table
        first = min(max(low + reach // 8, -32768), 65535 if low >= 0 else 32767)
        count = max(2, min(reach * 3 // 4, 30_000) // 2 * 2)
        tags["VOILUTSequence"], entries = table(*view, first, count)
        shown = entries[np.clip(modality - first, 0, count - 1)] / ((1 << view[0]) - 1)
    photometric, shape = polarity
    if shape:
        tags["PresentationLUTShape"] = shape
    words = stored.astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    plain = dicom(
        *(folder / "plain.dcm", words, photometric), BitsStored=bits, HighBit=bits - 1, **tags
    )
    if photometric == "MONOCHROME1":
        shown = 1 - shown
    if encoding in SYNTAXES:
        return compressed(plain, folder / "compressed.dcm", encoding), plain, shown
    if encoding == "RLELossless":
        dataset = pydicom.dcmread(plain)
        dataset.compress(RLELossless, encoding_plugin="pydicom")
        dataset.save_as(folder / "compressed.dcm")
        return folder / "compressed.dcm", plain, shown
    return plain, plain, shown


def rendered(path, view):
    """What DCMTK shows, [height, width] from 0 to 1. (It does not read JPEG 2000.)"""
    chosen = "+Wi" if view in FUNCTIONS else "+Wl"
    out = path.with_suffix(".png")
    command = [DCMTK, "+on2", "-mf", "-O", chosen, "1", str(path), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return cv2.imread(str(out), cv2.IMREAD_UNCHANGED) / 65535


def check(folder, combination, beside_dcmtk=True):
    path, plain, shown = case(folder, *combination)
    found = radiograph.read(path)
    assert found.notes == ()
    np.testing.assert_allclose(found.pixels, shown, atol=1e-6)
    # DCMTK 3.6 reads LINEAR_EXACT as LINEAR
    if DCMTK and beside_dcmtk and combination[-1] != "LINEAR_EXACT":
        assert np.abs(found.pixels - rendered(plain, combination[-1])).max() <= WITHIN


@pytest.mark.parametrize("combination", spread(FACTORS, 3), ids=str)
def test_file_is_shown_as_the_standard_and_dcmtk_show_it(tmp_path, combination):
    check(tmp_path, combination)
    if not DCMTK:
        pytest.skip("dcm2pnm (DCMTK) is not installed; the formulas agree")


@pytest.mark.drill
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("bits", BITS)
def test_product_of_all_headers_is_shown_as_the_standard_and_dcmtk_show_it(
    tmp_path, encoding, bits
):
    for combination in itertools.product([encoding], [bits], *FACTORS[2:]):
        # DCMTK renders the native file, which is the same for every encoding
        check(tmp_path, combination, beside_dcmtk=encoding == "native")
