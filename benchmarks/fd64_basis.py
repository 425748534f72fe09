"""Fits the bases of FD64 that come with the package.

    rfxray harmonise --set nih=DIR --size 512 --name nih --validation 0 --test 0.2 --out NIH
    rfxray phantom --n 1024 --size 256 --seed 77 --out PHANTOMS
    python -m benchmarks.fd64_basis --films NIH:train --phantoms PHANTOMS

A distance on principal components depends on which ones, so every paper that gives FD64 should use
the same: those of the training films of NIH ChestX-ray14 at hand and of phantoms, in equal weight,
for each extractor that needs no weights from a user. Writes `fd64_NAME.npz` of each into
`rfxray/evaluate/packaged` and prints their hashes. Only the mean and the directions of variance of
the films are kept.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from rfxray.command_line import ArgumentParser, exit_on_error
from rfxray.evaluate import basis, frechet
from rfxray.evaluate.extractors.kinds import open_extractor
from rfxray.evaluate.features import extract
from rfxray.evaluate.pictures import open_pictures
from rfxray.outputs import cache

EXTRACTORS = ("efficientnet_lite0", "oracle")


def pooled(moments: Sequence[frechet.Moments]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a mixture of sets in equal weight, float64."""
    mean = np.mean([each.mean for each in moments], 0)
    gaps = [each.mean - mean for each in moments]
    parts = [m.covariance + np.outer(g, g) for m, g in zip(moments, gaps, strict=True)]
    return mean, np.mean(parts, 0)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="python -m benchmarks.fd64_basis", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--films", required=True, metavar="DATA:SPLIT", help="training films")
    parser.add_argument("--phantoms", required=True, metavar="DATA", help="phantoms")
    arguments = parser.parse_args(argv)
    with exit_on_error("benchmarks.fd64_basis"):
        sets = [open_pictures(given) for given in (arguments.films, arguments.phantoms)]
        what = f"{len(sets[0]):,} films of NIH ChestX-ray14 and {len(sets[1]):,} phantoms"
        for name in EXTRACTORS:
            extractor = open_extractor(name)
            found = [
                frechet.moments(extract(each, extractor, cache.folder("features"))) for each in sets
            ]
            mean, covariance = pooled(found)
            fitted = basis.fit(mean, covariance, extractor.hash, what)
            file = basis.packaged_file(name)
            fitted.save(file)
            kept = fitted.components.T @ covariance @ fitted.components
            share = np.trace(kept) / np.trace(covariance)
            print(f"{file}: {share:.0%} of the variance, hash {fitted.hash}")


if __name__ == "__main__":
    main()
