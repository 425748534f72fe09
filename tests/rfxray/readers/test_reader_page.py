"""The page in a real browser: read by keyboard, interrupted, resumed, exported, analysed."""

import json
import time

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the extra prep")

from rfxray.commands import table
from rfxray.readers import answers, key, reading, study
from rfxray.readers.equivalence import NOT_SHOWN, TOLD_APART
from tests.rfxray.readers.browser import started
from tests.rfxray.readers.conftest import CHROMIUM
from tests.rfxray.readers.person import SHOWN, alert, answer, downloaded, enter, folder, item
from tests.rfxray.readers.test_design import made


def wait_for_disk(profile, text: bytes) -> None:
    """Chromium writes what a page stores to its disk some 5 s later; a crash loses these answers,
    and they are asked again."""
    for _ in range(300):
        logs = (profile / "Default" / "Local Storage" / "leveldb").glob("*.log")
        if any(text in log.read_bytes() for log in logs):
            return
        time.sleep(0.05)
    raise AssertionError(f"the browser did not write {text!r}")


def test_24_items_are_read_by_keyboard_through_a_crash_and_analysed_to_a_verdict(tmp_path):
    if CHROMIUM is None:
        pytest.skip("no chromium")
    place = folder(tmp_path / "study", made(cases=20, training=0, readers=3))
    files = []
    with started(CHROMIUM, tmp_path / "profile") as browser:
        page = browser.page()
        page.open(place / "reader-1.html")
        enter(page)
        for n in range(1, 11):
            assert answer(page, str(1 + n % 5)) == n
        wait_for_disk(tmp_path / "profile", b'"item":10')
        browser.kill()
    with started(CHROMIUM, tmp_path / "profile") as browser:
        page = browser.page()
        for reader in ("reader-1", "reader-2", "reader-3"):
            page.open(place / f"{reader}.html")
            if reader == "reader-1":
                assert page.run("element('done').textContent") == "10 of 24"
                page.click("#resume")
            else:
                enter(page, years=12)
            for n in range(page.run("state.answers.length") + 1, 25):
                assert answer(page, str(1 + n % 5)) == n
            assert page.run("element('resting').textContent") == "Finished"
            assert page.run("element('resume').hidden")
            files.append(downloaded(page, "export", tmp_path / f"answers-{reader}.csv"))
        assert {url.split(":")[0] for url in browser.requests} == {"file", "data"}
    first = answers.read(files[0])
    assert first.about["experience_years"] == "7"
    assert first.about["room_dim"] == first.about["fine_lines"] == "yes"
    assert [a.score for a in first.answers] == [1 + n % 5 for n in range(1, 25)]
    assert all(a.seconds is not None for a in first.answers)
    out = tmp_path / "out"
    words = [*map(str, files), "--key", str(place / "key.json"), "--margin", "0.1"]
    table.main(["readers", "analyse", *words, "--out", str(out)])
    (verdict,) = json.loads((out / "results.json").read_text())["verdicts"]
    assert verdict["verdict"] in (NOT_SHOWN, TOLD_APART)
    assert verdict["main"]["mean"] is not None
    assert len(reading.read(files, place / "key.json", None, None).repeats) == 12


def test_diagnosis_comes_before_the_question_and_images_lie_in_a_folder(page, tmp_path):
    asked = ("edema", "pneumonia")
    shapes = {"cases": 4, "training": 1, "repeats": 0, "modality": "pairs", "readers": 1}
    made_study = made(**shapes, diagnosis=asked, folder=True)
    place = folder(tmp_path / "study", made_study)
    before = len(page.browser.requests)
    page.open(place / "reader-1.html")
    seen = [page.run("document.body.innerText")]
    enter(page)
    for n in range(1, 9):
        page.until(SHOWN)
        seen.append(page.run("document.body.innerText"))
        keys = {1: ["n"], 2: ["b"], 3: ["b", "c", "n"], 4: ["a"]}.get(n, ["c", "b"])
        assert answer(page, *keys) == n
    assert not any(word in text for text in seen for word in ("computer", "synthetic", "real"))
    assert "made by a computer" in page.run("document.body.innerText")
    page.click("#begin")
    assert answer(page, "ArrowLeft", "4") == 8
    assert "left image is synthetic" in page.run("element('feedback').textContent")
    page.press("Enter")
    page.click("#begin")
    answer(page, "ArrowRight", "2")
    while page.run("Boolean(current())"):
        answer(page, "ArrowLeft", "3")
    file = answers.read(downloaded(page, "export", tmp_path / "answers-reader-1.csv"))
    found = [(a.modality, a.score) for a in file.answers if a.phase == "diagnosis"]
    names = ["diagnosis:abnormal", "diagnosis:edema", "diagnosis:pneumonia"]
    rows = [["0", "0", "0"], ["1", "1", "0"], ["0", "0", "0"], ["1", "0", "0"]] + [["1"] * 3] * 4
    assert found == [(m, s) for row in rows for m, s in zip(names, row, strict=True)]
    rest = [(a.phase, a.side) for a in file.answers if a.phase != "diagnosis"]
    assert rest[:2] == [("training", "left"), ("reading", "right")]
    joined = study.from_files([file], key.read(place / "key.json"))
    assert joined.diagnosis is not None
    assert joined.diagnosis.answers.shape == (3, 1, 8)
    assert not np.isnan(joined.scores).any()
    requests = page.browser.requests[before:]
    assert {url.split(":")[0] for url in requests} == {"file", "data"}
    assert sum(url.endswith(".css") for url in requests) >= 10


def test_swapped_or_missing_image_of_the_folder_is_seen(page, tmp_path):
    place = folder(tmp_path / "study", made(training=0, readers=1, folder=True))
    page.open(place / "reader-1.html")
    first, second = (page.run(f"study.items[{n}].images[0]") for n in (0, 1))
    sheets = [place / "images" / f"{name}.css" for name in (first, second)]
    content = sheets[1].read_text()
    sheets[1].write_text(sheets[0].read_text().replace(first, second))
    enter(page)
    assert answer(page, "3") == 1
    page.until("!element('alert').hidden")
    assert "differs from the one that this page was made with" in alert(page)
    assert alert(page).endswith(f"images/{second}.css")
    assert answer_is_refused(page)
    sheets[1].unlink()
    page.open(place / "reader-1.html")
    page.click("#resume")
    page.until("!element('alert').hidden")
    assert (
        f"cannot be shown. Stop here and tell the study. Missing or unreadable: images/{second}"
        in alert(page)
    )
    assert answer_is_refused(page)
    sheets[1].write_text(content)
    page.open(place / "reader-1.html")
    page.click("#resume")
    assert answer(page, "3") == 2


def answer_is_refused(page) -> bool:
    count = page.run("state.answers.length")
    page.press("3")
    page.press("Enter")
    return page.run("state.answers.length") == count


def test_time_of_an_item_has_no_pause_and_no_hidden_window(page, tmp_path):
    place = folder(tmp_path / "study", made(training=0, readers=1))
    page.before_load("window.now = 0; performance.now = () => window.now;")
    page.before_load("Object.defineProperty(document, 'hidden', { get: () => window.away });")
    page.open(place / "reader-1.html")
    enter(page)
    page.until(SHOWN)
    page.run("now += 1500; null")
    page.press("p")
    assert page.run("element('reading').hidden")
    page.run("now += 60000; null")
    page.open(place / "reader-1.html")  # closed in the pause; the clock begins at 0 again
    page.click("#resume")  # begins the item again, with the time that it had
    if page.run("!element('task').hidden"):
        page.click("#begin")
    page.until(SHOWN)
    page.run("now += 500; away = true; document.dispatchEvent(new Event('visibilitychange'))")
    page.run("now += 9000; away = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.run("now += 250; null")
    assert answer(page, "2") == 1
    assert page.run("state.answers[0].seconds") == pytest.approx(2.3)  # 1.5 + .5 + .25, rounded


def grey(page):
    """What the first canvas shows, and the pixels of its image."""
    code = """(() => { const f = frames[0], c = f.canvas;
      const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      return [c.height, c.width, f.height, f.width, [...d].filter((_, i) => i % 4 === 0),
        [...f.grey]]; })()"""
    height, width, h, w, shown, pixels = page.run(code)
    return np.array(shown).reshape(height, width), np.array(pixels).reshape(h, w)


def test_image_is_shown_unblurred_in_its_aspect_and_windowed_by_keys(page, tmp_path):
    place = folder(tmp_path / "study", made(training=0, readers=1))
    page.open(place / "reader-1.html")
    page.resize(900, 520)
    enter(page)
    page.until(SHOWN)
    shown, pixels = grey(page)
    scale = min(shown.shape[0] // 64, shown.shape[1] // 64)
    assert page.run("scaleNow()") == scale > 1
    top, left = (shown.shape[0] - 64 * scale + 1) // 2, (shown.shape[1] - 64 * scale + 1) // 2
    inside = shown[top : top + 64 * scale, left : left + 64 * scale]
    assert (inside == np.kron(pixels, np.ones((scale, scale)))).all()
    for _ in range(2):
        page.press("+")
    assert page.run("scaleNow()") == scale + 2
    page.press("i")
    page.press("]")
    page.press("ArrowUp")
    page.press("ArrowUp", shift=True)
    page.press("r")
    for k in ("ArrowUp", "ArrowUp"):
        page.press(k)
    page.press("ArrowDown", shift=True)
    page.press("i")
    page.press("m")
    page.press("ArrowRight")
    assert page.run("[view.window, view.level, view.invert, view.x]") == [245, 117.5, True, -32]
    moved, _ = grey(page)
    levels = np.clip((pixels - 117.5) / 245 * 255 + 127.5, 0, 255)
    expected = np.kron(255 - np.round(levels), np.ones((scale, scale)))
    assert (
        np.abs(moved[top : top + 64 * scale, left - 32 : left - 32 + 64 * scale] - expected).max()
        <= 1
    )
    page.press("r")
    assert page.run("!view.invert && view.window === 255 && view.scale === null && !view.x")
    half = "Object.assign(f, { height: 32, grey: f.grey.slice(0, 2048), sheet: null, data: null })"
    page.run(f"frames.forEach((f) => {half}); paint()")
    wide, _ = grey(page)
    rows, columns = np.flatnonzero(wide.any(1)), np.flatnonzero(wide.any(0))
    assert len(columns) == pytest.approx(2 * len(rows), rel=0.02)


def test_mouse_and_fingers_window_zoom_and_move(page, tmp_path):
    place = folder(tmp_path / "study", made(training=0, readers=1))
    page.open(place / "reader-1.html")
    enter(page)
    page.until(SHOWN)
    page.drag((600, 300), (640, 340))
    assert page.run("[view.window, view.level]") == [295, 147.5]
    page.drag((600, 300), (630, 310), shift=True)
    page.drag((600, 300), (570, 310), button="right")
    assert page.run("[view.x, view.y]") == [0, 20]
    page.press("r")
    before = page.run("scaleNow()")
    page.mouse("mouseWheel", 700, 300, deltaX=0, deltaY=-100)
    assert page.run("scaleNow()") > before
    page.press("r")
    page.touch([(600, 300)], [(620, 320)])
    assert page.run("[view.window, view.level]") == [275, 137.5]
    page.touch([(600, 300), (700, 300)], [(550, 300), (750, 300)])
    assert page.run("scaleNow()") == 2 * before
    page.press("r")
    page.touch([(600, 300), (700, 300)], [(600, 330), (700, 330)])
    assert page.run("view.scale") == before
    assert page.run("view.y") == pytest.approx(30)
    assert page.run("view.window") == 255
    page.click("[data-kind=score][data-value='4']")  # and the answer, without a key
    page.click("[data-kind=next]")
    assert page.run("state.answers[0].score") == 4
    page.until(SHOWN)
    assert item(page)["item"] == 2
