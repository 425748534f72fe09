"""Samples that are nearer to a training image than a new patient's image is.

Every detector gives a sample one number, the distance to the nearest training image over that to
the nearest of another patient: small for a copy, whatever surrounds it. The *null* are images that
no model copied: held-out ones, and training images looked up among all other patients'. What is
rarer than `LEVEL` among these is listed (conformal p-values, Vovk et al. 2005, shared over the
detectors by Bonferroni), so that of samples that are new about that share is listed in vain.

Detectors: features of each extractor; *shades*, a small image; and *registered*, one less the
correlation of edges where one lies best over the other, of the candidates that any detector names.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from rfxray.evaluate.privacy import neighbours, registered, template
from rfxray.evaluate.privacy.neighbours import Nearest

LEVEL = 0.01
NULL = 2048  # training images, at most, that are looked up among the others
_NEIGHBOURS = 6  # of each detector: candidates, among them one of another patient
SHADES, REGISTERED = "shades", "registered"

# Features of a set by the name of what gives them; `TEMPLATE` is always among them.
Features = Mapping[str, np.ndarray]
TEMPLATE = "template"


@dataclasses.dataclass(frozen=True)
class Probes:
    """What each image of a set is nearest to.

    Attributes:
      ratios: Ratio of each detector, [n] float32 in [0, 1].
      rows: Number of the nearest training image by each detector, [n] int.
      correlation: Correlation of edges with the nearest by registration, [n] float32.
    """

    ratios: Mapping[str, np.ndarray]
    rows: Mapping[str, np.ndarray]
    correlation: np.ndarray

    def __len__(self) -> int:
        return len(self.correlation)


@dataclasses.dataclass(frozen=True)
class Found:
    """Near-copies among samples.

    Attributes:
      synthetic: Probes of the samples.
      heldout: Probes of the held-out images.
      left_out: Probes of training images among other patients'.
      p: p-value of each sample by each detector, [n] float64.
      listed: Whether a sample is a near-copy, [n] bool.
      by: Detector that is surest of each sample, [n].
      heldout_listed: The same of held-out images, each left out of the null, [n] bool.
      level: Share of new images that is listed in vain, at most.
    """

    synthetic: Probes
    heldout: Probes
    left_out: Probes
    p: Mapping[str, np.ndarray]
    listed: np.ndarray
    by: np.ndarray
    heldout_listed: np.ndarray
    level: float

    @property
    def nearest(self) -> np.ndarray:
        """Number of the training image that each sample is nearest to by its surest detector."""
        names = list(self.synthetic.rows)
        every = np.stack([self.synthetic.rows[name] for name in names])
        return every[[names.index(name) for name in self.by], np.arange(len(self.by))]


def find(
    train: Features,
    patients: np.ndarray,
    synthetic: Features,
    heldout: Features,
    heldout_patients: np.ndarray,
    seed: int,
    say: Callable[[str], None],
) -> Found:
    """Looks every sample up among the training images.

    Args:
      train: Features of the training images, [n, width] float32 each.
      patients: Patient of each training image, [n] int.
      synthetic: Features of the samples.
      heldout: Features of images that the model never saw.
      heldout_patients: Patient of each in the same numbering, [m] int.
      seed: Seed of the training images that are looked up.
      say: Function that is called with a line about each set.
    """
    nobody = np.full(len(synthetic[TEMPLATE]), -1)
    count = min(NULL, len(patients))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(patients))[:count])
    left_out = {name: np.asarray(rows[chosen]) for name, rows in train.items()}
    sets = {
        "samples": (synthetic, nobody),
        "held-out images": (heldout, heldout_patients),
        "training images, among other patients'": (left_out, patients[chosen]),
    }
    probes = []
    for name, (features, own) in sets.items():
        say(f"looking up {len(own):,} {name}")
        probes.append(_probe(train, patients, features, own))
    of, new, others = probes
    null = {
        name: np.sort(np.concatenate([new.ratios[name], others.ratios[name]])) for name in of.ratios
    }
    size = len(new) + len(others)
    # One image of the null is the least that a rule can let through.
    share = max(LEVEL / len(null), 1 / (size + 1))
    p = {name: _ranks(null[name], of.ratios[name], 1) / (size + 1) for name in null}
    every = np.stack(list(p.values()))
    itself = np.stack([_ranks(null[name], new.ratios[name], 0) / size for name in null])
    return Found(
        synthetic=of,
        heldout=new,
        left_out=others,
        p=p,
        listed=every.min(0) <= share,
        by=np.array(list(p))[_surest(every, of)],
        heldout_listed=itself.min(0) <= share,
        level=share * len(null),
    )


def _ranks(null: np.ndarray, ratios: np.ndarray, itself: int) -> np.ndarray:
    """Number of images of the null that are at most as far; and the image itself."""
    return np.searchsorted(null, ratios, side="right") + itself


def _surest(p: np.ndarray, of: Probes) -> np.ndarray:
    """The detector of the least p-value of each sample; of equal ones that of the least ratio."""
    ratios = np.stack(list(of.ratios.values()))
    return np.lexsort((ratios, p), axis=0)[0]


def _probe(train: Features, patients: np.ndarray, rows: Features, own: np.ndarray) -> Probes:
    near = {
        name: neighbours.nearest(train[name], patients, rows[name], own, _NEIGHBOURS)
        for name in train
        if name != TEMPLATE
    }
    of, to = train[TEMPLATE], rows[TEMPLATE]
    spectra = _Derived(of, template.spectra)
    near[SHADES] = neighbours.nearest(
        _Derived(of, template.shades), patients, template.shades(to), own, _NEIGHBOURS
    )
    by_shift = neighbours.nearest(spectra, patients, template.spectra(to), own, _NEIGHBOURS)
    best = near[REGISTERED] = _registered([*near.values(), by_shift], of, to)
    return Probes(
        ratios={name: neighbours.ratios(each, patients) for name, each in near.items()},
        rows={name: each.rows[:, 0] for name, each in near.items()},
        correlation=1 - best.distances[:, 0],
    )


def _registered(candidates: list[Nearest], train: np.ndarray, rows: np.ndarray) -> Nearest:
    """The candidates of each row, the one of the largest correlation first."""
    numbers = np.concatenate([each.rows for each in candidates], 1)
    order = np.sort(numbers, 1)
    repeated = np.concatenate([np.zeros((len(order), 1), bool), order[:, 1:] == order[:, :-1]], 1)
    which, place = np.nonzero((order >= 0) & ~repeated)
    training, compact = np.unique(order[which, place], return_inverse=True)
    pairs = np.stack([which, compact], 1)
    found = np.full(order.shape, np.inf, np.float32)
    edges = template.edges(np.asarray(train[training]))
    found[which, place] = 1 - registered.correlations(template.edges(rows), edges, pairs)
    best = np.argsort(found, 1, kind="stable")
    distances = np.take_along_axis(found, best, 1)
    chosen = np.take_along_axis(order, best, 1)
    return Nearest(np.where(np.isinf(distances), -1, chosen), distances)


@dataclasses.dataclass(frozen=True)
class _Derived:
    """Rows that are computed from others where they are read."""

    rows: np.ndarray
    function: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.function(np.asarray(self.rows[part]))
