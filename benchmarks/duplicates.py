"""How well near-duplicates are separated from radiographs that only look alike.

    python -m benchmarks.duplicates [--images DIR --metadata FILE.csv --column image=… \\
        --column patient=…] [--crowd 1200000]

- Different patients, of phantoms and of a real set: smallest distance of their hashes, highest
  registered correlation, number of pairs that would count as duplicates.
- Copies of one image: how many are found, and how much they differ.
- The search among as many hashes as CXR7 has: the hashes of other patients are drawn with the mean
  and covariance of real frequencies, and every copy is hidden among them.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from data_prep.images import duplicates
from data_prep.images.survey import HASH_SIDE, THUMBNAIL, halve, perceptual_hash, squeeze
from data_prep.phantom import draw_attributes, draw_images
from data_prep.sources.folder import read_folder
from data_prep.tables.columns import parse_columns
from data_prep.tables.description import Description
from rfxray.command_line import ArgumentParser, exit_on_error
from rfxray.data.radiograph import Radiograph, read, square

NEAREST = 2000  # pairs of different patients, nearest by hash, that are correlated


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    radiograph = Radiograph(np.ascontiguousarray(pixels, np.float32), 16)
    squared = square(radiograph, THUMBNAIL)
    return squeeze(squared["image"], squared["content_box"])


def hashes(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """[n, 256] bits."""
    packed = np.frombuffer(b"".join(perceptual_hash(halve(t)) for t in thumbnails), np.uint8)
    return np.unpackbits(packed.reshape(-1, HASH_SIDE**2 // 8), axis=1)


def different_patients(name: str, thumbnails: Sequence[np.ndarray], patients: np.ndarray) -> None:
    bits = hashes(thumbnails).astype(np.float32)
    distance = (bits @ (1 - bits).T + (1 - bits) @ bits.T).astype(np.int32)
    first, second = np.triu_indices(len(bits), 1)
    apart = patients[first] != patients[second]
    first, second = first[apart], second[apart]
    between = distance[first, second]
    order = np.argsort(between, kind="stable")[:NEAREST]
    correlations = np.array([
        duplicates.registered_correlation(thumbnails[first[i]], thumbnails[second[i]])
        for i in order
    ])  # fmt: skip
    by_hash = int((between <= duplicates.HASH_BITS).sum())
    both = (between[order] <= duplicates.HASH_BITS) & (correlations >= duplicates.CORRELATION)
    print(
        f"{name}: {len(bits):,} images, {len(between):,} pairs of different patients; nearest "
        f"{between.min()} of 256 bits, {by_hash} within {duplicates.HASH_BITS}; highest "
        f"correlation {correlations.max():.2f} of the {len(order):,} nearest; "
        f"{int(both.sum())} false positives"
    )


# ---------------------------------------------------------------------------------------------
# Copies


def _eight(pixels: np.ndarray) -> np.ndarray:
    return np.rint(255.0 * (pixels - pixels.min()) / np.ptp(pixels)).astype(np.uint8)


def _compressed(pixels: np.ndarray) -> np.ndarray:
    return cv2.imdecode(
        cv2.imencode(".jpg", _eight(pixels), [cv2.IMWRITE_JPEG_QUALITY, 50])[1],
        cv2.IMREAD_GRAYSCALE,
    )


def _scaled(by: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda p: cv2.resize(p, None, fx=by, fy=by, interpolation=cv2.INTER_AREA)


def _cropped(share: float) -> Callable[[np.ndarray], np.ndarray]:
    def crop(pixels):
        y, x = (max(1, round(share * side)) for side in pixels.shape)
        return pixels[y:-y, x:-x]

    return crop


def _marked(pixels: np.ndarray) -> np.ndarray:
    marked, side = _eight(pixels), min(pixels.shape)
    cv2.putText(marked, "R", (side // 20, side // 6), cv2.FONT_HERSHEY_SIMPLEX, side / 200, 255, 4)
    return marked


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG at quality 50": _compressed,
    "half the size": _scaled(0.5),
    "0.6 of the size": _scaled(0.6),
    "gamma 1.5": lambda p: _eight(p).astype(np.float32) ** 1.5,
    "squashed to a square": lambda p: cv2.resize(p, (400, 400), interpolation=cv2.INTER_AREA),
    "cropped by 1% at every side": _cropped(0.01),
    "cropped by 2%": _cropped(0.02),
    "cropped by 4%": _cropped(0.04),
    "a marker burned in": _marked,
}


def copies(pixels: Sequence[np.ndarray], crowd: int) -> None:
    whole = [thumbnail(one) for one in pixels]
    copied = {name: [thumbnail(make(one)) for one in pixels] for name, make in COPIES.items()}
    bits = hashes(whole)
    theirs = {name: hashes(thumbnails) for name, thumbnails in copied.items()}
    others = _crowd(whole, crowd)
    start = time.perf_counter()
    pairs = duplicates.candidates(
        np.packbits(np.concatenate([bits, *theirs.values(), others]), axis=1)
    )
    took = time.perf_counter() - start
    n = len(bits)
    proposed = {tuple(pair) for pair in pairs[pairs[:, 0] < n].tolist()}
    crowded = int((pairs[:, 0] >= n * (len(COPIES) + 1)).sum())
    print(
        f"{n} copies of each kind among {crowd:,} other hashes, searched in {took:.0f} s; of the "
        f"other hashes {crowded:,} pairs are within {duplicates.HASH_BITS} bits:"
    )
    for number, name in enumerate(COPIES, 1):
        differing = (bits != theirs[name]).sum(axis=1)
        correlation = np.array(list(map(duplicates.registered_correlation, whole, copied[name])))
        alike = (differing <= duplicates.HASH_BITS) & (correlation >= duplicates.CORRELATION)
        found = sum(bool(a) and (i, number * n + i) in proposed for i, a in enumerate(alike))
        print(
            f"  {name}: {np.median(differing):.0f} bits differ, at most {differing.max()}; "
            f"correlation {correlation.min():.2f} or more; {found} found, {alike.sum()} if every "
            f"pair were compared"
        )


def _crowd(whole: Sequence[np.ndarray], count: int) -> np.ndarray:
    """[count, 256] bits with the mean and covariance of the frequencies of real thumbnails."""
    small = (halve(one).astype(np.float32) for one in whole)
    low = np.stack([cv2.dct(one)[:HASH_SIDE, :HASH_SIDE].ravel() for one in small])
    low[:, 0] = 0
    covariance = np.cov(low.T)
    covariance = (
        0.9 * covariance + 0.1 * np.diag(np.diag(covariance)) + 1e-6 * np.eye(len(covariance))
    )
    mixing = np.linalg.cholesky(covariance).T.astype(np.float32)
    rng = np.random.default_rng(0)
    blocks = [np.zeros((0, HASH_SIDE**2), np.uint8)]
    for start in range(0, count, 65_536):
        drawn = rng.standard_normal((min(65_536, count - start), len(mixing)), np.float32) @ mixing
        drawn += low.mean(axis=0)
        blocks.append((drawn > np.median(drawn, axis=1, keepdims=True)).astype(np.uint8))
    return np.concatenate(blocks)


def main() -> None:
    with exit_on_error("benchmarks.duplicates"):
        parser = ArgumentParser(
            prog="python -m benchmarks.duplicates", description=__doc__.splitlines()[0]
        )
        add = parser.add_argument
        add("--phantoms", type=int, default=2000, help="number of phantoms (default: %(default)s)")
        add("--images", help="folder of a real set (default: only phantoms)")
        add("--metadata", help="table of that set, a CSV file")
        add("--column", action="append", default=[], help="image= or patient=HEADER, as for build")
        add(
            "--crowd",
            type=int,
            default=0,
            help="hashes to hide copies among (default: %(default)s)",
        )
        _measure(parser.parse_args())


def _measure(args: argparse.Namespace) -> None:
    indices = np.arange(args.phantoms)
    drawn = draw_images(draw_attributes(0, indices), 0, indices, 192)
    different_patients("phantoms", [thumbnail(one) for one in drawn], indices)
    if not args.images:
        copies(list(drawn[:150]), args.crowd)
        return
    columns = parse_columns(args.column)
    rows = read_folder(args.images, Description(args.metadata, columns), "real").rows
    pixels = [read(Path(args.images) / row.path).pixels for row in rows]
    patients = np.array([row.patient for row in rows])
    different_patients("real", [thumbnail(one) for one in pixels], patients)
    copies(pixels, args.crowd)


if __name__ == "__main__":
    main()
