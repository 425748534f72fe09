"""`rfxray evaluate fidelity` from flags to files."""

import csv
import errno
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rfxray.sampling
from rfxray.commands import evaluate, evaluate_fidelity
from rfxray.data.dataset import Records, open_dataset
from rfxray.evaluate import features, folder, strata
from rfxray.outputs import files, lock
from tests import conftest, full_disk
from tests.rfxray.evaluate.projection import projection

PACKAGED = Path(rfxray.sampling.__file__).parent / "packaged"
MEASURES = ["FD64", "KID", "energy distance", "precision", "recall", "density", "coverage"]


@pytest.fixture(autouse=True)
def extractors(monkeypatch, tmp_path_factory):
    """`small` and `large`, two projections, and features that are cached for this session only."""
    known = {"small": projection(8, name="small"), "large": projection(80, 1, name="large")}
    monkeypatch.setattr(evaluate_fidelity, "open_extractor", known.__getitem__)
    cache = tmp_path_factory.getbasetemp() / "cache"
    cache.mkdir(exist_ok=True)
    monkeypatch.setenv("RFXRAY_CACHE", str(cache))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory, tiny_records):
    """A folder such as `rfxray sample` writes: 60 images at half the size of the reals."""
    out = tmp_path_factory.mktemp("drawn") / "samples"
    out.mkdir()
    entries = []
    for number, record in enumerate(tiny_records(range(200, 260))):
        image = np.ascontiguousarray(record["image"][::2, ::2])
        image[0, 0] = number
        name = f"sample_{number:05d}.png"
        files.save_png(out / name, image)
        asked = {"view": "PA" if number % 2 else "AP", "age": float(40 + number % 20)}
        entries.append({"file": name, "attributes": asked})
    (out / "samples.json").write_text(json.dumps({"plan": {}, "pictures": entries}))
    return out


def run(*words):
    evaluate.main(["fidelity", *map(str, words)])


def results(out):
    return json.loads((out / "results.json").read_text())


def figures(found, **wanted):
    return [r for r in found["figures"] if all(r[k] == v for k, v in wanted.items())]


@pytest.fixture(scope="session")
def compared(tmp_path_factory, tiny_data, drawn):
    """The folder of one comparison by two extractors."""
    out = tmp_path_factory.mktemp("compared") / "out"
    with pytest.MonkeyPatch.context() as patch:
        known = {"small": projection(8, name="small"), "large": projection(80, 1, name="large")}
        patch.setattr(evaluate_fidelity, "open_extractor", known.__getitem__)
        patch.setenv("RFXRAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        words = ["--real", tiny_data, "--synthetic", drawn, "--extractor", "small,large"]
        run(*words, "--train", f"{tiny_data}:train", "--out", out)
    return out


def test_every_figure_has_its_numbers_and_stands_beside_its_floors(compared):
    found = results(compared)
    assert [row["kind"] for row in figures(found, name="KID", extractor="small")][:1] == ["figure"]
    for extractor, width in (("small", 8), ("large", 80)):
        about = found["extractors"][extractor]
        assert about["width"] == width
        assert len(about["hash"]) == 64
        assert "16x16 area" in about["resize_path"]
        for name in MEASURES:
            (own,) = figures(found, extractor=extractor, name=name, kind="figure")
            assert (own["n_real"], own["n_synthetic"]) == (70, 60)
            for kind in ("real floor", "resolution floor"):
                (floor,) = figures(found, extractor=extractor, name=name, kind=kind, part="")
                assert floor["n_real"] == floor["n_synthetic"] <= 35
    assert found["sets"]["real"]["patients"] == 70
    assert found["sets"]["samples"]["patients"] is None
    assert found["command"].startswith("rfxray evaluate fidelity --real tiny --synthetic samples")


def test_samples_are_farther_from_the_reals_than_halves_of_the_reals(compared):
    found = results(compared)
    of = {"extractor": "small", "name": "energy distance"}
    (own,), (floor,) = (figures(found, kind=kind, **of) for kind in ("figure", "real floor"))
    assert own["value"] > 2 * abs(floor["value"])


def test_measures_that_need_more_images_say_so(compared):
    found = results(compared)
    (full,) = figures(found, extractor="large", name="FD", kind="figure")
    assert full["value"] is None
    assert "needs 160 images of each set (got 60)" in full["reason"]
    (principal,) = figures(found, extractor="large", name="FD64", kind="figure")
    assert principal["value"] is None
    assert "320" in principal["reason"]


def test_parts_of_fifty_images_have_a_figure_and_others_the_reason(compared):
    found = results(compared)
    parts = {row["part"]: row for row in figures(found, extractor="small", kind="part")}
    assert parts["view=PA"]["value"] is None
    assert parts["view=PA"]["reason"] == "it needs 50 images of each set (got 24)"
    assert parts["source=phantom"]["n_real"] == 70
    assert {"age=40 to 49", "cardiomegaly=present"} <= parts.keys()


def test_parts_stand_beside_floors_of_the_same_part(tiny_data, other_data, tmp_path, monkeypatch):
    monkeypatch.setattr(strata, "LEAST", 10)
    words = ["--real", tiny_data, "--synthetic", other_data, "--extractor", "small"]
    run(*words, "--out", tmp_path / "o")
    found = results(tmp_path / "o")
    estimated = [row for row in figures(found, kind="part") if row["value"] is not None]
    assert "source=phantom" in {row["part"] for row in estimated}
    assert len(estimated) > 1
    for row in estimated:
        assert row["low"] < row["high"]
        (floor,) = figures(found, kind="real floor", part=row["part"], name="KID")
        assert (
            floor["n_real"] == floor["n_synthetic"] == min(row["n_synthetic"], row["n_real"] // 2)
        )
        assert floor["low"] < floor["high"]
    (whole,) = figures(found, kind="real floor", part="", name="KID")
    (same,) = figures(found, kind="real floor", part="source=phantom", name="KID")
    assert abs(same["value"] - whole["value"]) < (whole["high"] - whole["low"]) / 2
    text = (tmp_path / "o/report.html").read_text()
    assert f"{same['value']:.4g}" in text.split("<td>source=phantom</td>")[1][:600]


def test_page_needs_nothing_and_shows_no_path_and_no_key(compared, tiny_data, drawn):
    page = (compared / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    shared = page + (compared / "results.json").read_text()
    for path in (tiny_data.parent, drawn.parent, compared.parent):
        assert str(path) not in shared
    assert "phantom/p" not in shared
    assert "sample_0" not in shared
    assert page.count("data:image/png") == 24  # the farthest 12, of each extractor
    assert "circular" in page
    assert "not estimable" in page


def test_table_of_images_is_by_key(compared, drawn):
    rows = list(csv.DictReader((compared / "images.csv").open()))
    assert [row["key"] for row in rows] == sorted(p.name for p in drawn.glob("sample_*"))
    assert {row["small authentic"] for row in rows} <= {"0", "1"}
    assert all(float(row["large nearest"]) > 0 for row in rows)


def test_second_run_extracts_nothing_and_gives_the_same_figures(
    tiny_data, drawn, tmp_path, monkeypatch, capsys
):
    words = ["--real", tiny_data, "--synthetic", drawn, "--extractor", "small"]
    run(*words, "--out", tmp_path / "a")
    monkeypatch.setattr(features, "_write_parts", lambda *_: pytest.fail("extracted again"))
    capsys.readouterr()
    run(*words, "--out", tmp_path / "a")
    said = capsys.readouterr().out
    assert "small: 70 images of tiny:train+validation from the cache" in said
    assert said.splitlines()[-1] == f"wrote {tmp_path / 'a' / 'report.html'}"
    before = results(tmp_path / "a")
    run(*words, "--out", tmp_path / "b")
    assert results(tmp_path / "b")["figures"] == before["figures"]


def test_each_line_of_a_figure_has_n_floors_and_extractor(tiny_data, drawn, tmp_path, capsys):
    words = ["--real", tiny_data, "--synthetic", drawn, "--extractor", "small"]
    run(*words, "--out", tmp_path / "a")
    said = capsys.readouterr().out.splitlines()
    (line,) = (line for line in said if "samples: KID" in line)
    assert ", N 70 × 60, real floor " in line
    assert ", resolution floor " in line
    assert sum("weights" in line and "16x16 area" in line for line in said) == 1
    assert any("circular: small was trained on phantom" in line for line in said)


def test_model_that_was_trained_on_the_data_of_an_extractor_is_circular(
    tiny_data, drawn, tmp_path, capsys
):
    words = ["--real", tiny_data, "--synthetic", drawn, "--extractor", "small"]
    run(*words, "--model", PACKAGED, "--out", tmp_path / "a")
    said = capsys.readouterr().out
    assert f"small was trained on phantom, the source of {PACKAGED.name}" in said
    command = json.loads((tmp_path / "a" / "results.json").read_text())["command"]
    assert f"--model {PACKAGED.name}" in command
    assert str(PACKAGED) not in command


# ------------------------------------------------------------------------------------------------
# What is refused


def refused(refusal, *words):
    return refusal(evaluate.main, ["fidelity", "--extractor", "small", *words])


def test_sets_that_share_a_key_are_refused(refusal, tiny_data, tmp_path):
    words = ["--real", tiny_data, "--synthetic", f"{tiny_data}:train", "--out", tmp_path / "o"]
    code, line = refused(refusal, *words)
    assert code == 65
    assert "overlap: 50 pictures of the same keys, such as phantom/p0/s/i" in line
    assert not (tmp_path / "o").exists()


def test_sets_that_share_pixels_are_refused_whatever_the_file(refusal, tiny_data, drawn, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(drawn, copy)
    record = Records(open_dataset(tiny_data), "train")[7]
    files.save_png(copy / "sample_00003.png", record["image"], {"other": "file"})
    words = ["--real", tiny_data, "--synthetic", copy, "--out", tmp_path / "o"]
    code, line = refused(refusal, *words)
    assert code == 65
    assert "overlap: 1 pictures of the same pixels, such as sample_00003.png" in line


def folder_of(path, count=12, side=40):
    path.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = np.kron(
            rng.integers(0, 255, (5, 5), np.uint8), np.ones((side // 5,) * 2, np.uint8)
        )
        Image.fromarray(pixels).save(path / f"{number:02d}.png")
    return path


def test_unreadable_file_is_refused_or_counted_and_listed(refusal, tiny_data, tmp_path, capsys):
    folder = folder_of(tmp_path / "folder")
    (folder / "05.png").write_bytes(b"not a picture")
    words = ["--real", tiny_data, "--synthetic", folder, "--out", tmp_path / "o"]
    code, line = refused(refusal, *words)
    assert code == 65
    assert "05.png: neither PNG, JPEG nor DICOM; repair or remove the file" in line
    assert not (tmp_path / "o").exists()
    run("--extractor", "small", *words, "--skip-rejected")
    assert "folder: 1 files rejected; see rejected.csv" in capsys.readouterr().out
    found = results(tmp_path / "o")
    assert found["sets"]["folder"]["images"] == 11
    assert found["sets"]["folder"]["rejected"] == {"neither PNG, JPEG nor DICOM": 1}
    rows = list(csv.reader((tmp_path / "o/rejected.csv").open()))
    assert rows[1:] == [["folder", "05.png", "neither PNG, JPEG nor DICOM"]]
    assert "1 files rejected" in (tmp_path / "o/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--synthetic", "/nowhere"], "no folder /nowhere"),
        (["--synthetic", "REAL:nosplit"], "no split 'nosplit'"),
        (["--synthetic", "DRAWN", "--synthetic", "DRAWN"], "--synthetic is given twice"),
        (["--synthetic", "DRAWN", "--csv", "x=y.csv"], "--csv x=y.csv must be FOLDER=FILE"),
        (["--synthetic", "DRAWN", "--csv", "DRAWN="], "names no file"),
        (["--synthetic", "DRAWN", "--csv", "DRAWN=a", "--csv", "DRAWN=b"], "DRAWN twice"),
        (["--synthetic", "DRAWN", "--seed", "-1"], "--seed must be 0 or more (got -1)"),
        (["--synthetic", "DRAWN", "--protocol", "chexgenbench"], "needs --extractor inception"),
    ],
)
def test_wrong_command_is_one_line(refusal, tiny_data, drawn, tmp_path, words, said):
    places = {"DRAWN": str(drawn), "REAL:nosplit": f"{tiny_data}:nosplit"}
    given = [places.get(word, word.replace("DRAWN", str(drawn))) for word in words]
    code, line = refused(refusal, "--real", tiny_data, "--out", tmp_path / "o", *given)
    assert code in (65, 78)
    assert said.replace("DRAWN", str(drawn)) in line


def test_folder_of_somebody_else_is_not_written(refusal, tiny_data, drawn, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    words = ["--real", tiny_data, "--synthetic", drawn, "--out", tmp_path]
    code, line = refused(refusal, *words)
    assert code == 78
    assert "is not empty and was not written by this command" in line


# ------------------------------------------------------------------------------------------------
# Edges


@pytest.mark.parametrize("count", [1, 3, 12])
def test_tiny_sets_give_reasons_and_never_nan(tiny_data, tmp_path, count):
    folder = folder_of(tmp_path / "few", count)
    words = ["--real", tiny_data, "--synthetic", folder, "--train", f"{tiny_data}:train"]
    run(*words, "--extractor", "small", "--out", tmp_path / "o")
    text = (tmp_path / "o/results.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    for row in results(tmp_path / "o")["figures"]:
        assert (row["low"] is None) == bool(row["reason"])
        assert row["low"] is None or row["low"] < row["high"]


def test_same_image_many_times_is_counted_and_scored(tiny_data, tmp_path):
    folder = folder_of(tmp_path / "collapsed", 20)
    first = np.asarray(Image.open(folder / "00.png"))
    for number in range(20):  # other files of the same pixels
        files.save_png(folder / f"{number:02d}.png", first, {"number": number})
    words = ["--real", tiny_data, "--synthetic", folder, "--extractor", "small"]
    run(*words, "--out", tmp_path / "o")
    found = results(tmp_path / "o")
    assert found["sets"]["collapsed"]["repeated"] == 19
    (precision,) = figures(found, name="precision", kind="figure")
    assert precision["value"] in (0, 1)


def test_table_gives_a_folder_its_patients_and_attributes(tiny_data, tmp_path):
    folder = folder_of(tmp_path / "films", 6)
    table = tmp_path / "films.csv"
    lines = [f"p{number // 2},{number:02d}.png,F" for number in range(6)]
    table.write_text("\n".join(["patient,image,sex", *lines]))
    words = ["--real", folder, "--csv", f"{folder}={table}", "--synthetic", tiny_data]
    run(*words, "--extractor", "small", "--out", tmp_path / "o")
    found = results(tmp_path / "o")
    assert found["sets"]["real"]["patients"] == 3
    assert str(tmp_path) not in found["command"]
    assert "--csv films=films.csv" in found["command"]
    page = (tmp_path / "o/report.html").read_text()
    assert "data:image" in page  # phantoms, which are of no patient


def test_two_models_are_compared_on_the_same_reals(tiny_data, other_data, drawn, tmp_path):
    words = ["--real", tiny_data, "--synthetic", drawn, "--synthetic", other_data]
    run(*words, "--extractor", "small", "--out", tmp_path / "o")
    found = results(tmp_path / "o")
    (difference,) = figures(found, kind="difference", name="KID difference")
    (plain,) = figures(found, kind="difference", name="FD difference")
    assert plain["value"] is None
    assert "60 and 30 samples; give as many of each" in plain["reason"]
    values = [
        figures(found, kind="figure", name="KID", synthetic=label)[0]["value"]
        for label in ("samples", "other:train")
    ]
    assert difference["value"] == pytest.approx(values[0] - values[1], rel=1e-6)
    assert difference["part"] == "other:train"
    assert "samples less other:train" in (tmp_path / "o/report.html").read_text()


# ------------------------------------------------------------------------------------------------
# Shared with the training set


def test_reals_and_samples_of_the_training_set_are_counted_and_said(
    tiny_data, drawn, tmp_path, capsys
):
    words = ["--real", tiny_data, "--train", f"{tiny_data}:train", "--synthetic", drawn]
    run(*words, "--extractor", "small", "--out", tmp_path / "o")
    assert "real: 50 of 70 images are in the training set" in capsys.readouterr().out
    found = results(tmp_path / "o")
    assert found["sets"]["real"]["in_training_set"] == 50
    assert found["sets"]["samples"]["in_training_set"] == 0
    (floor,) = figures(found, name="AuthPct", kind="real floor")
    assert floor["value"] is None
    assert floor["reason"] == "50 reals are in the training set"
    assert "50 of 70 images of the set real are in" in (tmp_path / "o/report.html").read_text()


def test_samples_that_are_training_images_have_an_authpct_of_zero(tiny_data, drawn, tmp_path):
    words = ["--real", f"{tiny_data}:validation", "--train", drawn, "--synthetic", drawn]
    run(*words, "--extractor", "small", "--out", tmp_path / "o")
    found = results(tmp_path / "o")
    assert found["sets"]["samples"]["in_training_set"] == 60
    (share,) = figures(found, name="AuthPct", kind="figure")
    assert share["value"] == 0
    assert share["high"] > 0


# ------------------------------------------------------------------------------------------------
# Two processes, a kill, a full disk


def test_second_command_on_one_folder_is_refused(refusal, tiny_data, drawn, tmp_path):
    (tmp_path / "o").mkdir()
    words = ["--real", tiny_data, "--synthetic", drawn, "--out", tmp_path / "o"]
    with lock.locked(tmp_path / "o"):
        code, line = refused(refusal, *words)
    assert code == 78
    assert f"another process is writing {tmp_path / 'o'}" in line
    run("--extractor", "small", *words)
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == sorted(folder.FILES)


def test_folder_that_cannot_be_made_is_refused_before_anything_is_extracted(
    refusal, tiny_data, drawn, tmp_path, monkeypatch
):
    monkeypatch.setattr(features, "extracted", lambda *_: pytest.fail("extracted"))
    (tmp_path / "file").write_text("")
    words = ["--real", tiny_data, "--synthetic", drawn, "--out", tmp_path / "file" / "o"]
    code, line = refused(refusal, *words)
    assert code == 78
    assert "Not a directory" in line


def test_disk_that_refuses_leaves_the_earlier_results_or_all_new_ones(
    tiny_data, drawn, tmp_path, capfd, monkeypatch
):
    cache, out = tmp_path / "cache", tmp_path / "o"
    cache.mkdir()
    monkeypatch.setenv("RFXRAY_CACHE", str(cache))
    words = ["--real", f"{tiny_data}:validation", "--synthetic", drawn, "--extractor", "small"]
    run(*words, "--out", out)

    def content():
        return {path.name: path.read_text() for path in out.iterdir() if path.name != lock.NAME}

    earlier = content()
    for first, number in enumerate(itertools.cycle((errno.ENOSPC, errno.EROFS))):
        capfd.readouterr()
        code = 0
        with full_disk.refusing(out, first, number) as calls, conftest.keep_signal_handlers():
            try:
                run(*words, "--seed", "1", "--out", out)
            except SystemExit as end:
                code = end.code
        said = [line for line in capfd.readouterr().err.splitlines() if ": error: " in line]
        if len(calls) <= first:
            break
        assert code == (75 if number == errno.ENOSPC else 78), first
        assert len(said) == 1
        left = content()
        assert left == earlier or "results.json" not in left, first
        earlier = left
    assert code == 0
    assert json.loads(content()["results.json"])["seed"] == 1
    assert first > 8


def test_killed_command_continues_with_what_was_extracted(tiny_data, drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    words = ["--real", tiny_data, "--synthetic", drawn, "--extractor", "small"]
    with monkeypatch.context() as patch:
        patch.setattr(folder, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(*words, "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / f".results.json.{'0' * 32}.tmp").write_text("{")  # of a process killed there
    monkeypatch.setattr(features, "_write_parts", lambda *_: pytest.fail("extracted again"))
    run(*words, "--out", tmp_path / "o")
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == sorted(folder.FILES)


# ------------------------------------------------------------------------------------------------
# What may be shared


def test_files_that_may_be_of_patients_are_shown_only_if_asked(tiny_data, tmp_path):
    films = folder_of(tmp_path / "films")
    words = ["--real", tiny_data, "--synthetic", films, "--extractor", "small"]
    for flags, count in (([], 0), (["--show-files"], 12)):
        run(*words, *flags, "--out", tmp_path / "o")
        page = (tmp_path / "o/report.html").read_text()
        assert page.count("data:image/png") == count
        assert ("nothing says that its files are not of patients" in page) == (count == 0)
    assert "--show-files" in results(tmp_path / "o")["command"]


def test_data_set_of_patients_is_never_shown(tiny_data, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(strata, "sources", lambda _: {"nih"})
    words = ["--real", drawn, "--synthetic", tiny_data, "--extractor", "small", "--show-files"]
    run(*words, "--out", tmp_path / "o")
    page = (tmp_path / "o/report.html").read_text()
    assert "data:image" not in page
    assert "it is a data set of patients" in page


@pytest.mark.parametrize("kind", ["duplicate", "torn"])
def test_reasons_of_rejected_files_name_no_file_in_what_is_shared(tiny_data, tmp_path, kind):
    films = folder_of(tmp_path / "films")
    if kind == "duplicate":
        shutil.copy(films / "05.png", films / "Doe^John.png")
    else:
        (films / "Doe^John.png").write_bytes((films / "05.png").read_bytes()[:60])
    words = ["--real", tiny_data, "--synthetic", films, "--extractor", "small"]
    run(*words, "--skip-rejected", "--out", tmp_path / "o")
    assert "Doe" in (tmp_path / "o/rejected.csv").read_text()
    for shared in ("results.json", "report.html"):
        text = (tmp_path / "o" / shared).read_text()
        assert "Doe" not in text
        assert "05.png" not in text
    assert sum(results(tmp_path / "o")["sets"]["films"]["rejected"].values()) == 1


def test_real_images_of_another_size_or_format_among_samples_are_said(tmp_path, capsys):
    rng = np.random.default_rng(5)
    films, drawn = tmp_path / "films", tmp_path / "drawn"
    films.mkdir()
    drawn.mkdir()
    for number in range(48):
        grey = Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8))
        film = grey.resize((96, 96), Image.Resampling.BICUBIC)
        if number < 24:
            film.save(films / f"{number:02d}.png")
        elif number < 36:
            film.resize((64, 64)).save(drawn / f"{number:02d}.png")
        if number < 4:
            film.resize((64, 64)).save(drawn / f"copy{number}.png")
        elif number < 8:
            film.resize((64, 64)).save(drawn / f"copy{number}.jpg", quality=80)
    words = ["--real", films, "--synthetic", drawn, "--extractor", "large"]
    run(*words, "--out", tmp_path / "o")
    said = capsys.readouterr().out
    assert "large: 8 of 20 images of drawn look like a real one" in said
    marked = [
        row["key"]
        for row in csv.DictReader((tmp_path / "o/images.csv").open())
        if row["large copy"] == "1"
    ]
    assert all(key.startswith("copy") for key in marked)
    assert len(marked) == 8
    assert "8 of 20 images of drawn look like" in (tmp_path / "o/report.html").read_text()


def test_samples_that_are_no_copies_are_not_suspected(compared):
    assert all(of["suspects"] == [] for of in results(compared)["extractors"].values())
