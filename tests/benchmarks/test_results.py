"""docs/results.md says what the stored results say, and marks what is older than its code."""

import json
import shlex
from pathlib import Path

import pytest

from benchmarks import degradations, results, ssl_probe
from rfxray import version
from rfxray.commands import evaluate_fidelity
from rfxray.commands import table as commands
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.pictures import STORED
from rfxray.outputs import files
from tests import conftest
from tests.rfxray.evaluate.projection import projection

ROW = {
    "synthetic": "samples",
    "extractor": "efficientnet_lite0",
    "protocol": "corrected",
    "part": "",
    "name": "KID",
    "n_real": 1000,
    "n_synthetic": 50,
}


def found(code: str = "now", **changes) -> dict:
    figures = [
        {**ROW, "kind": "figure", "value": 0.25, "low": 0.2, "high": 0.3},
        {**ROW, "kind": "real floor", "value": 0.0125, "low": -0.1, "high": 0.1},
        {**ROW, "kind": "figure", "name": "FD", "value": None, "low": None, "high": None},
        {**ROW, "kind": "curve", "value": 0.4, "low": 0.2, "high": 0.6},
    ]
    how = {"command": "rfxray evaluate fidelity", "device": "2 × cpu", "seconds": {"figures": 2.5}}
    return {**how, "written_by": {"commit": "abc"}, "code": code, "figures": figures, **changes}


def now(of: dict) -> str:
    return "now"


PAGE = "before\n<!-- table one -->\nold\n<!-- end -->\nafter\n"


def test_pages_have_the_figures_of_the_stored_results():
    pages = [page.read_text(encoding="utf-8") for page in results.PAGES]
    assert results.filled(pages, results.stored()) == pages


def test_figure_stands_beside_its_floors_and_what_is_not_estimable_is_left_out():
    (page,) = results.filled([PAGE], {"one": found()}, now)
    row = "| samples | efficientnet_lite0 | KID | 1,000 × 50 | 0.25 | 0.2 to 0.3 | 0.0125 | – |"
    assert row in page.splitlines()
    assert page.count("| KID |") == 1
    assert "| FD |" not in page
    assert page.startswith("before")
    assert page.endswith("after\n")
    assert "old" not in page
    assert results.filled([page], {"one": found()}, now) == [page]


def test_result_older_than_its_code_is_stale():
    assert "Stale" not in results.filled([PAGE], {"one": found("now")}, now)[0]
    assert "Stale" in results.filled([PAGE], {"one": found("earlier")}, now)[0]


def test_digest_is_of_the_code_and_the_files_that_figures_come_from(tmp_path, monkeypatch):
    for name in results.CODE:
        place = tmp_path / name
        if (results.ROOT / name).is_dir():
            place.mkdir(parents=True)
            for inside in ("basis.npz", "page.html"):
                (place / inside).write_text(name)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / results.OWN["figures"]).write_text("from rfxray.evaluate import kernel\n")
    (tmp_path / results.OWN["studies"]).write_text("import rfxray.evaluate.kernel\n")
    (tmp_path / results.OWN["probes"]).write_text("")
    (tmp_path / "rfxray/evaluate/kernel.py").write_text("def f():\n    from . import intervals\n")
    (tmp_path / "rfxray/evaluate/privacy.py").write_text("")
    monkeypatch.setattr(results, "ROOT", tmp_path)

    def changed(name: str) -> tuple[bool, ...]:
        """Whether another content of a file is another digest, of each kind of results."""
        kinds = [{entry: []} for entry in ("figures", "studies", "probes")]
        before = [results.code(kind) for kind in kinds]
        with (tmp_path / name).open("a") as file:
            file.write("\nOTHER = 1\n")
        return tuple(
            now != then for now, then in zip(map(results.code, kinds), before, strict=True)
        )

    assert changed("rfxray/evaluate/packaged/page.html") == (False, False, False)
    assert changed("rfxray/evaluate/privacy.py") == (False, False, False)
    assert changed("rfxray/evaluate/fidelity.py") == (True, False, False)
    assert changed("benchmarks/degradations.py") == (False, True, False)
    assert changed("rfxray/evaluate/kernel.py") == (True, True, False)
    for name in ("evaluate/packaged/basis.npz", "data/display.py", "networks/vit.py"):
        assert changed(f"rfxray/{name}") == (True, True, True)


def test_digest_is_of_what_acts(tmp_path):
    file = tmp_path / "kernel.py"
    shapes = [
        'def f(a="# no comment"):\n    return """{}"""\n',
        '"""Of the module."""\n# why\n\ndef f(a="# no comment"):  # how\n'
        '    """Of it.\n\n    More.\n    """\n    return """{}"""\n',
    ]
    digests = []
    for text in (*shapes, shapes[1].replace("{}", "# other"), shapes[1].replace("no ", "a ")):
        file.write_text(text)
        digests.append(results._acts(file))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    data = tmp_path / "basis.npz"
    data.write_bytes(b"\x00# data")
    assert results._acts(data) == b"\x00# data"


def test_imports_are_followed_through_the_measures():
    found = {file.name for file in results._with_imports([results.ROOT / results.OWN["figures"]])}
    assert {"kernel.py", "two_sample.py", "pictures.py"} <= found
    assert "reconstruction.py" not in found


def test_table_without_results_and_results_without_a_table_are_refused():
    with pytest.raises(DataError, match="one"):
        results.filled([PAGE], {}, now)
    with pytest.raises(DataError, match="two"):
        results.filled([PAGE], {"one": found(), "two": found()}, now)


def test_table_of_blindness_names_the_faults_below_the_limit():
    order = {
        "blur": {"KID": 1.0, "FD64": 0.85, "recall": None},
        "mirror": {"KID": 0.3, "FD64": -0.5, "recall": 0.9},
    }
    studies = [{"extractor": "a", "order": order}]
    studies += [{"extractor": "b", "order": {"blur": order["blur"]}}]
    given = {**found(), "studies": studies}
    page = PAGE.replace("table one", "table one:blind")
    (filled,) = results.filled([page], {"one": given}, now)
    assert "| blind to | KID | FD64 | recall |" in filled
    assert "| a | mirror | blur, mirror | – |" in filled
    assert "| b | – | blur | – |" in filled


def test_only_results_of_this_commit_are_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "stored")
    (tmp_path / "stored").mkdir()
    file = tmp_path / "results.json"
    file.write_text(json.dumps(found()))
    with pytest.raises(ConfigError, match="commit abc"):
        results.add("one", file)
    file.write_text(json.dumps(found(written_by={"commit": version.commit()})))
    results.add("one", file)
    (stored,) = results.stored().values()
    assert stored["code"] == results.code(stored)
    assert "curve" not in {row["kind"] for row in stored["figures"]}
    file.write_text("[]")
    with pytest.raises(DataError, match="no results"):
        results.add("one", file)


# ------------------------------------------------------------------------------------------------
# The stored commands, at toy size

SIDE = 32
FILMS = 24  # of each split, set and folder


def split_name(given: str) -> tuple[str, list[str]]:
    """Name of a set of a command or of its results, and its splits: none of a folder of files."""
    name, _, splits = given.partition(":")
    return name, splits.split("+") if splits else []


def stand_ins(found: dict, where: Path, first: int = 0) -> None:
    """A small set of each name of a stored result, of the same kind and splits, in a folder."""
    sets = found.get("sets", {"data": found.get("data")}).values()
    splits: dict[str, list[str]] = {}
    for each in sets:
        name, own = split_name(each["name"])
        splits[name] = [*splits.get(name, []), *own]
    for each in sets:
        name, _ = split_name(each["name"])
        if (where / name).exists():
            continue
        if splits[name]:
            numbers = {}
            for split in dict.fromkeys(splits[name]):
                numbers[split] = range(first, first + FILMS)
                first += FILMS
            conftest.write(where / name, **numbers)
            continue
        (where / name).mkdir()
        entries = []
        for number, record in enumerate(conftest.draw(range(first, first + FILMS))):
            file = f"sample_{number:05d}.png"
            files.save_png(where / name / file, record["image"])
            entries.append({"file": file, "attributes": {"view": "PA"}})
        first += FILMS
        if each["reading"] == STORED:
            listed = json.dumps({"pictures": entries})
            (where / name / "samples.json").write_text(listed)


# Autoencoders are trained for the steps that the command names; test_autoencoders.py runs it.
# Causal models look at no image, and edits take a trained model; test_causes.py and test_edits.py
# run theirs.
OTHERS = {"arms", *results.OTHERS}
BRIEF = sorted(name for name, found in results.stored().items() if not OTHERS & found.keys())


@pytest.mark.parametrize("name", BRIEF)
def test_stored_command_runs_at_toy_size_and_gives_the_same_figures(name, tmp_path, monkeypatch):
    found = results.stored()[name]
    stand_ins(found, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path / "cache"))

    def small(spec):
        return projection(80, name=spec)

    monkeypatch.setattr(evaluate_fidelity, "open_extractor", small)
    monkeypatch.setattr(degradations, "open_extractor", small)
    program, *words = shlex.split(found["command"])
    for place, word in enumerate(words):
        if word == "--csv":  # a table of a folder
            folder, _, table = words[place + 1].partition("=")
            rows = [f"{file.name},p{n % 20}" for n, file in enumerate(Path(folder).iterdir())]
            Path(table).write_text("\n".join(["image,patient", *rows]) + "\n")
    if program == "rfxray":
        with conftest.keep_signal_handlers():
            commands.main(words)
        toy = json.loads((tmp_path / words[words.index("--out") + 1] / "results.json").read_text())
        assert toy["sets"].keys() == found["sets"].keys()

        def named(of):
            kinds = ("figure", "real floor", "difference")
            return {
                (row["synthetic"], row["extractor"], row["name"], row["kind"], row["part"])
                for row in of["figures"]
                if row["kind"] in kinds and "=" not in row["part"]
            }

        assert named(found) <= named(toy)
        (text,) = results.filled([PAGE], {"one": {**toy, "code": "now"}}, now)
        assert "| KID |" in text
    elif words[1] == "benchmarks.ssl_probe":
        monkeypatch.setattr(ssl_probe, "open_extractor", small)
        monkeypatch.setattr(ssl_probe, "twin", lambda encoder: projection(80, seed=1))
        ssl_probe.main([*words[2:], "--out", str(tmp_path / "out")])
        toy = json.loads((tmp_path / "out/probes.json").read_text())
        assert toy["data"]["name"] == found["data"]["name"]
        assert toy["weights"].keys() == found["weights"].keys()
        assert toy["probes"][0].keys() == found["probes"][0].keys()
    else:
        assert words[:2] == ["-m", "benchmarks.degradations"]
        degradations.main([*words[2:], "--out", str(tmp_path / "out")])
        toy = json.loads((tmp_path / "out/degradations.json").read_text())
        assert [study["order"].keys() for study in toy["studies"]] == [
            study["order"].keys() for study in found["studies"]
        ]
    assert toy["command"] == found["command"]
