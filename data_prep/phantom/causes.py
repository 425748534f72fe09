"""The population: attributes drawn through a causal graph, and what of them gets recorded.

Every attribute is a function of its parents and of its own noise, so the true effect of an
intervention is known and counterfactuals are exact: draw the same (seed, indices) again under `do`,
and only what descends from the changed attribute can change.

A finding is present where u < expit(BASE + Σ of the logits of EDGES), u ~ U(0, 1) its noise: all
effects are monotone. View and source are exogenous, No Finding is derived, race acts on two
findings and on no pixel. The edges are those of RadiT's expert graph (arXiv 2606.19460); the
logits are ours: strong enough to be found in some thousand patients, and no estimate of medicine.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import expit

from data_prep.phantom.noise import Noise
from data_prep.tables.table import settle_no_finding
from rfxray.attributes.states import State, known_from_states
from rfxray.attributes.vocabulary import (
    ATTRIBUTES,
    FINDING_NAMES,
    INDEX,
    NUM_ATTRIBUTES,
    PATHOLOGY_NAMES,
    all_known,
    derive_no_finding,
    lookup,
)
from rfxray.errors import ConfigError

# Shares of the categories, in the order of the vocabulary.
VIEW_SHARES = (0.40, 0.35, 0.25)  # PA, AP, lateral
SEX_SHARES = (0.48, 0.52)  # F, M
RACE_SHARES = (0.45, 0.20, 0.15, 0.20)  # White, Black, Asian, other

# Age in years at these quantiles, linear between: 8 % children, median 52.
AGE_QUANTILES = ((0.0, 0.08, 0.20, 0.50, 0.80, 0.97, 1.0), (0, 15, 28, 52, 72, 88, 95))

# Logit of each finding where every parent is 0 and age is 50. In causal order: parents come first.
BASE = {
    "cardiomegaly": -1.25,
    "edema": -1.60,
    "pleural_other": -1.75,
    "pneumonia": -1.50,
    "fracture": -1.80,
    "pneumothorax": -2.00,
    "enlarged_cardiomediastinum": -1.75,
    "pleural_effusion": -1.75,
    "consolidation": -1.85,
    "support_devices": -1.75,
    "atelectasis": -1.90,
    "lung_opacity": -2.05,
    "lung_lesion": -1.65,
}

# child: {parent: logit}. Age counts in decades from 50, sex is 1 for male, race has a logit per
# category, a finding is 0 or 1.
EDGES: dict[str, dict[str, float | tuple[float, ...]]] = {
    "cardiomegaly": {"age": 0.30, "sex": 0.30, "race": (0.0, 0.6, -0.2, 0.1)},
    "edema": {"age": 0.25, "sex": 0.25, "race": (0.0, 0.5, -0.2, 0.1)},
    "pleural_other": {"age": 0.25, "sex": 0.60},
    "pneumonia": {"age": 0.10, "sex": 0.30},
    "fracture": {"age": 0.30, "sex": 0.50},
    "pneumothorax": {"age": -0.20, "sex": 0.60, "fracture": 1.50},
    "enlarged_cardiomediastinum": {"cardiomegaly": 1.50},
    "pleural_effusion": {"cardiomegaly": 1.00, "pleural_other": 1.00, "pneumonia": 1.00},
    "consolidation": {"pneumonia": 1.50},
    "support_devices": {"pneumothorax": 1.80, "pleural_effusion": 1.20},
    "atelectasis": {"pneumothorax": 1.20, "pleural_effusion": 1.30},
    "lung_opacity": {
        "edema": 1.00,
        "pleural_other": 0.80,
        "consolidation": 1.00,
        "atelectasis": 0.80,
    },
    "lung_lesion": {"lung_opacity": 1.00},
}

# Shares of patients with no value recorded, after the seven real sets together; view below
# their 11 %, so that little of a small set is lost.
UNRECORDED = {"view": 0.04, "sex": 0.012, "race": 0.61, "age": 0.02}

# Half of the patients carry labels read from a report: absent is said in so many words, hedged or
# not mentioned at all. The others carry a closed list that names what is present.
REPORT_SHARE = 0.5
UNCERTAIN_SHARE = (0.03, 0.08)  # of reports, where a finding is (absent, present)
UNMENTIONED_SHARE = (0.20, 0.10)


def descendants(name: str) -> tuple[str, ...]:
    """The findings that an intervention on an attribute can change, in causal order."""
    reached = {lookup(name).name}
    for child, parents in EDGES.items():
        if reached & parents.keys():
            reached.add(child)
    reached.discard(lookup(name).name)
    last = ("no_finding",) if (reached | {lookup(name).name}) & set(PATHOLOGY_NAMES) else ()
    return (*(child for child in EDGES if child in reached), *last)


def draw_attributes(
    seed: int, indices: np.ndarray, do: Mapping[str, float | np.ndarray] | None = None
) -> np.ndarray:
    """The true attributes of some patients, float32 [n, 19], as `conditioning` encodes them.

    Args:
      seed: Seed of the population.
      indices: Numbers of the patients, [n] integers.
      do: Interventions, attribute to encoded value (a number, or [n]): these are set, their
        descendants follow, everything else keeps its value.

    Raises:
      ConfigError: For an attribute that does not exist, or an intervention on No Finding, which is
        derived, or on source.
    """
    noise = Noise(seed, np.asarray(indices))
    forced = {lookup(name).name: value for name, value in (do or {}).items()}
    for name in ("no_finding", "source"):
        if name in forced:
            raise ConfigError(
                f"{name} of a phantom cannot be set: no_finding is computed from the other "
                f"findings and source is always phantom; remove {name}"
            )
    values = np.zeros((len(noise.indices), NUM_ATTRIBUTES), np.float32)

    def assign(name, drawn):
        values[:, INDEX[name]] = forced.get(name, drawn)

    for name, shares in (("view", VIEW_SHARES), ("sex", SEX_SHARES), ("race", RACE_SHARES)):
        assign(name, np.searchsorted(np.cumsum(shares)[:-1], _cause(noise, name), side="right"))
    assign("age", np.interp(_cause(noise, "age"), *AGE_QUANTILES))
    assign("source", ATTRIBUTES[INDEX["source"]].values.index("phantom"))
    for name in BASE:
        assign(name, _cause(noise, name) < expit(logit(name, values)))
    return np.asarray(derive_no_finding(all_known(values)).values)


def draw_trial(seed: int, indices: np.ndarray) -> np.ndarray:
    """Attributes as a randomised trial would assign them, float32 [n, 19]: independent of each
    other, so that whoever learns from the pictures reads each from its own pixels and not from what
    it usually goes with. Every finding has a share of 0.3, but 15 % have no pathology at all.
    """
    noise = Noise(seed, np.asarray(indices))
    ill = noise.uniform("trial/ill") < 0.85
    do = {name: (noise.uniform(f"trial/{name}") < 0.3) & ill for name in PATHOLOGY_NAMES}
    do["support_devices"] = noise.uniform("trial/support_devices") < 0.3
    return draw_attributes(seed, indices, do)


def logit(name: str, attributes: np.ndarray) -> np.ndarray:
    """The mechanism of a finding: the logit of its presence given its parents, [n].

    Args:
      name: Key of `BASE`.
      attributes: Attributes [n, 19], of which only the parents are read.
    """
    total = np.full(len(attributes), BASE[name])
    for parent, weight in EDGES[name].items():
        value = attributes[:, INDEX[parent]]
        if parent == "race":
            total += np.asarray(weight)[value.astype(int)]
        elif parent == "age":
            total += np.multiply(weight, value - 50) / 10
        else:
            total += weight * value
    return total


def draw_states(seed: int, indices: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """What a data set would record of the patients: a `State` per attribute, int8 [n, 19].

    Args:
      seed, indices: Those given to `draw_attributes`.
      attributes: True values [n, 19]; they decide between positive and negative.
    """
    noise = Noise(seed, np.asarray(indices))
    states = np.full(attributes.shape, State.STATED, np.int8)
    for name, share in UNRECORDED.items():
        states[noise.uniform(f"state/{name}") < share, INDEX[name]] = State.UNLABELLED
    from_report = noise.uniform("state/report") < REPORT_SHARE
    for name in FINDING_NAMES:
        present = attributes[:, INDEX[name]] > 0.5
        u = noise.uniform(f"state/{name}")
        uncertain = np.where(present, *reversed(UNCERTAIN_SHARE))
        unmentioned = np.where(present, *reversed(UNMENTIONED_SHARE))
        labelled = np.where(present, State.POSITIVE, State.NEGATIVE)
        report = np.where(
            u < uncertain,
            State.UNCERTAIN,
            np.where(u < uncertain + unmentioned, State.UNLABELLED, labelled),
        )
        closed = np.where(present, State.POSITIVE, State.NEGATIVE_CLOSED_VOCABULARY)
        states[:, INDEX[name]] = np.where(from_report, report, closed)
    # Reports and closed lists of phantoms are by labellers of all 12 pathologies.
    everyone = np.ones(len(states), bool)
    return settle_no_finding(observe(attributes, states), states, everyone)[1]


def observe(attributes: np.ndarray, states: np.ndarray) -> np.ndarray:
    """The attributes as a record carries them: 0 where the state says not known, [n, 19]."""
    return np.where(known_from_states(states), attributes, 0).astype(np.float32)


def _cause(noise: Noise, name: str) -> np.ndarray:
    return noise.uniform(f"cause/{name}")
