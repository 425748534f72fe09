"""Coverage of the intervals of FD∞ and KID, and their bias, where the true distance is known.

    python -m benchmarks.distance_coverage --out runs/distance_coverage

Draws pairs of sets in 16 dimensions (Gaussians and mixtures, with one film or four alike films for
each patient), and measures how often a 95% interval holds the analytic distance. Intervals that
were tried and not chosen stand beside those of `rfxray.evaluate`. Each finished part is a line of
JSON in `parts.jsonl`; rerun the command to continue. The seed of a part follows from its
description, so a part is the same in every run. Prints the tables as Markdown.
"""

import argparse
import dataclasses
import zlib
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks import resumed
from rfxray.command_line import ArgumentParser, Progress, exit_on_error, local_path
from rfxray.evaluate import feature_pair, frechet, frechet_figure, kernel, manifold

WIDTH = 16
N = 800
PART = 50  # repetitions of a part
RESAMPLES = 100  # of a bootstrap
GROUPS = 20  # of a jackknife over groups of patients
_SCALES = np.exp(np.linspace(0.8, -1.2, WIDTH))
_MEANS = 1.2 * np.random.default_rng(1).normal(size=(3, WIDTH))


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Mixture of Gaussians with one diagonal covariance: weights, means, deviations."""

    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray

    def draw(self, rng: np.random.Generator, patients: int, films: int) -> np.ndarray:
        """`[patients · films, width]`: films of one patient share mode and half of the variance."""
        mode = rng.choice(len(self.weights), patients, p=self.weights).repeat(films)
        common = rng.normal(size=(patients, WIDTH)).repeat(films, 0)
        own = rng.normal(size=(patients * films, WIDTH))
        noise = own if films == 1 else np.sqrt(0.5) * (common + own)
        return self.means[mode] + noise * self.scales

    def moments(self) -> list[np.ndarray]:
        """Raw moments of order 1, 2 and 3."""
        first, second, third = np.zeros(WIDTH), np.zeros((WIDTH,) * 2), np.zeros((WIDTH,) * 3)
        spread = np.diag(self.scales**2)
        for weight, mean in zip(self.weights, self.means, strict=True):
            first += weight * mean
            second += weight * (spread + np.outer(mean, mean))
            cross = np.einsum("i,jk->ijk", mean, spread)
            cross = cross + cross.transpose(1, 0, 2) + cross.transpose(1, 2, 0)
            third += weight * (np.einsum("i,j,k->ijk", mean, mean, mean) + cross)
        return [first, second, third]

    def gaussian(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance."""
        first, second, _ = self.moments()
        return first, second - np.outer(first, first)


_ONE, _NIL = np.ones(1), np.zeros((1, WIDTH))
_MODES = Mixture(np.array([0.5, 0.3, 0.2]), _MEANS, _SCALES)
PAIRS = {
    "the same Gaussian": (Mixture(_ONE, _NIL, _SCALES), Mixture(_ONE, _NIL, _SCALES)),
    "Gaussians apart": (
        Mixture(_ONE, _NIL, _SCALES),
        Mixture(_ONE, _NIL + 0.15, 1.15 * _SCALES),
    ),
    "mixtures of other shares": (_MODES, Mixture(np.array([0.35, 0.3, 0.35]), _MEANS, _SCALES)),
}


def true_kid(left: Mixture, right: Mixture) -> float:
    """KID of two mixtures: the kernel is a product of moments up to order 3."""
    gaps = [x - y for x, y in zip(left.moments(), right.moments(), strict=True)]
    factors = (3 / WIDTH, 3 / WIDTH**2, 1 / WIDTH**3)
    return sum(f * float(np.vdot(gap, gap)) for f, gap in zip(factors, gaps, strict=True))


def true_fd(left: Mixture, right: Mixture) -> float:
    """Fréchet distance of two mixtures, by their means and covariances."""
    return frechet.of_gaussians(*left.gaussian(), *right.gaussian())


# ---------------------------------------------------------------------------------------------
# Intervals that were tried


def resampled(rng: np.random.Generator, real: np.ndarray, synthetic: np.ndarray, films: int):
    """Percentile intervals of FD and KID under a bootstrap over patients, and KID's jackknife.

    Returns:
      Ends of the two intervals, and the deviation of KID by leaving out one patient.
    """
    n, m = len(real), len(synthetic)
    left = rng.integers(0, n // films, (RESAMPLES, n // films))
    rows = (left[:, :, None] * films + np.arange(films)).reshape(RESAMPLES, n)
    columns = rng.integers(0, m, (RESAMPLES, m))
    distances = [
        frechet.of_moments(frechet.moments_of(real, x), frechet.moments_of(synthetic, y))
        for x, y in zip(rows, columns, strict=True)
    ]
    w = np.stack([np.bincount(x, minlength=n) for x in rows]).astype(float)
    v = np.stack([np.bincount(y, minlength=m) for y in columns]).astype(float)
    xx, yy = kernel.polynomial(real, real), kernel.polynomial(synthetic, synthetic)
    xy = kernel.polynomial(real, synthetic)
    kids = (((w @ xx) * w).sum(1) - w @ np.diagonal(xx)) / (n * (n - 1))
    kids += (((v @ yy) * v).sum(1) - v @ np.diagonal(yy)) / (m * (m - 1))
    kids -= 2 * ((w @ xy) * v).sum(1) / (n * m)

    starts = np.arange(0, n, films)
    of_patients = np.add.reduceat(np.add.reduceat(xx, starts, 0), starts, 1)
    np.fill_diagonal(of_patients, 0)
    np.fill_diagonal(yy, 0)
    x_sums, y_sums, p = of_patients.sum(1), yy.sum(1), n // films
    x_cross, y_cross = np.add.reduceat(xy.sum(1), starts), xy.sum(0)
    without_x = (x_sums.sum() - 2 * x_sums) / (films**2 * (p - 1) * (p - 2))
    without_x -= 2 * (xy.sum() - x_cross) / ((n - films) * m)
    without_y = (y_sums.sum() - 2 * y_sums) / ((m - 1) * (m - 2))
    without_y -= 2 * (xy.sum() - y_cross) / (n * (m - 1))
    variance = (p - 1) * np.var(without_x) + (m - 1) * np.var(without_y)
    ends = [np.quantile(values, [0.025, 0.975]) for values in (distances, kids)]
    return ends, float(np.sqrt(variance))


def grouped_jackknife(real: np.ndarray, synthetic: np.ndarray, films: int) -> float:
    """Deviation of FD by leaving out one of 20 groups of patients."""
    whole = frechet.moments(real), frechet.moments(synthetic)
    variance = 0.0
    for side, features, alike in ((0, real, films), (1, synthetic, 1)):
        group = np.arange(len(features)) // alike % GROUPS
        values = []
        for left_out in range(GROUPS):
            part = frechet.moments(features[group != left_out])
            values.append(
                frechet.of_moments(*((part, whole[1]) if side == 0 else (whole[0], part)))
            )
        variance += (GROUPS - 1) ** 2 / GROUPS * float(np.var(values, ddof=1))
    return float(np.sqrt(variance))


# ---------------------------------------------------------------------------------------------
# One part


def repeat(name: str, films: int, seed: int, tried: bool) -> dict[str, tuple[float, bool | None]]:
    """Error of every estimate of one pair of sets, and whether its interval holds the truth."""
    rng = np.random.default_rng(seed)
    left, right = PAIRS[name]
    real, synthetic = left.draw(rng, N // films, films), right.draw(rng, N, 1)
    of = feature_pair.patients(N, N, np.arange(N) // films)
    loose = feature_pair.patients(N, N)
    truth = {"FD": true_fd(left, right), "KID": true_kid(left, right)}
    mean = frechet.moments(real)
    to_reference = frechet.of_gaussians(mean.mean, mean.covariance, *right.gaussian())
    found: dict[str, tuple[float, bool | None]] = {}

    def note(what: str, value: float, low: float, high: float, true: float) -> None:
        found[what] = (value - true, bool(low <= true <= high))

    def figure(what: str, of_what, true: float) -> None:
        note(what, of_what.value, of_what.low, of_what.high, true)

    both = frechet_figure.infinite(real, synthetic, of, both=True)
    figure("FD∞ of both", both, truth["FD"])
    figure("FD∞ (to this reference)", frechet_figure.infinite(real, synthetic, of), to_reference)
    figure("FD", frechet_figure.full(real, synthetic, of), truth["FD"])
    figure("KID", kernel.distance(real, synthetic, of), truth["KID"])
    if not tried:
        return found
    if films > 1:
        figure(
            "FD∞ of both, patients ignored",
            frechet_figure.infinite(real, synthetic, loose, both=True),
            truth["FD"],
        )
        figure("KID, patients ignored", kernel.distance(real, synthetic, loose), truth["KID"])
    ends, deviation = resampled(rng, real, synthetic, films)
    for measure, (low, high) in zip(("FD", "KID"), ends, strict=True):
        value = found[measure][0] + truth[measure]
        note(f"{measure}, bootstrap over patients", value, low, high, truth[measure])
    value, half = found["KID"][0] + truth["KID"], 1.96 * deviation
    note("KID, plain jackknife over patients", value, value - half, value + half, truth["KID"])
    half = float(stats.t.ppf(0.975, GROUPS - 1)) * grouped_jackknife(real, synthetic, films)
    value = found["FD∞ of both"][0] + truth["FD"]
    low, high = value - half, value + half
    note("FD∞ of both, jackknife over 20 groups", value, low, high, truth["FD"])
    return found


# ---------------------------------------------------------------------------------------------
# PRDC


def expected_coverage(real: int, synthetic: int, neighbours: int = manifold.NEIGHBOURS) -> float:
    """Coverage of two sets of one distribution (Naeem et al. 2020, lemma 2)."""
    ranks = np.arange(1, neighbours + 1)
    return 1 - float(np.prod((real - ranks) / (real + synthetic - ranks)))


def prdc(name: str, seed: int) -> dict[str, tuple[float, bool | None]]:
    """PRDC of one pair of sets of three modes far apart; the error of what is known."""
    rng = np.random.default_rng(seed)
    modes = Mixture(np.array([0.5, 0.3, 0.2]), 20 * _MEANS, _SCALES)
    shares, shift = {
        "the same mixture": ((0.5, 0.3, 0.2), 0.0),
        "without the third mode": ((0.625, 0.375, 0.0), 0.0),
        "far from all modes": ((0.5, 0.3, 0.2), 500.0),
    }[name]
    other = Mixture(np.array(shares), modes.means + shift, _SCALES)
    real, synthetic = modes.draw(rng, N, 1), other.draw(rng, N, 1)
    found = manifold.prdc(real, synthetic)
    # By mode: each is a pair of sets of one distribution, or has no synthetic row.
    covered = sum(
        share * expected_coverage(int(N * share), int(N * of)) if of and not shift else 0.0
        for share, of in zip((0.5, 0.3, 0.2), shares, strict=True)
    )
    return {
        "precision": (found.precision, None),
        "recall": (found.recall, None),
        "density": (found.density - (0.0 if shift else 1.0), None),
        "coverage": (found.coverage - covered, None),
    }


PRDC = ("the same mixture", "without the third mode", "far from all modes")


# ---------------------------------------------------------------------------------------------
# The command


@dataclasses.dataclass(frozen=True)
class Part:
    """Some repetitions of one line of the tables; `films` is 0 for PRDC."""

    name: str
    films: int
    part: int
    tried: bool


def parts(repetitions: int, tried: int) -> list[Part]:
    """All parts, the first of each line first, so that an unfinished run has all lines."""
    found = []
    for part in range(-(-repetitions // PART)):
        first = part * PART
        found += [Part(n, films, part, first < tried) for n in PAIRS for films in (1, 4)]
        if first < tried:
            found += [Part(name, 0, part, False) for name in PRDC]
    return found


def measure(part: Part) -> dict:
    """Errors and hits of a part: number, mean and mean square of the errors, share of hits."""
    rows = []
    for repetition in range(PART):
        seed = zlib.crc32(repr((part.name, part.films, part.part, repetition)).encode())
        if part.films:
            rows.append(repeat(part.name, part.films, seed, part.tried))
        else:
            rows.append(prdc(part.name, seed))
    sums = {}
    for what in rows[0]:
        errors = np.array([row[what][0] for row in rows])
        hits = [row[what][1] for row in rows]
        sums[what] = {
            "sum": float(errors.sum()),
            "squares": float(errors @ errors),
            "hits": None if hits[0] is None else sum(hits),
        }
    return {"part": dataclasses.asdict(part), "sums": sums}


def table(rows: list[dict]) -> str:
    """The finished parts as Markdown."""
    lines = [
        "| sets | films of a patient | figure | true | bias | deviation | covers | repetitions |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, films in [(n, f) for n in PAIRS for f in (1, 4)] + [(n, 0) for n in PRDC]:
        mine = [r for r in rows if (r["part"]["name"], r["part"]["films"]) == (name, films)]
        for what in dict.fromkeys(key for row in mine for key in row["sums"]):
            sums = [row["sums"][what] for row in mine if what in row["sums"]]
            count = PART * len(sums)
            mean = sum(s["sum"] for s in sums) / count
            square = sum(s["squares"] for s in sums) / count - mean**2
            covers = "–"
            if sums[0]["hits"] is not None:
                covers = f"{sum(s['hits'] for s in sums) / count:.1%}"
            true = "–"
            if films and "reference" not in what:
                true = f"{(true_kid if what.startswith('KID') else true_fd)(*PAIRS[name]):.4f}"
            lines.append(
                f"| {name} | {films or '–'} | {what} | {true} | {mean:+.4f} "
                f"| {np.sqrt(max(square, 0)):.4f} | {covers} | {count} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.distance_coverage", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", required=True, type=local_path, help="output folder")
    parser.add_argument(
        "--repetitions", type=int, default=1000, help="of each line (default: %(default)s)"
    )
    parser.add_argument(
        "--tried",
        type=int,
        default=100,
        help="of these with the intervals that were not chosen, and PRDC (default: %(default)s)",
    )
    arguments = parser.parse_args()
    with exit_on_error("benchmarks.distance_coverage"):
        arguments.out.mkdir(parents=True, exist_ok=True)
        log: Path = arguments.out / "parts.jsonl"
        rows = resumed.read(log)
        planned = parts(arguments.repetitions, arguments.tried)
        with Progress("benchmarks.distance_coverage", len(planned), unit="part") as progress:
            for part in planned:
                if not any(row["part"] == dataclasses.asdict(part) for row in rows):
                    rows.append(measure(part))
                    resumed.add(log, rows[-1])
                progress.advance()
        print(table(rows))


if __name__ == "__main__":
    main()
