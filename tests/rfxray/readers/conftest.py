"""Small studies, and the files of answers that a page would export."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from rfxray.readers import answers, key, reading, simulation
from rfxray.readers.roe_metz import RoeMetz
from tests.rfxray.readers.browser import started

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A browser that all tests share; skips the test if there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium")
    with started(CHROMIUM, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(browser):
    """A new window of it."""
    found = browser.page()
    yield found
    found.close()


@pytest.fixture
def table():
    """`table(scores, truth, …)`: a study of one modality from `[readers, cases]`; NaN is blank."""
    from rfxray.readers.published import Row
    from rfxray.readers.study import from_rows

    def make(scores, truth, patient=None, middle=3.0, repeats=()):
        rows = []
        for (j, k), score in np.ndenumerate(np.asarray(scores, float)):
            name = str(k if patient is None else patient[k])
            value = None if np.isnan(score) else float(score)
            rows.append(
                Row(
                    f"r{j}", f"c{k:03}", "m", value, bool(truth[k]), name, k, None, 0, {}, len(rows)
                )
            )
        for j, k, score in repeats:
            name = str(k if patient is None else patient[k])
            rows.append(
                Row(
                    f"r{j}", f"c{k:03}", "m", score, bool(truth[k]), name, k, None, 1, {}, len(rows)
                )
            )
        return from_rows("some.csv", rows, middle)

    return make


@dataclasses.dataclass
class Folder:
    """Files of a simulated study, which a test may damage before it reads them."""

    root: object

    @property
    def key(self):
        return self.root / "key.json"

    @property
    def answers(self):
        return sorted(self.root.glob("answers-*.csv"))

    def read(self, files=None, key_path=None):
        return reading.read(files or self.answers, key_path or self.key, None, None)

    def rewrite(self, reader, change):
        """Writes the file of a reader again, correctly chained, with other rows."""
        path = self.root / f"answers-reader-{reader}.csv"
        file = answers.read(path)
        facts = [
            answers.Answer(
                file.study, file.reader, None, name, "single", value, "", None, 0, "about"
            )
            for name, value in file.about.items()
        ]
        rows = change(
            [
                row if row.score is None else dataclasses.replace(row, score=f"{row.score:g}")
                for row in file.answers
            ]
        )
        path.write_text(answers.text([*facts, *rows]))


@pytest.fixture
def simulated(tmp_path):
    """`simulated(areas, cases, …)`: a folder of answers and key."""

    def make(areas=(0.5, 0.5, 0.5), cases=40, modality="single", repeats=0.2, name="study", **rest):
        root = tmp_path / name
        root.mkdir()
        made = simulation.new_key(name, modality, cases, len(areas), seed=0)
        (root / "key.json").write_text(json.dumps(made))
        settings = {"bias": 0.0, "fatigue": 0.0, "model": RoeMetz(), "seed": 0, **rest}
        readers = simulation.Simulated(areas=areas, repeats=repeats, **settings)
        for reader, rows in simulation.answer(key.read(root / "key.json"), readers).items():
            (root / f"answers-{reader}.csv").write_text(answers.text(rows))
        return Folder(root)

    return make
