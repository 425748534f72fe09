"""What a person does at the page of a reader."""

import json

from tests.rfxray.readers.browser import Page

SHOWN = "!element('reading').hidden && shown() && !waiting"


def folder(place, study_made):
    """Writes a study into a folder as the command does, and returns the folder."""
    place.mkdir(exist_ok=True)
    (place / "key.json").write_bytes(study_made.key)
    for reader, html in study_made.pages.items():
        (place / f"{reader}.html").write_text(html)
    if study_made.images:
        (place / "images").mkdir()
    for name, sheet in study_made.images.items():
        (place / "images" / name).write_text(sheet)
    return place


def enter(page: Page, years: int = 7) -> None:
    """From the welcome through the check of the screen to the first item."""
    page.run(f"element('years').value = {years}; null")
    page.click("#welcome_done")
    page.run(
        "document.querySelectorAll('#check select').forEach((s) => { s.value = 'yes'; }); null"
    )
    page.click("#check_done")
    page.click("#begin")


def answer(page: Page, *keys: str) -> int:
    """Answers the item on the screen by keyboard; returns the number of answers after it."""
    page.until(SHOWN)
    for key in (*keys, "Enter"):
        page.press(key)
    return page.run("state.answers.length")


def alert(page: Page) -> str:
    """What the page warns of, empty if of nothing."""
    return page.run("element('alert').hidden ? '' : element('alert').textContent")


def item(page: Page) -> dict:
    """The item on the screen."""
    return json.loads(page.run("JSON.stringify(current())"))


def downloaded(page: Page, button: str, file):
    """Clicks a button that downloads a file, and waits for it."""
    page.browser.downloads(file.parent)
    page.run(f"element('{button}').click()")
    for _ in range(400):
        if file.exists():
            return file
        page.run("new Promise((done) => setTimeout(done, 20))")
    raise AssertionError(f"{file} was not downloaded")
