"""Which split a patient belongs to: a pure function of who the patient is.

A hash, not a shuffle: a set that grows, or is built again elsewhere, leaves every patient where
they were, and no split ever divides a patient.
"""

import hashlib

from rfxray.errors import ConfigError

SPLITS = ("train", "validation", "test")


def check_fractions(validation: float, test: float) -> None:
    """Raises ConfigError where nothing would be left to train on, or a fraction is none."""
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ConfigError(
            f"--validation {validation:g} and --test {test:g} are fractions whose sum is below 1"
        )


def hashed_split(patient: str, validation: float, test: float) -> str:
    """The split of `source/patient`, in the given expected fractions of patients."""
    digest = hashlib.sha256(patient.encode("utf-8", "backslashreplace")).digest()
    u = int.from_bytes(digest[:8], "big") / 2**64
    if u < test:
        return "test"
    return "validation" if u < test + validation else "train"
