"""Which split a patient belongs to: a pure function of who the patient is.

A hash, not a shuffle: a set that grows, or is built again elsewhere, leaves every patient where
they were, and no split ever divides a patient.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from data_prep.tables.table import Row
from rfxray.errors import ConfigError

SPLITS = ("train", "validation", "test")
HELD_OUT_FIRST = ("test", "validation", "train")


def check_fractions(validation: float, test: float) -> None:
    """Raises ConfigError where nothing would be left to train on, or a fraction is none."""
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ConfigError(
            f"--validation {validation:g} and --test {test:g} must be fractions with a sum below 1"
        )


def hashed_split(patient: str, validation: float, test: float) -> str:
    """The split of `source/patient`, in the given expected fractions of patients."""
    digest = hashlib.sha256(patient.encode("utf-8", "backslashreplace")).digest()
    u = int.from_bytes(digest[:8], "big") / 2**64
    if u < test:
        return "test"
    return "validation" if u < test + validation else "train"


def leaks(
    rows: Sequence[Row], splits: Mapping[str, str], tied: Iterable[Sequence[str]] = ()
) -> dict[str, str]:
    """Why rows of a person who is on several sides go, by key: the side held out most keeps them.

    Whether a shared picture tells that two patients are one, or a set's own split divides one.

    Args:
      splits: Split of every row, by key.
      tied: Groups of patients who are one person.
    """
    group_of = {name: group for group in tied for name in group}
    kept_in: dict[str, str] = {}  # first name of a group, or the patient → split
    for row in rows:
        person = group_of.get(row.patient, [row.patient])[0]
        sides = (splits[row.key], kept_in.get(person, splits[row.key]))
        kept_in[person] = min(sides, key=HELD_OUT_FIRST.index)
    reasons = {}
    for row in rows:
        group = group_of.get(row.patient, [row.patient])
        kept = kept_in[group[0]]
        if splits[row.key] != kept:
            others = ", ".join(name for name in group[:4] if name != row.patient)
            how = f"shares a picture with {others}" if others else "the set's own split divides it"
            reasons[row.key] = f"its patient is in {kept}: {how}"
    return reasons
