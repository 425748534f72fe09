"""How an attribute of a record came to be known, or not."""

import enum

import numpy as np


class State(enum.IntEnum):
    """How an attribute of a record came to be known, or not."""

    UNLABELLED = 0
    POSITIVE = 1
    NEGATIVE = 2  # explicitly labelled as absent
    NEGATIVE_CLOSED_VOCABULARY = 3  # absent because a closed list of findings does not name it
    UNCERTAIN = 4
    STATED = 5  # view, sex, race, age, source: a value is there
    POSITIVE_CLOSED_VOCABULARY = 6  # only No Finding: derived from negatives of a closed list
    NEGATIVE_NO_FINDING = 7  # absent because a labeller of all 12 pathologies says No Finding


def known_from_states(states: np.ndarray, closed_vocabulary_negatives: bool = True) -> np.ndarray:
    """Which attributes train as known, bool like `states`.

    Uncertain and unlabelled are unknown. There are far too few explicit negatives for "absent" to
    be learned from them (188 for Pleural Other in 1.2M radiographs), so by default the negatives of
    a closed vocabulary count as absent too, and the No Finding that follows from them is known.
    What follows from a No Finding that was labelled is known in any case.
    """
    stated = [State.POSITIVE, State.NEGATIVE, State.STATED, State.NEGATIVE_NO_FINDING]
    if closed_vocabulary_negatives:
        stated += [State.NEGATIVE_CLOSED_VOCABULARY, State.POSITIVE_CLOSED_VOCABULARY]
    return np.isin(states, stated)
