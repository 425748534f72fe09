"""Every screen of the page: accessible (axe-core), translated whole, and without truth."""

import dataclasses
import importlib.util
import re
import secrets
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the extra prep")

from rfxray.readers import design, reader_page
from rfxray.readers.reader_page import STRINGS
from tests.rfxray.readers.person import SHOWN, answer, folder
from tests.rfxray.readers.test_design import candidates, made, shown, wanted

# Letters that no English word has: what is left in a to z was not translated.
FOREIGN = str.maketrans({chr(97 + n): chr(0x24D0 + n) for n in range(26)})
FOREIGN |= {65 + n: chr(0x24B6 + n) for n in range(26)}


def screens(page, place, reader="reader-1"):
    """Goes through a study with all phases, and yields the name of each screen when it is shown."""
    page.open(place / f"{reader}.html")
    page.click("#welcome_done")
    yield "welcome"  # with the alert that a question is open
    page.run("element('years').value = 3; null")
    page.click("#welcome_done")
    yield "check"
    page.run("document.querySelectorAll('#check select').forEach((s) => { s.value = 'no'; }); null")
    page.click("#check_done")
    yield "task of the diagnosis"
    page.click("#begin")
    page.until(SHOWN)
    yield "diagnosis"
    go_through(page, "diagnosis", "b")
    yield "task of the training"
    page.click("#begin")
    page.until(SHOWN)
    for key in ("ArrowLeft", "4"):
        page.press(key)
    yield "training"
    page.press("Enter")
    yield "feedback"
    page.press("Enter")
    go_through(page, "training", "ArrowLeft", "2", "Enter")
    yield "task of the reading"
    page.click("#begin")
    page.until(SHOWN)
    yield "reading"
    page.press("p")
    yield "pause"
    page.click("#resume")
    go_through(page, "reading", "ArrowRight", "2")
    yield "end"


def go_through(page, phase, *keys):
    for _ in range(page.run(f"study.items.filter((i) => i.phase === '{phase}').length")):
        if page.run(f"current()?.phase === '{phase}'"):
            answer(page, *keys)


def translated(**changes):
    strings = {name: text.translate(FOREIGN) for name, text in STRINGS.items()}
    strings["language"] = "eo"
    real, synthetic = candidates("real", 40), candidates("synthetic", 40)
    rng = np.random.default_rng(3)
    return design.make(wanted(study="7", **changes), real, synthetic, rng, strings)


FAULTS = """axe.run(document, { resultTypes: ['violations'] }).then((found) => found.violations
  .filter((one) => ['serious', 'critical'].includes(one.impact)).map((one) => one.id))"""
SHORT = {"cases": 4, "training": 2, "repeats": 0, "readers": 1, "diagnosis": ("edema", "fracture")}


def test_no_screen_has_a_serious_fault_of_accessibility(page, tmp_path):
    found = importlib.util.find_spec("axe_core_python")
    if found is None:
        pytest.skip("no axe-core-python")
    axe = (Path(found.submodule_search_locations[0]) / "axe.min.js").read_text()
    place = folder(tmp_path / "study", made(**SHORT))
    names, faults = [], []
    for name in screens(page, place):
        names.append(name)
        page.run(f"if (!window.axe) {{ {axe} }} null")
        faults += [f"{name}: {fault}" for fault in page.run(FAULTS)]
        assert page.run("document.documentElement.scrollWidth <= 1280"), name
        assert page.run("document.documentElement.scrollHeight <= 800"), name
    assert faults == []
    assert len(names) == 11
    page.run("element('export').textContent = ''; element('resting').style.color = '#222'; null")
    assert page.run(FAULTS) == ["button-name", "color-contrast"]


@pytest.mark.parametrize("modality", ["single", "pairs"])
def test_translation_leaves_no_english(page, tmp_path, modality):
    study = translated(**{**SHORT, "modality": modality, "training": 2})
    place = folder(tmp_path / "study", study)
    texts = {}
    for name in screens(page, place):
        texts[name] = page.run("""[document.title, document.body.innerText,
          ...[...document.querySelectorAll('[aria-label], [title], [alt], option')]
            .flatMap((e) => [e.ariaLabel, e.title, e.alt, e.textContent])].join(' ')""")
    left = {
        name: words
        for name, text in texts.items()
        if (words := re.findall(r"[a-z]{2,}", text.replace("reader-1", ""), re.IGNORECASE))
    }
    assert left == {}
    assert page.run("document.documentElement.lang") == "eo"


def test_every_text_of_the_table_is_used():
    parts = [*reader_page._SCRIPTS, "reader_page.html"]
    source = "".join((Path(reader_page.__file__).parent / name).read_text() for name in parts)
    made_up = r"(finding|feedback|score|sure|help|single|pairs|training|reading|diagnosis)(_|$)"
    unused = [
        name
        for name in STRINGS
        if not re.search(rf"\b(words|text)\.{name}\b", source) and not re.match(made_up, name)
    ]
    assert unused == []


@pytest.mark.parametrize("modality", ["single", "pairs"])
def test_pages_made_with_the_truth_flipped_differ_in_nothing_but_images(monkeypatch, modality):
    monkeypatch.setattr(secrets, "token_hex", lambda count: "0" * 2 * count)
    real, synthetic = candidates("real", 40), candidates("synthetic", 40)
    flipped = [
        [dataclasses.replace(a, pixels=b.pixels) for a, b in zip(first, second, strict=True)]
        for first, second in ((real, synthetic), (synthetic, real))
    ]
    pages = []
    for sets in ((real, synthetic), flipped):
        study = made(*sets, modality=modality, diagnosis=("edema",))
        pages.append(study.pages["reader-2"])
    contents = [shown(html) for html in pages]
    assert contents[0]["images"] != contents[1]["images"]
    for content in contents:
        content.pop("images")
    assert contents[0] == contents[1]
    outside = [re.sub(r'data-study=".*?"', "", html) for html in pages]
    assert outside[0] == outside[1]
