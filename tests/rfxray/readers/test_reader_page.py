"""The page in a real browser: read by keyboard, interrupted, resumed, exported, analysed."""

import json
import shutil

import pytest

pytest.importorskip("cv2", reason="the extra prep")

from rfxray.readers import answers, key, study
from tests.rfxray.readers.browser import started
from tests.rfxray.readers.test_design import made

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with started(CHROMIUM, tmp_path_factory.mktemp("profile")) as found:
        yield found


def folder(tmp_path, **changes):
    study_made = made(**changes)
    (tmp_path / "key.json").write_bytes(study_made.key)
    for reader, html in study_made.pages.items():
        (tmp_path / f"{reader}.html").write_text(html)
    return tmp_path


def begin(browser):
    browser.run("$('years').value = 7; $('screen').value = 'yes'; $('begin').click()")


def answer(browser, n, *keys):
    browser.until("frames.length > 0 && frames.every((f) => f.grey)")
    for k in (*keys, "Enter"):
        browser.press(k)
    assert browser.run("state.answers.length") == n


def test_study_of_24_items_is_read_resumed_and_analysed(browser, tmp_path):
    place = folder(tmp_path, cases=20, training=0)
    browser.open(place / "reader-1.html")
    begin(browser)
    for n in range(1, 11):
        answer(browser, n, str(1 + n % 5))
    browser.open(place / "reader-1.html")  # the page was closed half-way
    assert browser.run("state.answers.length") == 10
    for n in range(11, 25):
        answer(browser, n, str(1 + n % 5))
    assert browser.run("!$('rest').hidden && $('reading').hidden")
    (tmp_path / "answers.csv").write_bytes(browser.run("csv()").encode())
    file = answers.read(tmp_path / "answers.csv")
    assert file.about["experience_years"] == "7"
    assert [a.score for a in file.answers] == [1 + n % 5 for n in range(1, 25)]
    found = study.from_files([file], key.read(place / "key.json"))
    assert found.readers == ("reader-1",)
    assert len(found.repeats) == 4
    assert all(url.startswith(("file:", "data:")) for url in browser.requests)

    # Another reader's file in the same browser starts empty.
    browser.open(place / "reader-2.html")
    assert browser.run("state.answers.length") == 0


def test_pairs_are_answered_by_arrows_and_training_gives_feedback(browser, tmp_path):
    place = folder(tmp_path, modality="pairs", cases=4, training=1, repeats=0)
    browser.open(place / "reader-1.html")
    begin(browser)
    answer(browser, 0, "ArrowLeft", "4")
    assert "left image is synthetic" in browser.run("$('feedback').textContent")
    browser.press("Enter")
    answer(browser, 2, "ArrowRight", "2")
    (tmp_path / "answers.csv").write_bytes(browser.run("csv()").encode())
    file = answers.read(tmp_path / "answers.csv")
    assert [(a.phase, a.side) for a in file.answers] == [("training", "left"), ("reading", "right")]
    study.from_files([file], key.read(place / "key.json"))


def test_storage_that_refuses_loses_no_answer(browser, tmp_path):
    place = folder(tmp_path, training=0)
    browser.open(place / "reader-1.html")
    browser.run("Storage.prototype.setItem = () => { throw new Error('full') }; null")
    begin(browser)
    answer(browser, 1, "3")
    assert "cannot store" in browser.run("$('alert').textContent")
    assert browser.run("csv().split('\\n').length") == 8  # header, 4 facts, answer, end, newline


def test_second_window_with_other_answers_is_stopped(browser, tmp_path):
    place = folder(tmp_path, training=0)
    browser.open(place / "reader-1.html")
    begin(browser)
    item = browser.run("JSON.stringify(study.items[0])")
    other = {"score": 5, "side": "", "seconds": 1, **json.loads(item)}
    written = "localStorage.setItem(slot, JSON.stringify({...state, answers: [OTHER]}))"
    browser.run(written.replace("OTHER", json.dumps(other)))
    answer(browser, 1, "1")
    assert "another window" in browser.run("$('alert').textContent")
    assert browser.run("JSON.parse(localStorage.getItem(slot)).answers[0].score") == 5


def test_display_keys_change_the_view_and_reset(browser, tmp_path):
    place = folder(tmp_path, training=0)
    browser.open(place / "reader-2.html")
    begin(browser)
    browser.until("frames.length > 0 && frames.every((f) => f.grey)")
    before = browser.run("frames[0].canvas.toDataURL()")
    for k in ("i", "+", "]", "ArrowUp"):
        browser.press(k)
        after = browser.run("frames[0].canvas.toDataURL()")
        assert after != before, k
        before = after
    browser.press("r")
    assert browser.run("view.zoom === 1 && !view.invert && view.window === 255")


def test_every_control_has_a_name_and_enough_contrast(browser, tmp_path):
    """Rules of ours in place of axe-core: names of controls, one heading, contrast of 4.5."""
    browser.open(folder(tmp_path, training=0) / "reader-1.html")
    begin(browser)
    unnamed = browser.run("""[...document.querySelectorAll("button,input,select,canvas,progress")]
      .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).length""")
    assert unnamed == 0
    assert browser.run("document.documentElement.lang") == "en"
    assert browser.run("document.querySelectorAll('h1').length") == 1
    worst = browser.run("""(() => {
      const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map((v) => {
        v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
        return .2126 * r + .7152 * g + .0722 * b; };
      const ground = (e) => { for (; e; e = e.parentElement) {
        const c = getComputedStyle(e).backgroundColor; if (c !== "rgba(0, 0, 0, 0)") return c; }
        return "rgb(255, 255, 255)"; };
      return Math.min(...[...document.querySelectorAll("h1,span,button:not(:disabled),p,label")]
        .filter((e) => e.textContent.trim()).map((e) => {
          const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
          return (a + .05) / (b + .05); }));
    })()""")
    assert worst >= 4.5
