"""The figures of CheXGenBench (arXiv 2505.10496) by its own path, faults included.

Pictures are squashed to 299² (bilinear, antialiased, 8 bits) whatever their aspect; RAD-DINO gets
that picture enlarged to its size; FID has no least N; KID is the mean over 100 subsets as large as
the smaller set, so of nearly the same pictures; nothing has an interval; figures have 3 decimals.
They compare with published ones and with nothing else: they never share a column with ours.

Two things differ: the order of its random subsets and splits is that of another generator, and
files of 16 bits are rounded to 8 where its libraries would clip them.
"""

import dataclasses
import math

import numpy as np
from scipy import special

from rfxray.errors import ConfigError, DataError
from rfxray.evaluate import frechet, kernel, manifold
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing, resize
from rfxray.evaluate.fidelity import Row
from rfxray.evaluate.figure import Figure, not_estimable
from rfxray.evaluate.gathering import Gathered

NAME = "chexgenbench"
SIDE = 299  # pixels
SUBSETS = 100
SPLITS = 10  # of the Inception score
WHY = "the benchmark gives no interval"
_PATHS = {
    # torch-fidelity: (x − 128) / 128 of 8 bits
    "inception": {"fit": "squash", "filter": "bilinear", "mean": 128 / 255, "std": 128 / 255},
    "rad_dino": {"fit": "crop", "filter": "bicubic"},
}


@dataclasses.dataclass(frozen=True)
class Squashed(Preprocessing):
    """A resize path behind the benchmark's own: the picture is squashed to 299² in 8 bits first."""

    def __str__(self) -> str:
        first = f"squashed, {SIDE}x{SIDE} bilinear antialiased in 8 bits"
        return f"{first}, then {super().__str__()}"

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return super().prepare(resize(image, (SIDE, SIDE), "bilinear", quantise=True))


def variants(extractors: list[Extractor]) -> list[Extractor]:
    """The extractors that the benchmark has, with its resize paths.

    Raises:
      ConfigError: If it has none of them.
    """
    found = [_variant(extractor) for extractor in extractors if extractor.name in _PATHS]
    if not found:
        raise ConfigError(
            f"--protocol {NAME} needs --extractor {' or '.join(_PATHS)}, the networks of that "
            "benchmark"
        )
    return found


def _variant(extractor: Extractor) -> Extractor:
    own, path = extractor.preprocessing, dict(_PATHS[extractor.name])
    values = {field.name: getattr(own, field.name) for field in dataclasses.fields(own)}
    for name in ("mean", "std"):
        if name in path:
            path[name] = (path[name],) * own.channels
    return dataclasses.replace(
        extractor, preprocessing=Squashed(**{**values, **path, "quantise": True})
    )


def judge(gathered: Gathered, seed: int) -> list[Row]:
    """FID, KID, Inception score and PRDC of every synthetic set by one extractor, as the benchmark
    has them.

    Args:
      gathered: Features of one of the `variants`.
      seed: Seed of the subsets of KID, and of the splits of the Inception score.
    """
    real, extractor = gathered.features["real"].values, gathered.extractor
    return [
        Row(label, extractor.name, NAME, "figure", "", figure)
        for label in gathered.sides
        for figure in _figures(real, gathered.features[label].values, seed, extractor.classes)
    ]


def _figures(
    real: np.ndarray, synthetic: np.ndarray, seed: int, classes: np.ndarray | None = None
) -> list[Figure]:
    n, m = len(real), len(synthetic)
    figures = []
    if classes is not None:
        value = round(inception_score(synthetic, classes, seed), 3)
        figures.append(Figure("Inception score", value, None, None, n, m, WHY))
    for what in ("FID", "KID of subsets"):
        try:
            value = _fid(real, synthetic) if what == "FID" else _kid(real, synthetic, seed)
        except DataError as error:
            figures.append(not_estimable(what, n, m, error))
            continue
        figures.append(Figure(what, round(value, 3), None, None, n, m, WHY))
    names = ("precision", "recall", "density", "coverage")
    try:
        seen = manifold.prdc(real, synthetic)
        values = [round(getattr(seen, each), 3) for each in names]
        figures += [
            Figure(each, value, None, None, n, m, WHY)
            for each, value in zip(names, values, strict=True)
        ]
    except DataError as error:
        figures += [not_estimable(each, n, m, error) for each in names]
    return figures


def _fid(real: np.ndarray, synthetic: np.ndarray) -> float:
    return frechet.of_moments(
        frechet.moments(real, "real"), frechet.moments(synthetic, "synthetic")
    )


def _kid(real: np.ndarray, synthetic: np.ndarray, seed: int) -> float:
    """Mean of the unbiased KID over subsets; that of the cross term is over all pairs."""
    size = min(len(real), len(synthetic))
    if size < 2:
        raise DataError("KID needs 2 images of each set (got 1)")
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(SUBSETS if len(real) != len(synthetic) else 1):  # else each is the whole set
        x, y = (
            side[np.sort(rng.permutation(len(side))[:size])].astype(np.float64)
            for side in (real, synthetic)
        )
        within = 0.0
        for side in (x, y):
            products = kernel.polynomial(side, side)
            within += (products.sum() - np.trace(products)) / (size * (size - 1))
        found.append(within - 2 * kernel.polynomial(x, y).mean())
    return float(np.mean(found))


def inception_score(features: np.ndarray, classes: np.ndarray, seed: int) -> float:
    """Inception score (Salimans et al. 2016, arXiv 1606.03498): the mean over splits of
    exp(E KL(p(y|x) ‖ p(y))); 1 at the least, where every image has the same classes.

    The splits are those of torchmetrics: as large as a tenth, rounded up, the last one smaller.

    Args:
      features: Features [n, width] of a set.
      classes: Matrix [width, classes] to logits.
      seed: Seed of the order in which the set is split.
    """
    order = np.random.default_rng(seed).permutation(len(features))
    size = -(-len(features) // SPLITS)
    found = []
    for start in range(0, len(features), size):
        rows = features[np.sort(order[start : start + size])].astype(np.float64)
        logits = rows @ classes.astype(np.float64)
        log_p = logits - special.logsumexp(logits, axis=1, keepdims=True)
        log_mean = special.logsumexp(log_p, axis=0) - math.log(len(rows))
        found.append(math.exp((np.exp(log_p) * (log_p - log_mean)).sum(1).mean()))
    return float(np.mean(found))
