"""README's lines about sampling, editing and export, run in their order in one folder.

The run is a tiny one; the lines that name none use the model of the package.
"""

import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfxray import sampling
from rfxray.attributes import vocabulary
from rfxray.commands import table
from rfxray.data.dataset import Records, open_dataset
from tests.conftest import keep_signal_handlers

SECTIONS = ("First samples", "Sample", "Edit", "Export")
README = Path(__file__).resolve().parents[1] / "README.md"


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the code blocks above the first section, and of `SECTIONS`."""
    text = README.read_text(encoding="utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    chosen = [parts[0], *(p for p in parts if p.startswith(tuple(f"{s}\n" for s in SECTIONS)))]
    assert len(chosen) == 1 + len(SECTIONS)
    return [pair for part in chosen for pair in re.findall(r"```(\w+)\n(.*?)```", part, re.DOTALL)]


def run_shell(text: str, folder: Path) -> None:
    """Runs lines of a shell; `rfxray NAME …` in this process, which has the programs compiled."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["rfxray"]:
            subprocess.run(["bash", "-c", line], cwd=folder, check=True)
            continue
        code: object = 0
        try:
            table.main(words[1:])
        except SystemExit as ended:
            code = ended.code
        assert not code, line


@pytest.fixture(scope="module")
def folder(trained, tiny_data, tmp_path_factory):
    """The folder after all lines, and what the lines of Python left."""
    place = tmp_path_factory.mktemp("readme")
    (place / "runs" / "smoke").mkdir(parents=True)
    (place / "runs" / "smoke" / "train").symlink_to(trained)
    Image.fromarray(Records(open_dataset(tiny_data), "train")[3]["image"]).save(place / "chest.png")
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch, keep_signal_handlers():
        patch.chdir(place)
        for language, text in blocks():
            assert language in ("sh", "python")
            if language == "python":
                exec(compile(text, str(README), "exec"), names)
            else:
                run_shell(text, place)
    return place, names


def entries(folder: Path) -> list[dict]:
    return json.loads((folder / "samples.json").read_text())["pictures"]


@pytest.mark.drill
def test_every_command_of_the_readme_leaves_what_it_says(folder):
    place, _ = folder
    drawn = {"first": 16, "python": 16, "samples": 16, "table": 12, "rows": 4, "many": 6}
    for out, n in (drawn | {"of_export": 2}).items():
        assert len(entries(place / "out" / out)) == n, out
    for out in ("samples", "table", "rows"):
        assert (place / "out" / out / "grid.png").is_file()
        assert "command" in json.loads((place / "out" / out / "samples.json").read_text())
    assert (place / "out" / "samples" / "gallery.html").is_file()
    rows = entries(place / "out" / "rows")
    assert [entry["file"] for entry in rows] == ["a_0.png", "a_1.png", "b_0.png", "b_1.png"]
    assert rows[0]["row"] == {"image_id": "a"}
    assert rows[0]["attributes"]["sex"] == "F"
    assert rows[0]["attributes"]["age"] == 63.0
    assert rows[0]["attributes"]["cardiomegaly"] == "present"
    assert "cardiomegaly" not in rows[2]["attributes"]
    with Image.open(place / "out" / "samples" / "sample_00000.png") as picture:
        assert picture.mode == "I;16"
    assert (place / "out" / "edit" / "edited.png").is_file()
    assert len(list((place / "out" / "many").glob("*.dcm"))) == 6


@pytest.mark.drill
def test_the_arrays_of_the_readme_are_as_it_says(folder):
    _, names = folder
    samples, edited = names["samples"], names["edited"]
    assert isinstance(samples, sampling.Pictures)
    assert (samples.images.shape, samples.images.dtype) == ((2, 64, 64), np.float32)
    assert samples.settings.guidance == sampling.Settings().guidance == 2.0
    assert edited.shape == (2, 64, 64)
    assert np.abs(samples.images).max() <= 1


def test_figures_of_the_readme_about_attributes_are_true():
    text = README.read_text(encoding="utf-8")
    assert f"The {vocabulary.NUM_ATTRIBUTES} attributes are `view` (PA, AP, lateral)" in text
    assert f"the {len(vocabulary.PATHOLOGIES)} CheXpert\npathologies" in text
    assert f"under {vocabulary.NUM_ATTRIBUTES} clinical attributes" in text
