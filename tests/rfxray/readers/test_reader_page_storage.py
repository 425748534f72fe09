"""Answers in a browser that stores nothing, is full, is shared or has others, and in files."""

import json

import pytest

pytest.importorskip("cv2", reason="the extra prep")

from rfxray.readers import answers
from tests.rfxray.readers.person import SHOWN, alert, answer, downloaded, enter, folder
from tests.rfxray.readers.test_design import made

DENIED = """Object.defineProperty(window, 'localStorage',
  { get() { throw new DOMException('denied', 'SecurityError'); } });"""
FILL = """(() => { let size = 1 << 22, n = 0;
  while (size) try { localStorage.setItem(`other${n++}`, 'x'.repeat(size)); } catch { size >>= 1; }
})()"""

EMPTY = """Object.keys(localStorage).filter((name) => name.startsWith('other'))
  .forEach((name) => localStorage.removeItem(name))"""


@pytest.fixture
def study(tmp_path):
    return folder(tmp_path / "study", made(training=0))


def scores(path):
    return [a.score for a in answers.read(path).answers]


def test_browser_that_stores_nothing_loses_no_answer(page, study, tmp_path):
    page.before_load(DENIED)
    page.open(study / "reader-1.html")
    assert "cannot store answers" in alert(page)
    enter(page)
    for n, score in enumerate("314", 1):
        assert answer(page, score) == n
    page.press("p")
    dialogs = page.browser.dialogs
    before = len(dialogs)
    assert scores(downloaded(page, "export", tmp_path / "answers-reader-1.csv")) == [3, 1, 4]
    page.click("#resume")
    answer(page, "5")
    page.press("p")
    page.open(study / "reader-1.html")
    assert dialogs[before:] == ["beforeunload"]  # asked, since one answer was only in this window
    assert page.run("state.answers.length") == 0


def test_full_browser_says_so_and_stores_again_when_there_is_room(page, study, tmp_path):
    page.open(study / "reader-1.html")
    enter(page)
    answer(page, "1")
    try:
        page.run(FILL)  # all local pages share one store, and another page filled it
        for _ in range(7):  # until the rest of the last block is used up
            answer(page, "2")
        assert "cannot store answers" in alert(page)
        kept = page.run("JSON.parse(localStorage.getItem(slot)).answers.length")
        assert 1 <= kept < 8
        page.press("p")
        assert scores(downloaded(page, "export", tmp_path / "answers-reader-1.csv")) == [
            1,
            *[2] * 7,
        ]
        page.click("#resume")
    finally:
        page.run(EMPTY)
    assert answer(page, "3") == 9
    assert alert(page) == ""
    page.open(study / "reader-1.html")
    assert page.run("state.answers.map((a) => a.score)") == [1, *[2] * 7, 3]


def test_files_of_two_readers_in_one_browser_do_not_mix(page, study, tmp_path):
    other = page.browser.page()
    for number, window in enumerate((page, other), 1):
        window.open(study / f"reader-{number}.html")
        enter(window, years=number)
    for n, score in enumerate("12345", 1):
        assert answer(page, score) == n
        assert answer(other, "3") == n
    assert alert(page) == alert(other) == ""
    for number, window in enumerate((page, other), 1):
        window.open(study / f"reader-{number}.html")
        file = answers.read(downloaded(window, "export", tmp_path / f"answers-reader-{number}.csv"))
        assert file.reader == f"reader-{number}"
        assert file.about["experience_years"] == str(number)
        assert [a.score for a in file.answers] == ([1, 2, 3, 4, 5] if number == 1 else [3] * 5)
    other.close()


def test_second_window_of_a_reader_is_stopped_and_keeps_what_only_it_has(page, study, tmp_path):
    page.open(study / "reader-1.html")
    enter(page)
    for score in "12":
        answer(page, score)
    second = page.browser.page()
    second.open(study / "reader-1.html")
    second.run("Storage.prototype.setItem = () => { throw new Error('full'); }; null")
    second.click("#resume")
    answer(second, "3")
    assert answer(second, "4") == 4
    assert answer(page, "5") == 3
    second.until("blocked")
    assert "open in another window" in alert(second)
    second.press("5")
    second.press("Enter")
    assert second.run("state.answers.length") == 4
    assert second.run("unsaved")
    assert scores(downloaded(second, "export", tmp_path / "answers-reader-1.csv")) == [1, 2, 3, 4]
    assert page.run("JSON.parse(localStorage.getItem(slot)).answers.map((a) => a.score)") == [
        1,
        2,
        5,
    ]
    assert alert(page) == ""
    second.close()


def test_window_that_was_asleep_does_not_overwrite_answers(page, study):
    page.open(study / "reader-1.html")
    enter(page)
    page.until(SHOWN)
    # As another window does, but without the event, which a window that sleeps does not get.
    page.run("""(() => { const { item, case: name, phase, repeat } = study.items[0];
      const other = { item, case: name, phase, repeat, score: 5, side: '', seconds: 1 };
      localStorage.setItem(slot, JSON.stringify({ ...state, answers: [other] })); })()""")
    answer(page, "1")
    assert "open in another window" in alert(page)
    assert page.run("JSON.parse(localStorage.getItem(slot)).answers[0].score") == 5


def test_damaged_store_is_set_aside(page, study):
    page.open(study / "reader-1.html")
    enter(page)
    answer(page, "1")
    slot = page.run("slot")
    page.open(study / "reader-2.html")
    text = page.run(f"localStorage.getItem({slot!r})")[:-9]
    page.run(f"localStorage.setItem({slot!r}, {text!r})")
    page.open(study / "reader-1.html")
    assert "is damaged; a copy was set aside" in alert(page)
    aside = "Object.keys(localStorage).filter((k) => k.startsWith(`${slot}:damaged:`))"
    assert page.run(f"localStorage.getItem({aside}[0])") == text
    assert page.run("!element('welcome').hidden")


def test_saved_progress_is_loaded_elsewhere_and_a_wrong_file_is_refused(page, study, tmp_path):
    other_study = folder(tmp_path / "other", made(training=0))
    files = {}
    for name, place, reader in (
        ("mine", study, 1),
        ("reader", study, 2),
        ("study", other_study, 1),
    ):
        page.open(place / f"reader-{reader}.html")
        enter(page, years=20 + reader)
        for score in "234":
            answer(page, score)
        page.press("p")
        saved = downloaded(page, "save", tmp_path / f"progress-reader-{reader}.json")
        files[name] = saved.rename(tmp_path / f"{name}.json")
    changed = json.loads(files["mine"].read_text())
    changed["progress"]["answers"][0]["score"] = 5
    files["edited"] = tmp_path / "edited.json"
    files["edited"].write_text(json.dumps(changed))
    files["answers"] = tmp_path / "answers.json"
    files["answers"].write_text("study,reader,item")
    page.open(study / "reader-1.html")
    page.run("localStorage.clear()")
    page.run("state = fresh(); keep()")
    page.open(study / "reader-1.html")
    assert page.run("!element('welcome').hidden")
    refusals = {
        "reader": "not progress of this reader in this study",
        "study": "not progress of this reader in this study",
        "answers": "not progress of this reader in this study",
        "edited": "was edited or damaged",
    }
    for name, said in refusals.items():
        page.choose_file("#load", files[name])
        page.until("!element('alert').hidden")
        assert said in alert(page)
        assert page.run("state.answers.length") == 0
        page.run("warn('')")
    page.choose_file("#load", files["mine"])
    page.until("state.answers.length === 3")
    assert alert(page) == ""
    assert page.run("element('done').textContent") == "3 of 24"
    assert page.run("state.about.experience_years") == "21"
    page.click("#resume")
    assert answer(page, "1") == 4
    page.press("p")
    page.choose_file("#load", files["mine"])
    page.until("!element('alert').hidden")
    assert "fewer answers than this browser" in alert(page)
    assert page.run("state.answers.length") == 4
    page.run("state.answers[1].score = 5; null")
    page.choose_file("#load", files["mine"])
    page.until("element('alert').textContent.includes('other answers than this browser')")
