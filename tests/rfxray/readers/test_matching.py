"""Matched strata: equal numbers of both kinds, in the shares of the real images, or one line."""

import collections
import dataclasses
import functools

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the extra prep")

from rfxray.errors import DataError
from rfxray.readers.candidates import Candidate, refuse_overlap
from rfxray.readers.matching import Source
from tests.rfxray.readers.test_design import SIDE, candidates, film, made
from tests.rfxray.readers.test_leaks import written


def source(*match, seed=0):
    return Source(match, SIDE, np.random.default_rng(seed))


def of(kind, **counts):
    """Candidates of the view that a name gives, as many as it says."""
    start = {"real": 0, "synthetic": 5000}[kind]
    names = [view for view, count in counts.items() for _ in range(count)]
    return [
        Candidate(f"{kind}-{n}", "", {"view": view}, functools.partial(film, start + n))
        for n, view in enumerate(names)
    ]


def test_strata_have_the_shares_of_the_real_images():
    real, synthetic = of("real", AP=30, PA=10), of("synthetic", AP=12, PA=40, lateral=9)
    drawn = source("view")
    pairs = drawn.pairs(real, synthetic, 12)
    assert all(a.facts == b.facts for a, b in pairs)
    assert all(a.name.startswith("real") and b.name.startswith("syn") for a, b in pairs)
    assert collections.Counter(a.facts["view"] for a, _ in pairs) == {"AP": 9, "PA": 3}
    assert drawn.left_out == {"synthetic images of strata without a real one": 9}
    assert len({each.name for pair in pairs for each in pair}) == 24


def test_shortage_names_the_stratum_both_counts_and_what_fits():
    real, synthetic = of("real", AP=30, PA=10), of("synthetic", AP=6, PA=40)
    with pytest.raises(DataError) as raised:
        source("view").pairs(real, synthetic, 12)
    said = str(raised.value)
    assert "stratum view=ap needs 9 images of each side and has 30 real and 6 synthetic" in said
    assert said.endswith("from 12 pairs to 8")
    assert "\n" not in said
    assert len(source("view").pairs(real, synthetic, 8)) == 8


def test_sets_without_a_common_stratum_are_refused():
    with pytest.raises(DataError, match="no stratum has real and synthetic"):
        source("view").pairs(of("real", AP=3), of("synthetic", PA=3), 2)


def test_one_image_of_a_patient_is_drawn():
    real = [dataclasses.replace(c, patient=f"p{n % 5}") for n, c in enumerate(of("real", AP=20))]
    pairs = source().pairs(real, of("synthetic", AP=9), 5)
    assert len({a.patient for a, _ in pairs}) == 5
    with pytest.raises(DataError, match=r"has 5 real and 9 synthetic ones .one of a patient"):
        source().pairs(real, of("synthetic", AP=9), 6)


def test_text_is_matched_by_what_the_pixels_show():
    def some(kind, share):
        plain, text = candidates(kind, 30), candidates(f"{kind}+", 30, written)
        return [
            b if n % 10 < share else a for n, (a, b) in enumerate(zip(plain, text, strict=True))
        ]

    pairs = source("burned_in_text").pairs(some("real", 6), some("synthetic", 3), 15)
    assert all(a.facts == b.facts for a, b in pairs)
    assert {a.facts["burned_in_text"] for a, _ in pairs} == {"yes", "no"}
    for first, second in pairs:
        assert (
            ("+" in first.name) == ("+" in second.name) == (first.facts["burned_in_text"] == "yes")
        )
    with pytest.raises(DataError, match=r"gives 9 of 25 pairs.*equal burned_in_text"):
        source("burned_in_text").pairs(
            candidates("real", 21) + candidates("real+", 9, written)[:9],
            candidates("synthetic+", 60, written),
            25,
        )


def test_only_drawn_images_are_decoded():
    decoded = []

    def counted(each):
        def pixels(side):
            decoded.append(each.name)
            return each.pixels(side)

        return dataclasses.replace(each, pixels=pixels)

    real = [counted(each) for each in candidates("real", 300)]
    source("view").pairs(real, candidates("synthetic", 30), 10)
    assert len(decoded) == 10


def test_overlapping_sets_are_one_line(tmp_path):
    real, synthetic = of("real", AP=4), of("synthetic", AP=4)
    refuse_overlap(real, synthetic)
    same = [dataclasses.replace(c, pixels=r.pixels) for c, r in zip(synthetic, real, strict=True)]
    with pytest.raises(DataError, match="are the same image"):
        made(real=real, synthetic=same, match=(), cases=8, training=0)
    for field in ("key", "patient"):
        with pytest.raises(DataError, match=f"the sets overlap: 1 {field}s are in both, such as x"):
            refuse_overlap(
                [dataclasses.replace(real[0], **{field: "x"}), *real[1:]],
                [*synthetic[1:], dataclasses.replace(synthetic[0], **{field: "x"})],
            )
