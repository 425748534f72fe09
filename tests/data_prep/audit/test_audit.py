import base64
import copy
import dataclasses
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.audit import __main__ as audit_command
from data_prep.audit import gather, looks
from data_prep.audit.page import render
from data_prep.harmonise import main as harmonise
from data_prep.sources.sets import SETS, RawSet
from rfxray.data.manifest import read_ledger, read_manifest
from tests.data_prep import raw_trees


@pytest.fixture(scope="module")
def harmonised(tmp_path_factory):
    roots = raw_trees.write(tmp_path_factory.mktemp("raw"))
    out = tmp_path_factory.mktemp("harmonised") / "cxr7"
    sets = [
        word for name in ("nih", "chexpert", "brax") for word in ("--set", f"{name}={roots[name]}")
    ]
    harmonise([*sets, "--out", str(out), "--size", "32", "--workers", "1", "--validation", "0",
               "--test", "0"])  # fmt: skip
    return out


@pytest.fixture(scope="module")
def page(harmonised):
    audit_command.main([str(harmonised)])
    return (harmonised / "audit.html").read_text(encoding="utf-8")


def test_page_needs_no_other_file(page):
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "<script" not in page
    assert "://" not in page


def test_table_of_contents_links_every_section(page):
    links = re.findall(r'<a href="#([^"]*)">([^<]*)</a>', page)
    assert links == re.findall(r'<h2 id="([^"]*)">([^<]*)</h2>', page)
    titles = [title for _, title in links]
    assert {"Odd prevalences", "Leakage", "What was dropped", "Terms"} < set(titles)


def test_embedded_images_decode_and_are_not_flat(page):
    sheets = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(sheets) > 10
    for sheet in sheets:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet))))
        assert picture.shape in ((32, 32), (112, 112))  # a record, or a thumbnail of the survey
        assert picture.std() > 20


def test_page_counts_match_the_data_set(harmonised, page):
    found = gather.gather(harmonised)
    assert found.kept == {"chexpert": 2, "nih": 3, "brax": 2}
    kept = sum(found.kept.values())
    manifest = read_manifest(harmonised)
    assert kept == sum(split["examples"] for split in manifest["splits"].values())
    assert found.divided_patients == 0
    assert found.divided_pictures == 0
    for crossed in (*found.categories.values(), *found.states.values()):
        assert {name: sum(values.values()) for name, values in crossed.items()} == found.kept
    assert f"{kept} radiographs of 32²" in page
    assert "<td>too narrow</td>" in page
    assert "rotated" in page


def test_unusual_prevalence_is_flagged():
    many = {"chexpert": 10_000, "mimic": 10_000}
    assert gather._flags({"chexpert": {"no_finding": (9.0, 10.0)}}, many) == {}
    odd = {"chexpert": {"no_finding": (75.7, 10.0)}, "mimic": {"edema": (95.0, None)}}
    flags = gather._flags(odd, many)
    assert list(flags) == [("chexpert", "no_finding"), ("mimic", "edema")]
    first, second = flags.values()
    assert first == "chexpert: No Finding 75.7%, published of that set 10.0%"
    assert second.startswith("mimic: Edema 95.0%, published of other sets ")
    assert gather._flags(odd, {"chexpert": 3, "mimic": 3}) == {}  # three images are too few


def test_dropped_and_flagged_pictures_are_shown_with_their_counts(tmp_path):
    root, out = tmp_path / "mine", tmp_path / "out"
    rows = ["image_id,patient,view"]
    lateral, frontal = raw_trees.pictures()[raw_trees.LATERALS[0]], raw_trees.pictures()[20:34]
    for i, pixels in enumerate(frontal):
        raw_trees.put(root / f"{i}.png", np.rot90(pixels, 2).copy())
        rows.append(f"{i}.png,p{i},PA")
    raw_trees.put(root / "side.png", lateral)
    raw_trees.put(root / "good.png", raw_trees.pictures()[5])
    raw_trees.put(root / "torn.png", b"\x89PNG\r\n\x1a\n")
    rows += ["side.png,q,PA", "good.png,r,PA", "torn.png,s,PA"]
    raw_trees.put(tmp_path / "mine.csv", "\n".join(rows))
    harmonise([
        *("--folder", f"mine={root}", "--metadata", str(tmp_path / "mine.csv")),
        *("--column", "image=image_id", "--column", "patient=patient", "--column", "view=view"),
        *("--out", str(out), "--size", "32", "--workers", "1"),
    ])  # fmt: skip
    seen = looks.gather_looks(out)
    turned = seen.dropped["mine: rotated"]
    lines = [drop for drop in read_ledger(out) if drop.reason == "rotated"]
    assert turned.count == len(lines) > looks.SHEET == len(turned.pictures)
    torn = seen.dropped["mine: does not decode"]
    assert (torn.count, torn.pictures) == (1, [])
    title = "mine: looks lateral but is labelled PA"
    (shown,) = seen.flagged[title].pictures
    assert np.corrcoef(
        shown.ravel(), np.asarray(Image.fromarray(lateral >> 8).resize((128, 128))).ravel()
    )[0, 1] > 0.95  # fmt: skip
    assert sum(seen.upright["mine"]) == pytest.approx(1)
    audit_command.main([str(out)])
    html = (out / "audit.html").read_text(encoding="utf-8")
    assert f"<h3>mine: rotated ({len(lines)})</h3>" in html
    assert "<h3>mine: looks lateral but is labelled PA (1)</h3>" in html
    shutil.rmtree(out / "survey")
    assert looks.gather_looks(out) is None
    audit_command.main([str(out)])
    assert "survey/ was deleted" in (out / "audit.html").read_text(encoding="utf-8")


ATTACK = """"'><script>alert(1)</script>"""


def test_text_of_the_data_set_is_escaped_in_the_page(harmonised, monkeypatch):
    """Name, versions, sets, files, dropped reasons, flags and terms are all untrusted text."""
    found = gather.gather(harmonised)
    picture = np.zeros((32, 32), np.uint16)
    by_set = ("kept", "splits", "ages", "prevalence", "histograms")
    renamed = {name: {ATTACK: getattr(found, name)["nih"]} for name in by_set}
    crossed = {
        field: {name: {ATTACK: by["nih"]} for name, by in getattr(found, field).items()}
        for field in ("categories", "states")
    }
    found = dataclasses.replace(
        found,
        **renamed,
        **crossed,
        judged=1,
        rule=ATTACK,
        flags={(ATTACK, "no_finding"): ATTACK},
        text={ATTACK: 3},
        sheets={kind: {ATTACK: [picture]} for kind in ("view", "label", "text")},
    )
    manifest = read_manifest(harmonised)
    notes = copy.deepcopy(manifest["notes"])
    notes["sets"] = {ATTACK: notes["sets"]["nih"] | {"dropped": {ATTACK: 1}}}
    notes["duplicates"]["pairs"] = [[ATTACK, ATTACK, 0.9]]
    hostile = {"name": ATTACK, "size": ATTACK, "fingerprint": ATTACK, "versions": {ATTACK: ATTACK}}
    terms = RawSet(None, 100, *[ATTACK] * 5)
    monkeypatch.setitem(SETS, ATTACK, terms)
    sheet = {ATTACK: looks.Sheet(3, [np.zeros((128, 128), np.uint8)])}
    seen = looks.Looks(sheet, sheet, {(ATTACK, ATTACK): 3}, {ATTACK: [0.5, 0.5]})
    html = render({**manifest, **hostile, "notes": notes}, found, seen)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 20
    assert not re.search(r"""="[^"]*<""", html)


def test_unpublished_and_unsearched_sets_are_shown(harmonised):
    found = dataclasses.replace(
        gather.gather(harmonised), prevalence={}, divided_pictures=None, text=None
    )
    manifest = read_manifest(harmonised)
    manifest["notes"]["sets"]["nih"]["published"] = None
    html = render(manifest, found, None)
    assert "<td>–</td><td>–</td>" in html
    assert html.count("survey/ was deleted") == 5
    assert "--audit-text" in html


def test_leaks_between_splits_are_detected(harmonised):
    table = pq.read_table(harmonised / "table.parquet")  # includes dropped rows

    def moved(splits):
        return table.set_column(table.column_names.index("split"), "split", pa.array(splits))

    alternating = moved(["train" if i % 2 else "test" for i in range(len(table))])
    assert gather._divided_patients(alternating) == 1  # the CheXpert patient with two images
    by_set = moved([source.as_py() for source in table["source"]])
    assert gather._divided_pictures(harmonised, by_set) == 1  # in NIH and in CheXpert


def test_directory_without_a_data_set_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        audit_command.main([str(tmp_path)])
    assert stopped.value.code == 65
    assert "no finished data set" in capsys.readouterr().err


def tear(path):
    path.write_bytes(path.read_bytes()[:-200])


def zero(path):
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("flags", [[], ["--audit-text", "--workers", "1"]])
@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("table.parquet", tear),
        ("cxr7-train.array_record*", Path.unlink),
        ("cxr7-train.array_record*", zero),
        ("survey/*.parquet", tear),
        ("manifest.json", lambda path: path.write_text("{}")),
    ],
)
def test_damage_is_reported_in_one_line_that_names_the_file(
    harmonised, tmp_path, capsys, pattern, damage, flags
):
    out = tmp_path / "cxr7"
    shutil.copytree(harmonised, out)
    file = sorted(out.glob(pattern))[0]
    damage(file)
    with pytest.raises(SystemExit) as stopped:
        audit_command.main([str(out), *flags])
    assert stopped.value.code == 65
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("data_prep.audit: error: ")
    assert file.name in last


def test_bucket_url_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        audit_command.main(["gs://bucket/cxr7"])
    assert stopped.value.code == 78
    assert "mount the bucket" in capsys.readouterr().err
