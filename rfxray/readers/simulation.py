"""Answers of simulated readers, as the files of a study: to try one from end to end."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from rfxray.errors import ConfigError
from rfxray.readers.answers import SIDES, Answer
from rfxray.readers.diagnosis import ABNORMAL, ASKED, PREFIX
from rfxray.readers.key import DEGRADED, Case, Key
from rfxray.readers.roe_metz import RoeMetz, scores

# Scores of a Roe–Metz reader that separate the ratings 1 to 5, as deviates of real images.
THRESHOLDS = stats.norm.ppf([0.2, 0.4, 0.6, 0.8])
SECONDS = 12.0  # median time of an answer
CONTROL_AREA = 0.98  # AUC of degraded images, of every reader
DIAGNOSED = 0.85  # share of right answers in the phase of diagnosis, of every reader and finding


@dataclasses.dataclass(frozen=True)
class Simulated:
    """Simulated readers.

    Attributes:
      areas: True AUC of each reader's continuous scores.
      bias: Shift towards "synthetic" (for pairs towards the left), in deviations of the score.
      fatigue: Share of the ability that is lost by the end of the order.
      repeats: Share of the cases that are shown again at the end.
      model: Variances, which say how readers correlate.
      seed: Seed.
    """

    areas: tuple[float, ...]
    bias: float
    fatigue: float
    repeats: float
    model: RoeMetz
    seed: int

    def __post_init__(self):
        if not self.areas or not all(0 < area < 1 for area in self.areas):
            raise ConfigError(f"each AUC must be above 0 and below 1 (got {self.areas})")
        for name in ("fatigue", "repeats"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"--{name} must be from 0 to 1 (got {getattr(self, name):g})")


def new_key(study: str, modality: str, cases: int, readers: int, seed: int) -> dict:
    """The content of a key for simulated cases, half of them synthetic.

    Args:
      study: Name of the study.
      modality: `single` or `pairs`.
      cases: Number of cases; of pairs for `pairs`.
      readers: Number of readers.
      seed: Seed of the order, of which the key is a function.
    """
    rng = np.random.default_rng([seed, 1])
    names = [f"c{k + 1:04d}" for k in range(cases)]
    views = rng.permutation(np.arange(cases) // 2 % 2)
    truth = rng.permutation(np.arange(cases) % 2)
    found = {}
    for k, name in enumerate(names):
        found[name] = {"view": ("AP", "PA")[views[k]]}
        if modality == "single":
            found[name]["truth"] = int(truth[k])
    key = {"study": study, "modality": modality, "nonce": rng.bytes(32).hex(), "cases": found}
    if modality == "pairs":
        sides = {}
        for j in range(readers):
            # Twice as many items as cases: repeats follow the cases.
            drawn = rng.permutation(np.arange(2 * cases) % 2)
            sides[f"reader-{j + 1}"] = {str(n + 1): SIDES[side] for n, side in enumerate(drawn)}
        key["sides"] = sides
    return key


def answer(key: Key, simulated: Simulated) -> dict[str, list[Answer]]:
    """The answers of each simulated reader, by name.

    Args:
      key: Key of the study.
      simulated: Abilities of the readers.
    """
    rng, model = np.random.default_rng([simulated.seed, 2]), simulated.model
    facts: Sequence[Case] = list(key.cases.values())
    names = list(key.cases)
    pairs = key.modality == "pairs"
    count, readers = len(names), len(simulated.areas)
    truth = np.array([bool(case.synthetic) for case in facts])
    if pairs:
        truth = np.repeat([True, False], count)
    drawn = scores(model, rng, np.array(simulated.areas), readers, truth, showings=2)
    drawn = drawn[:, 0]
    found = {}
    degraded = np.array([case.control == DEGRADED for case in facts])
    cases = np.flatnonzero([not case.control for case in facts])
    for j, area in enumerate(simulated.areas):
        name = f"reader-{j + 1}"
        more = model.separation(CONTROL_AREA) - model.separation(area)
        drawn[:, j, :count] += np.where(degraded, more, 0)
        first = rng.permutation(count)
        again = rng.permutation(
            first[np.isin(first, cases)][: round(simulated.repeats * len(cases))]
        )
        order = [(k, 0) for k in first] + [(k, 1) for k in again]
        # Of pairs the key says at which places the study asks; its page may have fewer repeats
        before = len(key.diagnosis)
        places = (
            sorted(map(int, key.sides[name]))
            if pairs
            else range(before + 1, before + len(order) + 1)
        )
        rows = [_row(key, name, None, "key_sha256", key.sha256, phase="about")]
        rows.append(_row(key, name, None, "experience_years", str(2 + 3 * j), phase="about"))
        rows += _diagnosed(key, name, np.random.default_rng([simulated.seed, 3, j]))
        for item, (k, repeat) in zip(places, order, strict=False):
            lost = (
                simulated.fatigue * (item - places[0]) / len(order) * float(model.separation(area))
            )
            seconds = round(float(SECONDS * np.exp(0.4 * rng.standard_normal())), 1)
            row = {"repeat": repeat, "seconds": seconds}
            if pairs:
                difference = drawn[repeat, j, k] - drawn[repeat, j, count + k] - lost
                shown = key.sides[name][str(item)]
                towards_left = difference if shown == "left" else -difference
                side = "left" if towards_left + simulated.bias > 0 else "right"
                rating = float(1 + np.searchsorted([0.3, 0.7, 1.2, 1.8], abs(difference)))
                rows.append(_row(key, name, item, names[k], rating, side=side, **row))
                continue
            score = drawn[repeat, j, k] - lost * truth[k] + simulated.bias
            rating = float(1 + np.searchsorted(THRESHOLDS, score))
            rows.append(_row(key, name, item, names[k], rating, **row))
        found[name] = rows
    return found


def _diagnosed(key: Key, reader: str, rng: np.random.Generator) -> list[Answer]:
    """The answers of the phase of diagnosis; what is not known of an image is called absent."""
    facts = [case.strata for case in key.diagnosis.values()]
    asked = [n for n in (ABNORMAL, *ASKED) if any(each.get(n) in ("0", "1") for each in facts)]
    images, rows = list(key.diagnosis), []
    for item, k in enumerate(rng.permutation(len(images)), 1):
        for finding in asked:
            present = facts[k].get(finding) == "1"
            called = present == (rng.random() < DIAGNOSED)
            modality, score = PREFIX + finding, str(int(called))
            row = _row(key, reader, item, images[k], score, seconds=SECONDS, phase="diagnosis")
            rows.append(dataclasses.replace(row, modality=modality))
    return rows


def _row(
    key: Key,
    reader: str,
    item: int | None,
    case: str,
    score: float | str,
    *,
    side: str = "",
    seconds: float | None = None,
    repeat: int = 0,
    phase: str = "reading",
) -> Answer:
    if isinstance(score, float):
        score = f"{score:g}"
    return Answer(key.study, reader, item, case, key.modality, score, side, seconds, repeat, phase)
