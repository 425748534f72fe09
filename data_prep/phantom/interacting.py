"""A second population, in which no logistic model is true: `--world interacting`.

The size of the heart is a variable of its own, skewed and wider in the old; cardiomegaly is what a
reader calls a large one. Age acts in a U (pneumonia of the very young and the old), sex and race
change the effects of age, two findings together do less, or more, than each. What is recorded
depends on the labels' source and on how ill a patient is. Noise is shared with the first
population: a patient is the same person in both.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import expit, ndtri

from data_prep.phantom import causes
from data_prep.phantom.noise import Noise
from data_prep.tables.table import settle_no_finding
from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import (
    FINDING_NAMES,
    INDEX,
    PATHOLOGY_NAMES,
    all_known,
    derive_no_finding,
    lookup,
)
from rfxray.errors import ConfigError

HEART = "heart_size"  # the cardiothoracic ratio of a PA radiograph
HEART_RANGE = (0.2, 1.0)

# Causes of each variable that has any; in causal order.
PARENTS: dict[str, tuple[str, ...]] = {
    HEART: ("age", "sex"),
    "cardiomegaly": (HEART, "sex", "race"),
    **{name: tuple(of) for name, of in causes.EDGES.items() if name != "cardiomegaly"},
}


def graph() -> dict[str, object]:
    """The graph of this population, as `rfxray causes` reads it."""
    low, high = HEART_RANGE
    return {
        "name": "interacting",
        "variables": {HEART: {"low": low, "high": high}},
        "parents": {child: list(parents) for child, parents in PARENTS.items()},
    }


def draw(
    seed: int, indices: np.ndarray, do: Mapping[str, float | np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The true attributes, float32 [n, 19], and the size of the heart, float64 [n].

    Args:
      seed, indices: Those of `causes.draw_attributes`.
      do: Interventions, on an attribute or on `heart_size`.

    Raises:
      ConfigError: For an attribute that does not exist, or that cannot be set.
    """
    noise = Noise(seed, np.asarray(indices))
    forced = {n if n == HEART else lookup(n).name: value for n, value in (do or {}).items()}
    if {"no_finding", "source"} & set(forced):
        raise ConfigError("no_finding and source of a phantom cannot be set; remove them")
    roots = {n: v for n, v in forced.items() if n in ("view", "sex", "race", "age")}
    values = causes.draw_attributes(seed, indices, roots)
    drawn = heart_at(noise.uniform(f"cause/{HEART}").astype(np.float64), values)
    heart = np.broadcast_to(np.asarray(forced.get(HEART, drawn), np.float64), drawn.shape)
    for name in causes.BASE:
        present = noise.uniform(f"cause/{name}") < expit(logit(name, values, heart))
        values[:, INDEX[name]] = forced.get(name, present)
    values[:, INDEX["no_finding"]] = 0
    return np.asarray(derive_no_finding(all_known(values)).values), np.array(heart)


def heart_at(u: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The heart's size of patients [n, 19] by its noise u in [0, 1): log-normal beside a centre."""
    age, male = (values[:, INDEX[name]].astype(np.float64) for name in ("age", "sex"))
    old = np.maximum(age - 45, 0) / 30
    centre = 0.45 + 0.03 * old**2 + 0.02 * old * (1 - male) + 0.04 * np.maximum(12 - age, 0) / 12
    spread = 0.025 + 0.012 * old
    z = ndtri(np.clip(u, 1e-3, 1 - 1e-3))
    return np.clip(centre + spread * np.expm1(0.5 * z) / 0.5, *HEART_RANGE)


def logit(name: str, values: np.ndarray, heart: np.ndarray) -> np.ndarray:
    """The mechanism of a finding: the logit of its presence given its parents, [n]."""
    of = {each: values[:, INDEX[each]].astype(np.float64) for each in INDEX}
    decades, male, black = (of["age"] - 50) / 10, of["sex"], of["race"] == 1
    if name == "cardiomegaly":  # readers call the same heart large earlier in some
        return 70 * (heart - 0.52 + 0.02 * (black & (male == 0)) - 0.02 * male * ~black)
    if name == "pneumonia":
        return -2.4 + (0.75 - 0.3 * male) * ((of["age"] - 42) / 20) ** 2 / 2
    if name == "edema":
        return -1.6 + np.where(black, 0.7, 0.1) * decades * np.where(male > 0, 1, -0.3)
    if name == "pneumothorax":
        return -2.2 + np.where(male > 0, -0.45, 0.15) * decades + of["fracture"] * (2.2 - 2 * male)
    if name == "pleural_effusion":
        heart_and_lung = of["cardiomegaly"] * of["pneumonia"]
        each = 1.3 * of["cardiomegaly"] + of["pleural_other"] + 1.3 * of["pneumonia"]
        return -1.9 + each - 2.6 * heart_and_lung
    if name == "support_devices":
        return -1.9 + 2.4 * (of["pneumothorax"] != of["pleural_effusion"])
    if name == "lung_opacity":
        both = of["edema"] * of["consolidation"]
        return causes.logit(name, values) - 2.5 * both + 1.2 * of["atelectasis"] * of["edema"]
    return causes.logit(name, values)


def draw_states(seed: int, indices: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """What a data set would record, int8 [n, 19]: the more findings, the fewer are mentioned.

    Reports of ill patients leave findings out, and demographics come with reports more often than
    with lists. So rows in which all is known are healthier than the population.
    """
    states = causes.draw_states(seed, indices, attributes)
    noise = Noise(seed, np.asarray(indices))
    severity = attributes[:, [INDEX[name] for name in PATHOLOGY_NAMES]].sum(1)
    report = noise.uniform("state/report") < causes.REPORT_SHARE
    for name in FINDING_NAMES:
        if name == "no_finding":
            continue
        omitted = noise.uniform(f"state/omitted/{name}") < 0.06 * np.minimum(severity, 6)
        states[report & omitted, INDEX[name]] = State.UNLABELLED
    race = noise.uniform("state/race") < np.where(report, 0.3, 0.85)
    states[:, INDEX["race"]] = np.where(race, State.UNLABELLED, State.STATED)
    age = noise.uniform("state/age") < np.where(severity >= 4, 0.15, 0.02)
    states[:, INDEX["age"]] = np.where(age, State.UNLABELLED, State.STATED)
    states[:, INDEX["no_finding"]] = State.UNLABELLED
    everyone = np.ones(len(states), bool)
    return settle_no_finding(causes.observe(attributes, states), states, everyone)[1]
