"""A folder of twins: radiographs before and after a change, and placebos.

    before/NAME.png  after/NAME.png  placebo/NAME.png  nothing/NAME.png  pairs.csv

`rfxray causes stress` writes such folders and reads those of anybody. `pairs.csv` has a row for
each NAME: `image` (the file), `from` and `to` (such as sex=F and sex=M), perhaps `patient`,
`follows` (findings that changed too, by semicolons), and attributes before the change. `placebo`
(an unrelated change) and `nothing` (a round trip) may be absent; no verdict is then given.
"""

import csv
import dataclasses
from pathlib import Path

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import FINDING_NAMES, INDEX, lookup
from rfxray.causes.leaning import Pairs
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate import strata
from rfxray.evaluate.pictures import Pictures, open_pictures

FOLDERS = ("before", "after", "placebo", "nothing")
TABLE, FROM, TO, FOLLOWS = "pairs.csv", "from", "to", "follows"
EQUAL = 0.05  # by which a placebo's mean absolute change may differ from that of the change
_GROUPS = ("view", "sex", "race", "age", "source")


@dataclasses.dataclass(frozen=True)
class Opened:
    """Pairs that can be read.

    Attributes:
      sets: Pictures by folder, all in the same order.
      name: Attribute that was changed.
      pairs: What is known of the pairs.
      followed: Pairs in which a finding follows the change, by finding, [n] bool.
    """

    sets: dict[str, Pictures]
    name: str
    pairs: Pairs
    followed: dict[str, np.ndarray]

    def sizes(self) -> dict[str, np.ndarray]:
        """Mean absolute change of each pair in grey levels of 255, by folder, [n] float64."""
        found = {name: np.empty(len(self.pairs.sign)) for name in self.sets if name != "before"}
        for number in range(len(self.pairs.sign)):
            before = self.sets["before"].read(number)
            for name, of in found.items():
                other = self.sets[name].read(number)
                if other.shape != before.shape:
                    raise DataError(
                        f"{self.sets[name].keys[number]} of {name} has other pixels than before: "
                        f"{other.shape} and {before.shape}; give twins of equal size"
                    )
                of[number] = np.abs(other - before).mean() * 255
        return found


def read(folder: Path) -> Opened:
    """Opens a folder of twins.

    Raises:
      ConfigError: If it is none.
      DataError: If a file is missing, or the table does not fit.
    """
    table = folder / TABLE
    if not table.is_file() or not all((folder / name).is_dir() for name in FOLDERS[:2]):
        raise ConfigError(f"{folder} must have {TABLE} and the folders before and after")
    sets = {
        name: open_pictures(folder / name, table, display=False, repeats=True)
        for name in FOLDERS
        if (folder / name).is_dir()
    }
    order = sets["before"].keys
    with table.open(encoding="utf-8-sig", newline="") as file:
        lines = [[cell.strip() for cell in cells] for cells in csv.reader(file)]
    header, *cells = filter(any, lines)  # as `open_pictures` has read it
    table_rows = (dict(zip(header, each, strict=True)) for each in cells)
    rows = {row["image"]: row for row in table_rows}
    ends = []
    for key in order:
        row = rows.get(key) or rows.get(Path(key).name) or rows.get(Path(key).stem) or {}
        ends.append((*_ends(table, row), row.get(FOLLOWS) or ""))
    names = {name for name, *_ in ends}
    if len(names) != 1:
        raise DataError(f"{table} changes {', '.join(sorted(names))}; give one attribute")
    ((name,), sign) = names, np.array([1 if then > was else -1 for _, was, then, _ in ends])
    followed = {
        finding: mask
        for finding in FINDING_NAMES
        if (mask := np.array([finding in each[3].split(";") for each in ends])).any()
    }
    patients = [own or f"\0{k}" for k, own in enumerate(sets["before"].patients)]
    codes = np.unique(patients, return_inverse=True)[1]
    directions = {}
    for side in (1, -1):
        if (rows_of := np.flatnonzero(sign == side)).size:
            directions[side] = _direction(name, ends, rows_of)
    return Opened(sets, name, Pairs(sign, codes, directions, _groups(sets["before"])), followed)


def _ends(table: Path, row: dict[str, str]) -> tuple[str, float, float]:
    """The attribute of a row, and its encoded values before and after."""
    try:
        (name, was), (other, then) = (
            tuple(part.strip() for part in (row.get(column) or "").split("="))
            for column in (FROM, TO)
        )
        name = lookup(name).name
        values = [vocabulary.encode_value(name, each) for each in (was, then)]
    except (ValueError, ConfigError) as error:
        raise DataError(
            f"{table}, {row.get('image', 'a row')}: {FROM} and {TO} must be such as sex=F and "
            f"sex=M ({error})"
        ) from None
    if lookup(other).name != name or not all(known for _, known in values):
        raise DataError(f"{table}, {row['image']}: {FROM} and {TO} must be of one attribute")
    if values[0][0] == values[1][0]:
        raise DataError(f"{table}, {row['image']}: {FROM} and {TO} are the same")
    return name, values[0][0], values[1][0]


def _direction(name: str, ends: list, rows: np.ndarray) -> str:
    """What a direction is called: both values if they are the same in every pair."""
    words = []
    for place in (1, 2):
        values = {ends[i][place] for i in rows}
        word = vocabulary.decode_value(name, min(values), True) if len(values) == 1 else "any"
        words.append(str(word))
    return f"{words[0]} → {words[1]}"


def _groups(pictures: Pictures) -> dict[str, np.ndarray]:
    assert pictures.attributes is not None
    parts = strata.of(pictures.attributes)
    found = {name: mask for name, mask in parts.items() if name.partition("=")[0] in _GROUPS}
    for name in FINDING_NAMES:
        known = np.asarray(pictures.attributes.known)[:, INDEX[name]]
        if known.any():
            present = np.asarray(pictures.attributes.values)[:, INDEX[name]] > 0.5
            found[f"{name}=present"] = known & present
    return found
