"""What is not requested, drawn from the table of a data set: `--complete table=DATA`.

A model that is asked for a view only draws a smoothed population: findings that go together too
rarely, ages too near to the middle. So the rest of a request is drawn first, from a row of the
table that has what was requested, and the image is drawn under all of it.

A row is that of a patient. Its age is drawn again within the group of five years (from 90 on, one
group), and no key travels. Its combination of findings remains, and no other patient may have it.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import ATTRIBUTES, INDEX, Attributes
from rfxray.data.dataset import Dataset, Records
from rfxray.errors import ConfigError

NEAR = 5.0  # years between the age that is requested and that of a row
OLDEST = 90.0  # years, from which on an age is rare enough to name a person (45 CFR 164.514)
_AGE = INDEX["age"]


@runtime_checkable
class Completer(Protocol):
    """What draws the rest of requests, and says of itself what it is."""

    def fill(self, asked: Attributes, numbers: np.ndarray) -> Attributes:
        """Requests [n, 19] with what was drawn, for images of these indices.

        Raises:
          ConfigError: If a request cannot be completed.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)  # by identity: arrays have no hash
class Completion:
    """A table, and the seed of what is drawn from it.

    Attributes:
      name: Name of the table for people.
      rows: Rows that are drawn from, [rows, 19].
      unique: Number of rows with a combination that no other patient has.
      recorded: Attributes that every one of these rows knows.
      left: Number of rows of the split that do not.
      seed: Seed; image i of a seed always gets the same row for the same request.
    """

    name: str
    rows: Attributes
    unique: int
    recorded: tuple[str, ...]
    left: int
    seed: int

    def __str__(self) -> str:
        count, known = len(self.rows.values), len(self.recorded)
        return (
            f"what is not requested is drawn from {count:,} rows of {self.name} that know {known} "
            f"attributes ({self.left:,} others know fewer); {self.unique:,} of them have a "
            "combination that no other patient there has, and the files of samples name theirs"
        )

    def fill(self, asked: Attributes, numbers: np.ndarray) -> Attributes:
        """Requests [n, 19] with the rest of a row of the table, for images of these indices.

        Raises:
          ConfigError: If no row has what a request has.
        """
        values, known = np.array(asked.values), np.array(asked.known)
        for place, number in enumerate(numbers):
            there = self._like(values[place].tobytes(), known[place].tobytes())
            rng = np.random.Generator(np.random.Philox(key=self.seed, counter=int(number)))
            row = there[rng.integers(len(there))]
            theirs, of_row = (np.array(field[row]) for field in self.rows)
            if of_row[_AGE]:
                low, high = group(float(theirs[_AGE]))
                theirs[_AGE] = np.float32(rng.uniform(low, high))
            values[place] = np.where(known[place], values[place], theirs)
            known[place] |= of_row
        return vocabulary.settle(Attributes(np.where(known, values, 0), known))

    @functools.lru_cache(maxsize=4096)  # noqa: B019, a completion lives as long as its command
    def _like(self, values: bytes, known: bytes) -> np.ndarray:
        """Numbers of the rows that have what is requested."""
        asked = Attributes(np.frombuffer(values, np.float32), np.frombuffer(known, bool))
        fits = np.ones(len(self.rows.values), bool)
        for i in np.flatnonzero(asked.known):
            reach = NEAR if ATTRIBUTES[i].continuous else 0.0
            near = np.abs(self.rows.values[:, i] - asked.values[i]) <= reach
            fits &= self.rows.known[:, i] & near
        if not fits.any():
            words = [f"{name}={value}" for name, value in vocabulary.decode(asked).items()]
            raise ConfigError(
                f"no row of {self.name} has {', '.join(words)} (age within {NEAR:g} years), so "
                "nothing completes it; request less, or leave --complete out"
            )
        return np.flatnonzero(fits)


def group(age: float) -> tuple[float, float]:
    """The five years in which an age is drawn again; from 90 on they are one group."""
    low = min(5.0 * (age // 5), OLDEST)
    return low, low + 5.0


def of_dataset(dataset: Dataset, split: str, seed: int) -> Completion:
    """The table of a split, of the rows that know what at least half of all rows know.

    Args:
      dataset: Data set, such as that which the model was trained on.
      split: Name of its split.
      seed: Seed of what is drawn.

    Raises:
      ConfigError: If there is no such split, or no row knows all of that.
    """
    if not dataset.examples.get(split):
        raise ConfigError(f"data set {dataset.path} has no split {split!r}")
    records = Records(dataset, split)
    labels = [records.labels(number) for number in range(len(records))]
    known = np.stack([known_from_states(each["states"]) for each in labels])
    values = np.where(known, np.stack([each["attributes"] for each in labels]), 0)
    recorded = np.flatnonzero(known.mean(0) >= 0.5)
    whole = np.asarray(known[:, recorded].all(1), bool).reshape(-1)
    name = f"{dataset.path.resolve().name}:{split}"
    if not whole.any():
        names = ", ".join(ATTRIBUTES[i].name for i in recorded)
        raise ConfigError(f"no row of {name} knows all of {names}; draw from another table")
    rows = Attributes(values[whole].astype(np.float32), known[whole])
    patients = [each["patient"] for each, there in zip(labels, whole, strict=True) if there]
    return Completion(
        name=name,
        rows=rows,
        unique=_unique(rows, patients),
        recorded=tuple(ATTRIBUTES[i].name for i in recorded),
        left=int((~whole).sum()),
        seed=seed,
    )


def _unique(rows: Attributes, patients: Sequence[str]) -> int:
    """Number of rows with a combination, ages in groups, that no other patient has."""
    values = np.array(rows.values)
    values[:, _AGE] = [group(float(age))[0] for age in values[:, _AGE]]
    owners: dict[bytes, set[str]] = {}
    keys = [row.tobytes() + there.tobytes() for row, there in zip(values, rows.known, strict=True)]
    for key, patient in zip(keys, patients, strict=True):
        owners.setdefault(key, set()).add(patient)
    return sum(len(owners[key]) == 1 for key in keys)


def drawn(asked: Attributes, filled: Attributes) -> str:
    """Names of the attributes of a row, [19], that were drawn and not requested, by commas."""
    more = np.asarray(filled.known) & ~np.asarray(asked.known)
    return ",".join(ATTRIBUTES[i].name for i in np.flatnonzero(more))
