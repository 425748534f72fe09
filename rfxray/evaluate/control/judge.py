"""What a classifier says of samples: whether they are what was requested, and like the reals."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rfxray.attributes.vocabulary import INDEX, Attributes
from rfxray.errors import DataError
from rfxray.evaluate import classifier as oracles
from rfxray.evaluate import feature_pair, intervals, overlap
from rfxray.evaluate.control import figures, joint
from rfxray.evaluate.control.classifiers import Reading
from rfxray.evaluate.pictures import Pictures

MARK = 0.8  # of the distance from chance to the reals, from which on an attribute counts as reached


@dataclasses.dataclass(frozen=True)
class Control:
    """What was measured.

    Attributes:
      read: What was read from the samples.
      reached: Table of `classifier.control`; empty without reals.
      reached_count: `at` of `of` attributes are reached at `mark` or more.
      rows: Figures of what was requested.
      pairs: Comparisons of what goes with what; None without reals.
      weighted_by: Attributes that the reals are weighted by.
      ages: Ages of both sides; None if they are not read, or without reals.
      amplified: Shifts of what was not requested; None without reals.
    """

    read: Reading
    reached: dict[str, dict[str, float | None]]
    reached_count: dict[str, float]
    rows: list[figures.Row]
    pairs: list[joint.Comparison] | None
    weighted_by: Sequence[str]
    ages: joint.Ages | None
    amplified: list[figures.Spill] | None


def judge(
    synthetic: Pictures, read: Reading, real: Pictures | None, real_read: Reading | None
) -> Control:
    """Compares what was read from samples with what was requested, and with the reals.

    Args:
      synthetic: Samples, with what was requested of each.
      read: What was read from them.
      real: Radiographs, with what is known of each; or None.
      real_read: What was read from those.

    Raises:
      DataError: If there is nothing to compare.
    """
    requested = synthetic.attributes
    if requested is None:
        raise DataError(
            f"nothing says what was requested of {synthetic.name}; give --csv FOLDER=FILE with the "
            "columns image and attributes"
        )
    if len(synthetic) < intervals.LEAST:
        raise DataError(
            f"{synthetic.name} has {len(synthetic)} images; control needs {intervals.LEAST}"
        )
    names = overlap.patients(synthetic, "synthetic")
    patients = feature_pair.number(("synthetic", len(names), names))[0][0]
    samples = (read, requested, patients)
    if real is None or real_read is None:
        rows = figures.rows(samples, None)
        if all(row.figure.value is None for row in rows):
            raise DataError(
                f"no attribute that the classifier reads was requested of {synthetic.name} in "
                "two ways; give samples of varied requests, or --real"
            )
        return Control(read, {}, {}, rows, None, (), None, None)
    known = real.attributes
    if known is None:
        raise DataError(
            f"nothing is known of {real.name}; give a data set, or --csv FOLDER=FILE with the "
            "columns image, patient and attributes"
        )
    names = overlap.patients(real, "real")
    reals = (real_read, known, feature_pair.number(("real", len(names), names))[0][0])
    weights, fixed = joint.weights(_as_requested(synthetic, requested), known)
    pairs = joint.compare((read.values, patients), (real_read.values, reals[2]), weights, fixed)
    ages = None
    if "age" in read.answers:
        years = [reading.values["age"] for reading in (read, real_read)]
        ages = joint.ages((years[0], patients), (years[1], reals[2]), weights)
    reached = oracles.control(
        oracles.read_scores(real_read.values, known),
        oracles.read_scores(read.values, _varied(requested)),
        oracles.chance(requested),
    )
    judged = oracles.counted(reached)
    at = int(sum((reached[name]["reached"] or 0) >= MARK for name in judged))
    return Control(
        read,
        reached,
        {"at": at, "of": len(judged), "mark": MARK},
        figures.rows(samples, reals),
        pairs,
        fixed,
        ages,
        figures.amplification(samples, reals),
    )


def _as_requested(synthetic: Pictures, attributes: Attributes) -> Attributes:
    """What somebody requested, without what `rfxray sample --complete` drew."""
    if synthetic.drawn is None:
        return attributes
    return Attributes(attributes.values, np.asarray(attributes.known) & ~synthetic.drawn)


def _varied(requested: Attributes) -> Attributes:
    """What was requested in more than one way: one value only says nothing of control."""
    known = np.array(requested.known)
    for column in INDEX.values():
        values = np.asarray(requested.values)[known[:, column], column]
        if len(np.unique(values)) < 2:
            known[:, column] = False
    return Attributes(requested.values, known)
