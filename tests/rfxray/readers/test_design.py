"""Studies that are designed: what they show, what they hide, what they refuse."""

import functools
import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="the extra prep")

from rfxray.commands import readers as command
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import files
from rfxray.readers import answers, design, leaks
from rfxray.readers.candidates import Candidate
from rfxray.readers.reader_page import STRINGS

SIDE = 64


def film(seed: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    body = 30000 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) * 4)
    return (body + rng.normal(0, 2500, (side, side)) + 12000).clip(0, 65535).astype(np.uint16)


def candidates(kind: str, count: int, plant=None) -> list[Candidate]:
    start = 10_000 * kind.startswith("synthetic") + 1000 * kind.count("+")

    def pixels(seed, side):
        image = film(seed, side)
        return image if plant is None else plant(image)

    return [
        Candidate(
            f"{kind}-{n}", "", {"view": ("AP", "PA")[n % 2]}, functools.partial(pixels, start + n)
        )
        for n in range(count)
    ]


def wanted(**changes) -> design.Design:
    values = {"study": "s-1", "modality": "single", "cases": 20, "training": 4, "readers": 2}
    values |= {"repeats": 0.2, "match": ("view",), "size": SIDE}
    return design.Design(**(values | changes))


def made(real=None, synthetic=None, **changes) -> design.Made:
    rng = np.random.default_rng(3)
    real = candidates("real", 40) if real is None else real
    synthetic = candidates("synthetic", 40) if synthetic is None else synthetic
    return design.make(wanted(**changes), real, synthetic, rng, STRINGS)


def shown(html: str) -> dict:
    import html as markup

    return json.loads(markup.unescape(re.search(r'data-study="(.*?)"', html)[1]))


def test_cases_are_balanced_matched_and_repeated_after_a_washout():
    study = made()
    key = json.loads(study.key)
    truths = [(case["truth"], case["view"]) for case in key["cases"].values()]
    assert sum(truth for truth, _ in truths) == 10
    for view in ("AP", "PA"):
        assert truths.count((0, view)) == truths.count((1, view))
    orders = []
    for html in study.pages.values():
        items = [i for i in shown(html)["items"] if i["phase"] == "reading"]
        first = [i["case"] for i in items if not i["repeat"]]
        again = [i["case"] for i in items if i["repeat"]]
        assert sorted(first) == sorted(key["cases"])
        assert len(again) == 4
        assert all(len(first) + again.index(c) - first.index(c) >= 10 for c in again)
        orders.append(first)
    assert orders[0] != orders[1]


def test_pairs_show_the_synthetic_image_as_often_on_either_side():
    study = made(modality="pairs")
    key = json.loads(study.key)
    for reader, html in study.pages.items():
        for item in shown(html)["items"]:
            if item["phase"] == "reading":
                place = key["sides"][reader][str(item["item"])]
                found = [key["images"][name].split("-")[0] for name in item["images"]]
                assert found[("left", "right").index(place)] == "synthetic"
                assert found.count("real") == 1
        first = [key["sides"][reader][str(n)] for n in range(5, 25)]
        assert first.count("left") == 10
    with pytest.raises(DataError, match="left in 8 of 20"):
        leaks.refuse_imbalance(8, 20)


@pytest.mark.parametrize("modality", ["single", "pairs"])
def test_page_holds_no_truth_and_asks_for_nothing(modality):
    study = made(modality=modality)
    key = json.loads(study.key)
    for html in study.pages.values():
        content = shown(html)
        assert key["nonce"] not in html
        assert not any(name in html for name in key["images"].values())
        for item in content["items"]:
            expected = {"item", "case", "repeat", "phase", "images"}
            assert set(item) - expected == ({"feedback"} if item["phase"] == "training" else set())
        assert list(content["images"]) == sorted(content["images"])
        assert len({len(uri) for uri in content["images"].values()}) == 1
        assert not re.search(r"https?://|truth|nonce", html)


@pytest.mark.parametrize("wrong", [{"cases": 3}, {"cases": 21}, {"repeats": 0.6}, {"study": " "}])
def test_wrong_designs_are_refused(wrong):
    with pytest.raises(ConfigError):
        wanted(**wrong)


def test_command_refuses_a_key_beside_the_pages(tmp_path, refusal):
    code, line = refusal(
        command.main,
        [
            *("design", "--study", "s", "--real", tmp_path, "--synthetic", tmp_path),
            *("--cases", "8", "--readers", "1"),
            *("--key", tmp_path / "out" / "key.json", "--out", tmp_path / "out"),
        ],
    )
    assert code == 78
    assert "inside --out" in line


def test_answers_of_the_columns_are_those_of_the_format():
    (html, *_) = made().pages.values()
    assert tuple(shown(html)["columns"]) == answers.COLUMNS


FLAGS = ("--cases", "8", "--readers", "3", "--training", "0", "--size", "32")


@pytest.fixture
def sets(tmp_path):
    """Folders of PNGs with their tables, as a hospital has them: `sets(real, synthetic)`."""

    def make(real=12, synthetic=12, columns="view,sex,age", row="PA,{sex},{age}"):
        words = []
        for k, (kind, count) in enumerate((("real", real), ("synthetic", synthetic))):
            folder = tmp_path / kind
            folder.mkdir()
            lines = [f"image,{columns}"]
            for n in range(count):
                image = Image.fromarray(film(1000 * k + n, 48))
                image.save(folder / f"{n}.png")
                lines.append(f"{n}.png," + row.format(sex=("male", "F")[n % 2], age=40 + n % 10))
            table = tmp_path / f"{kind}.csv"
            table.write_text("\n".join(lines) + "\n")
            words += [f"--{kind}", folder, f"--{kind}-csv", table]
        key, out = tmp_path / "safe" / "key.json", tmp_path / "out"
        return ["design", "--study", "s", *words, *FLAGS, "--key", key, "--out", out]

    return make


def test_command_makes_a_study_from_folders_and_tables(sets, tmp_path, capsys):
    words = sets()
    command.main([*map(str, words), "--match", "view,sex,age_decade,burned_in_text"])
    assert capsys.readouterr().out.endswith(f"key {tmp_path / 'safe' / 'key.json'}\n")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["protocol.md", "reader-1.html", "reader-2.html", "reader-3.html"]
    key = json.loads((tmp_path / "safe" / "key.json").read_text())
    assert {case["sex"] for case in key["cases"].values()} == {"M", "F"}
    assert {case["age_decade"] for case in key["cases"].values()} == {"40"}
    assert oct((tmp_path / "safe" / "key.json").stat().st_mode)[-3:] == "600"
    protocol = (tmp_path / "out" / "protocol.md").read_text()
    assert "matched by view, sex, age_decade, burned_in_text" in protocol
    assert str(tmp_path) not in protocol


def test_protocol_has_the_power_of_its_design_and_the_hash_of_its_key(sets, tmp_path):
    from rfxray.readers import plan
    from rfxray.readers.roe_metz import RoeMetz

    words = [*map(str, sets(40, 40)), "--cases", "40", "--margin", "0.2", "--degraded", "6"]
    command.main(words)
    protocol = (tmp_path / "out" / "protocol.md").read_text()
    wanted = plan.Wanted(0.2, 0.8, 0.5, (3,), (40,), RoeMetz(), 2000)
    found = plan.design(wanted, 3, 40)
    assert f"within the margin in {found.found.tost:.0%} of 2,000 simulated studies" in protocol
    assert f'"equivalent" in {found.found.equivalent:.0%}' in protocol
    assert hashlib.sha256((tmp_path / "safe" / "key.json").read_bytes()).hexdigest() in protocol
    for said in ("6 degraded real images", "Ethics approval", "Consent", "Withdrawal", "commit"):
        assert said in protocol


def test_study_is_written_as_a_whole_or_its_folder_says_so(sets, tmp_path, monkeypatch, refusal):
    words = sets()
    written = files.write_whole

    def full(path, content):
        if path.name == "reader-2.html":
            raise OSError(28, "No space left on device", str(path))
        written(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", full)
        code, line = refusal(command.main, words)
    assert code == 75
    assert "check free space" in line
    command.main([*map(str, words)])  # the same command begins again
    assert (tmp_path / "out" / "protocol.md").exists()

    (tmp_path / "out" / "protocol.md").unlink()  # as a kill leaves it
    code, line = refusal(command.main, [*words[:-3], tmp_path / "other.json", *words[-2:]])
    assert code == 78
    assert "has no protocol.md: a study that was interrupted?" in line


def test_second_process_on_the_same_folder_does_not_mix_two_studies(
    sets, tmp_path, monkeypatch, refusal
):
    """The other one finishes while this one is drawing."""
    words = sets()
    make = design.make

    def slow(*given):
        monkeypatch.setattr(design, "make", make)
        command.main([*map(str, words[:-3]), str(tmp_path / "first.json"), *map(str, words[-2:])])
        return make(*given)

    monkeypatch.setattr(design, "make", slow)
    code, line = refusal(command.main, words)
    assert code == 78
    assert "is not empty" in line
    assert not (tmp_path / "safe").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--match", "veiw"], 65, "has a known veiw; --match takes age, age_decade"),
        (["--cases", "40"], 65, "needs 20 images of each side and has 12 real and 12 synthetic"),
        (["--size", "64"], 78, "48 pixels on its longer side, fewer than --size 64"),
        (["--margin", "0.7"], 78, "--margin must be above 0 and below 0.5"),
        (["--degraded", "3"], 78, "--degraded must be 0 or at least 6"),
        (["--reconstructions", "3"], 78, "does not read --reconstructions"),
        (["--model-grid", "0.5"], 78, "--model-grid must be above 1 pixel"),
        (["--real", "gone"], 65, "no folder gone"),
        (["--real-csv", "gone.csv"], 78, "gone.csv is not a file"),
    ],
)
def test_bad_requests_are_one_line(sets, refusal, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    found, line = refusal(command.main, [*sets(), *words])
    assert found == code
    assert said in line
    assert not (tmp_path / "safe").exists()
