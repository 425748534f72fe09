"""How far synthetic sets are from real ones: every measure, its floors, parts, curve over N.

Beside a figure stand two floors at the same N, of halves of the reals that share no patient: as
they are, and with one half resized through the model's size, which a perfect model of that size
could not get below. Two synthetic sets are compared against the same reals.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rfxray.evaluate import basis as bases
from rfxray.evaluate import (
    copies,
    feature_pair,
    frechet,
    gathering,
    kernel,
    manifold,
    measures,
    overlap,
    strata,
)
from rfxray.evaluate.basis import Basis
from rfxray.evaluate.extractors import circularity
from rfxray.evaluate.extractors.extractor import Extractor
from rfxray.evaluate.feature_pair import Patients
from rfxray.evaluate.figure import Figure, not_estimable
from rfxray.evaluate.gathering import Gathered, Sets
from rfxray.evaluate.manifold import Manifold

CURVE = 50  # pictures at the first point of a curve; each further point doubles them


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure and what it is of.

    Attributes:
      synthetic: Label of the synthetic set.
      extractor: Name of the extractor.
      protocol: `corrected`, or the name of a published protocol: never in one column.
      kind: `figure`, `real floor`, `resolution floor`, `part`, `curve` or `difference`.
      part: Part such as `view=PA`, of a `part` and of its floors; label of the other set of a
        difference; else empty.
      figure: The figure.
    """

    synthetic: str
    extractor: str
    protocol: str
    kind: str
    part: str
    figure: Figure


@dataclasses.dataclass(frozen=True)
class PerImage:
    """What one extractor sees of each picture of a synthetic set.

    Attributes:
      nearest: Distance of the features to the nearest real picture, [m] float64.
      nearest_real: Number of that picture, [m].
      inside: Whether it lies in the ball of a real one (precision), [m] bool; None if not known.
      copy: Whether it looks like a real picture (`copies`), [m] bool.
      authentic: Whether it is farther from its nearest training picture than that is from its own
        nearest (AuthPct), [m] bool; None without a training set.
    """

    nearest: np.ndarray
    nearest_real: np.ndarray
    inside: np.ndarray | None
    copy: np.ndarray
    authentic: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Judged:
    """All that one extractor says.

    Attributes:
      rows: Figures.
      images: What it sees of each picture, by label of the synthetic set.
      basis: Basis of FD64, if there is one.
      circular: Reasons for which its figures are circular, a line each.
      suspects: Sets with more pictures that look like real ones than chance has, a line each.
    """

    rows: list[Row]
    images: Mapping[str, PerImage]
    basis: Basis | None
    circular: list[str]
    suspects: list[str]


def judge(sets: Sets, gathered: Gathered, seed: int, models: Sequence[Path] = ()) -> Judged:
    """Compares every synthetic set with the reals, by one extractor.

    Args:
      sets: Sets that are compared.
      gathered: Features of one extractor.
      seed: Seed of the halves of the floors and of the pictures of the curves.
      models: Exports of the models that drew the synthetic sets, as far as they are known.

    Raises:
      DataError: For features that are not finite, or an export that is damaged.
    """
    real = gathered.features["real"].values
    basis = basis_of(gathered.extractor, real, sets.real.name)
    rows, images, suspects = [], {}, []
    floors = _floors(sets, gathered, basis, seed)
    for label in sets.synthetic:
        one = _Comparison(sets, gathered, label, basis, seed, floors)
        rows += one.rows()
        images[label] = one.images()
        suspects += one.suspects()
    for first, second in itertools.combinations(sets.synthetic, 2):
        rows += _differences(sets, gathered, first, second, basis)
    circles = circular(sets, gathered.extractor, models)
    return Judged(rows, images, basis, circles, suspects)


def _differences(
    sets: Sets, gathered: Gathered, first: str, second: str, basis: Basis | None
) -> list[Row]:
    """KID, FD64 and FD of a set less those of another, paired: the reals are the same, and so is
    the noise of samples that have the same key and were requested with the same attributes."""
    of = [_names(sets, label) for label in ("real", first, second)]
    for key, i, k in overlap.pairs(sets.synthetic[first], sets.synthetic[second]):
        of[1][i] = of[2][k] = f"request {key}"
    real, one, other = (gathered.features[label].values for label in ("real", first, second))
    sides = zip(("real", first, second), map(len, of), of, strict=True)
    codes, _ = feature_pair.number(*sides)
    figures = measures.differences(real, one, other, (codes[0], codes[1], codes[2]), basis)
    name = gathered.extractor.name
    return [Row(first, name, "corrected", "difference", second, figure) for figure in figures]


def circular(sets: Sets, extractor: Extractor, models: Sequence[Path]) -> list[str]:
    """Why figures of an extractor are circular for these sets and exports, a line each."""
    found = []
    for label, pictures in sets.named().items():
        sources = strata.sources(pictures.attributes)
        found += circularity.reasons(extractor, f"the {label} set", sources)
    for export in models:
        found += circularity.of_model(extractor, export)
    return found


def basis_of(extractor: Extractor, real: np.ndarray, name: str) -> Basis | None:
    """The basis of the package, else one of the reals, if they are enough for it."""
    if found := bases.packaged(extractor.name, extractor.hash):
        return found
    if len(real) < bases.LEAST or real.shape[1] < bases.WIDTH:
        return None
    of = frechet.moments(real, "real")
    return bases.fit(of.mean, of.covariance, extractor.hash, f"the real set, {name}")


def _floors(
    sets: Sets, gathered: Gathered, basis: Basis | None, seed: int
) -> Callable[[int | None, int], list[Figure]]:
    """Function of the side of the second half (None: as it is) and the most pictures of a half to
    the floors; sets of one side and number share them."""
    real = gathered.features["real"].values
    codes = feature_pair.patients(len(real), 0, _names(sets, "real"), []).real
    resized = {gathered.sides[label]: found.values for label, found in gathered.resized.items()}

    @functools.cache
    def floors(side: int | None, most: int) -> list[Figure]:
        other = real if side is None else resized[side]
        return measures.floors(real, other, codes, most, basis, seed)

    return floors


def _names(sets: Sets, label: str) -> list[str]:
    return overlap.patients(sets.named()[label], label)


class _Comparison:
    """One synthetic set against the reals."""

    def __init__(
        self,
        sets: Sets,
        gathered: Gathered,
        label: str,
        basis: Basis | None,
        seed: int,
        floors: Callable[[int | None, int], list[Figure]],
    ):
        self.sets, self.gathered, self.label = sets, gathered, label
        self.basis, self.seed, self.floors = basis, seed, floors
        self.real = gathered.features["real"].values
        self.synthetic = gathered.features[label].values
        self.of_real, self.of_synthetic = _names(sets, "real"), _names(sets, label)

    def rows(self) -> list[Row]:
        of = self._patients(None, None)
        figures = measures.measured(self.real, self.synthetic, of, self.basis, self.seed, self.seen)
        found = [self._row("figure", "", figure) for figure in figures]
        found += self._authenticity()
        found += self._floors()
        found += self._parts()
        found += self._curve()
        return found

    def images(self) -> PerImage:
        squares, which = self.nearest
        inside = None if self.seen is None else self.seen.inside
        return PerImage(np.sqrt(squares), which, inside, self.copy, self.authentic)

    def suspects(self) -> list[str]:
        """A line if more pictures look like real ones than chance has."""
        count, total = int(self.copy.sum()), len(self.copy)
        codes = feature_pair.patients(len(self.real), 0, self.of_real, []).real
        if not count or count / total <= copies.by_chance(self.real, codes, self.seed):
            return []
        return [
            f"{count:,} of {total:,} images of {self.label} look like a real one: the same picture "
            "at another size or compression, or one that the model has learnt by heart"
        ]

    @functools.cached_property
    def copy(self) -> np.ndarray:
        """Whether each picture looks like a real one, at the size of the samples."""
        resized = self.gathered.resized.get(self.label)
        if resized is None:
            return copies.like(self.real, self.synthetic, self.nearest)
        return copies.like(resized.values, self.synthetic)

    @functools.cached_property
    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Squared distance and number of the real picture nearest to each sample."""
        return manifold.nearest(self.real, self.synthetic)

    @functools.cached_property
    def seen(self) -> Manifold | None:
        """PRDC, the dearest of all measures; None for too few pictures."""
        if min(len(self.real), len(self.synthetic)) <= manifold.NEIGHBOURS:
            return None
        return manifold.prdc(self.real, self.synthetic)

    @functools.cached_property
    def authentic(self) -> np.ndarray | None:
        """Whether each sample is farther from the training set than that is from itself."""
        train = self.gathered.features.get("train")
        if train is None or len(train.values) < 2:
            return None
        return manifold.authentic(train.values, self.synthetic)

    def _row(self, kind: str, part: str, figure: Figure) -> Row:
        name = self.gathered.extractor.name
        return Row(self.label, name, "corrected", kind, part, figure)

    def _patients(self, real: np.ndarray | None, synthetic: np.ndarray | None) -> Patients:
        """Patients of all rows, or of those with these numbers."""
        sides = []
        for names, numbers in ((self.of_real, real), (self.of_synthetic, synthetic)):
            sides.append(names if numbers is None else [names[number] for number in numbers])
        return feature_pair.patients(len(sides[0]), len(sides[1]), *sides)

    def _authenticity(self) -> list[Row]:
        """AuthPct of the samples, and of as many reals if the model was not trained on them."""
        train = self.gathered.features.get("train")
        if train is None:
            return []
        of_train = _names(self.sets, "train")

        def figure(rows: np.ndarray, names: list[str], hits: np.ndarray | None) -> Figure:
            of = feature_pair.patients(len(of_train), len(rows), of_train, names)
            return manifold.authenticity(train.values, rows, of, hits)

        own = figure(self.synthetic, self.of_synthetic, self.authentic)
        found = [self._row("figure", "", own)]
        known = gathering.in_training_set(self.sets, "real", self.gathered.features)
        floor = (
            figure(self.real, self.of_real, None)
            if not known
            else not_estimable(
                own.name,
                len(train.values),
                len(self.real),
                f"{known} reals are in the training set",
            )
        )
        return [*found, self._row("real floor", "", floor)]

    def _floors(self) -> list[Row]:
        sides: dict[str, int | None] = {"real floor": None}
        if self.label in self.gathered.resized:
            sides["resolution floor"] = self.gathered.sides[self.label]
        return [
            self._row(kind, "", figure)
            for kind, side in sides.items()
            for figure in self.floors(side, len(self.synthetic))
        ]

    def _parts(self) -> list[Row]:
        real, synthetic = self.sets.real.attributes, self.sets.synthetic[self.label].attributes
        if real is None or synthetic is None:
            return []
        ours, theirs = strata.of(real), strata.of(synthetic)
        found = []
        for part in dict.fromkeys([*ours, *theirs]):
            rows = [
                np.flatnonzero(side[part]) if part in side else np.empty(0, np.int64)
                for side in (ours, theirs)
            ]
            counts = [len(side) for side in rows]
            if min(counts) < strata.LEAST:
                why = f"it needs {strata.LEAST} images of each set (got {min(counts)})"
                figure = not_estimable(kernel.NAME, counts[0], counts[1], why)
            else:
                figure = kernel.distance(
                    self.real[rows[0]], self.synthetic[rows[1]], self._patients(rows[0], rows[1])
                )
            found.append(self._row("part", part, figure))
            if figure.value is not None:
                found += self._part_floors(part, rows[0], len(rows[1]))
        return found

    def _part_floors(self, part: str, rows: np.ndarray, most: int) -> list[Row]:
        codes = feature_pair.patients(len(rows), 0, [self.of_real[row] for row in rows], []).real
        others = {"real floor": self.real}
        if self.label in self.gathered.resized:
            others["resolution floor"] = self.gathered.resized[self.label].values
        return [
            self._row(
                kind,
                part,
                measures.part_floor(self.real[rows], other[rows], codes, most, self.seed),
            )
            for kind, other in others.items()
        ]

    def _curve(self) -> list[Row]:
        """KID, FD64 and FD of the same N of both sets, drawn without replacement."""
        most = min(len(self.real), len(self.synthetic))
        sizes = [CURVE * 2**k for k in range(20) if CURVE * 2**k < most]
        rng = np.random.default_rng(self.seed)
        orders = [rng.permutation(len(self.real)), rng.permutation(len(self.synthetic))]
        found = []
        for size in [*sizes, most]:
            rows = [np.sort(order[:size]) for order in orders]
            pair = self.real[rows[0]], self.synthetic[rows[1]]
            figures = measures.of_curve(*pair, self._patients(*rows), self.basis)
            found += [self._row("curve", "", figure) for figure in figures]
        return found
