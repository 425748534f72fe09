import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import data_prep
from data_prep.images import duplicates
from data_prep.images.survey import THUMBNAIL, halve, perceptual_hash, squeeze
from rfxray.data.radiograph import Radiograph, read, square
from tests.data_prep import raw_trees

SHARED = Path(os.environ.get("RFXRAY_SHARED", Path(data_prep.__file__).parents[2] / "shared"))
HANNOVER = SHARED / "real_cxr" / "hannover"


def thumbnail(pixels):
    radiograph = Radiograph(np.ascontiguousarray(pixels, np.float32), 16)
    picture = square(radiograph, THUMBNAIL)
    return squeeze(picture["image"], picture["content_box"])


def compressed(pixels):
    """JPEG at quality 50, resized to a square: typical changes of a copy in another data set."""
    eight = np.rint(255.0 * (pixels - pixels.min()) / np.ptp(pixels)).astype(np.uint8)
    eight = cv2.imdecode(cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0)
    return cv2.resize(eight, (400, 400), interpolation=cv2.INTER_AREA)


def hash_distances(thumbnails, others):
    packed = [
        np.frombuffer(b"".join(perceptual_hash(halve(one)) for one in t), np.uint8).reshape(-1, 32)
        for t in (thumbnails, others)
    ]
    bits = [np.unpackbits(hashes, axis=1) for hashes in packed]
    return (bits[0][:, None] != bits[1][None]).sum(-1)


def test_exact_pairs_refer_to_the_first_occurrence():
    pairs = duplicates.exact_pairs([b"a", b"b", b"a", b"c", b"a"])
    assert [(p.first, p.second) for p in pairs] == [(0, 2), (0, 4)]


def test_candidates_match_comparing_all_pairs():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (400, 256)).astype(np.uint8)
    for copy in range(60):  # 0 to 29 bits flipped
        bits[200 + copy] = bits[copy]
        bits[200 + copy, rng.choice(256, copy // 2, replace=False)] ^= 1
    hashes = np.packbits(bits, axis=1)
    distances = (bits[:, None] != bits[None]).sum(-1)
    all_pairs = {tuple(p) for p in np.argwhere(distances <= duplicates.HASH_BITS) if p[0] < p[1]}
    assert len(all_pairs) == 60
    found = {tuple(pair) for pair in duplicates.candidates(hashes).tolist()}
    assert found <= all_pairs
    near = {pair for pair in all_pairs if distances[pair] <= 15}
    assert near <= found  # with 16 bands, 15 flipped bits leave at least one band unchanged
    assert len(found) >= 58
    assert duplicates.candidates(hashes[:1]).shape == (0, 2)


def test_registration_tolerates_a_shift_but_not_another_patient():
    one, other = (thumbnail(raw_trees.pictures()[i]) for i in (0, 2))
    shifted = np.roll(one, (duplicates.SHIFT - 1, -duplicates.SHIFT + 1), (0, 1))
    assert duplicates.registered_correlation(one, shifted) > duplicates.CORRELATION
    assert duplicates.registered_correlation(one, other) < duplicates.CORRELATION


@pytest.mark.skipif(not HANNOVER.is_dir(), reason=f"no real radiographs in {HANNOVER}")
def test_real_copies_are_found_and_different_patients_are_not():
    with open(HANNOVER / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))[::4]
    pixels = [read(HANNOVER / "png" / f"{row['image_id']}.png").pixels for row in rows]
    patients = np.array([row["patient_id"] for row in rows])
    whole = [thumbnail(one) for one in pixels]
    copies = [thumbnail(compressed(one)) for one in pixels]
    distances = hash_distances(whole, copies)
    assert np.diag(distances).max() <= duplicates.HASH_BITS
    assert min(map(duplicates.registered_correlation, whole, copies)) >= duplicates.CORRELATION
    strangers = patients[:, None] != patients[None]
    # no false positives between patients: neither by hash nor, for the closest pairs, by both
    assert distances[strangers].min() > duplicates.HASH_BITS
    closest = np.argsort(np.where(strangers, distances, 999), axis=None)[:100]
    for i, j in zip(*np.unravel_index(closest, distances.shape), strict=True):
        assert duplicates.registered_correlation(whole[i], whole[j]) < duplicates.CORRELATION
