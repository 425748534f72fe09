"""What features know of an image: linear probes of attributes that no extractor was trained on.

    python -m benchmarks.ssl_probe --data DATA --encoder EXPORT --out DIR

A ridge regression is fitted to the features of up to 2,000 images of the training split, and ranks
the images of the held-out split: the area under the ROC curve, with an interval over patients. The
network of EXPORT (`rfxray export` of a run of `--config masked`) stands beside its untrained twin,
the same network at the start of its run, and beside EfficientNet-Lite0, which knows photographs.
Training is worth what lies between the twin and the network.

The features are kept in DIR; rerun the command to continue. Writes `probes.json`, prints Markdown.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks.degradations import part_of
from rfxray import version
from rfxray.attributes import vocabulary
from rfxray.checkpoints import exported
from rfxray.command_line import ArgumentParser, data_folder, exit_on_error, local_path
from rfxray.config.load import from_json
from rfxray.errors import DataError
from rfxray.evaluate import auc
from rfxray.evaluate.extractors import ssl
from rfxray.evaluate.extractors.extractor import Extractor
from rfxray.evaluate.extractors.kinds import open_extractor
from rfxray.evaluate.features import extract
from rfxray.evaluate.pictures import Pictures, open_pictures
from rfxray.networks import kinds
from rfxray.outputs import files

MOST = 2000  # images that a probe is fitted to
LEAST = 5  # held-out images of either value
FOLDS = 4
PENALTIES = 10.0 ** np.arange(6)
# Attribute, the value that is ranked first, and the other one.
PROBES = (
    ("view", "AP", "PA"),
    ("sex", "M", "F"),
    *((name, "present", "absent") for name in vocabulary.PATHOLOGY_NAMES),
    ("support_devices", "present", "absent"),
)
_Z = 1.959963984540054  # of a 95% interval


def twin(encoder: Path) -> Extractor:
    """The network of an export at the start of a run of seed 0."""
    section = from_json(exported.read(encoder)[0]).model
    fresh = kinds.build(section).init(jax.random.key(0))
    return ssl.of_network(section, {name: np.asarray(leaf) for name, leaf in fresh.items()}, ())


def labels(pictures: Pictures, probe: tuple[str, str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the pictures that have one of the two values, and which have the first."""
    name, first, second = probe
    if pictures.attributes is None:
        raise DataError(f"{pictures.name} has no attributes; give a data set of ours")
    column = vocabulary.INDEX[name]
    values, known = (np.asarray(each)[:, column] for each in pictures.attributes)
    coded = [vocabulary.lookup(name).values.index(value) for value in (first, second)]
    rows = np.flatnonzero(known & np.isin(values, coded))
    return rows, values[rows] == coded[0]


def weights(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Ridge regression of ±1, [width]; its penalty is the best of `PENALTIES` between folds.

    Args:
      x: Standardised features [n, width].
      y: Which have the value, [n] bool.
      groups: Fold of each image, equal for the images of a patient, [n].
    """

    def fits(rows: np.ndarray) -> np.ndarray:
        """Weights for each penalty, [penalties, width]."""
        target = 2.0 * y[rows] - 1
        products, aim = x[rows].T @ x[rows], x[rows].T @ (target - target.mean())
        each = np.eye(x.shape[1])
        return np.stack([np.linalg.solve(products + p * each, aim) for p in PENALTIES])

    scores = np.empty((len(PENALTIES), len(x)))
    for fold in range(FOLDS):
        scores[:, groups == fold] = fits(groups != fold) @ x[groups == fold].T
    best = auc.area(auc.placements(scores, y), y).argmax()
    return fits(np.ones(len(x), bool))[best]


def _numbered(patients: Sequence[str]) -> np.ndarray:
    """A number for each patient; an unknown one is a patient of its own."""
    named = [patient or f"\0{n}" for n, patient in enumerate(patients)]
    return np.unique(named, return_inverse=True)[1]


def _enough(y: np.ndarray, folds: np.ndarray, truth: np.ndarray) -> bool:
    """Whether both values are outside of every fold, and often enough among the held-out images."""
    outside = [y[folds != fold] for fold in range(FOLDS)]
    both = all(each.any() and not each.all() for each in outside)
    return both and min(truth.sum(), (~truth).sum()) >= LEAST


def judge(
    features: dict[str, tuple[np.ndarray, np.ndarray]], train: Pictures, held_out: Pictures
) -> list[dict]:
    """Areas of every attribute with enough images, a row each.

    Args:
      features: Features of the fitted and of the held-out images by extractor; `ssl` and
        `untrained` are compared.
      train: The fitted images.
      held_out: The held-out images.
    """
    folds, patients = _numbered(train.patients) % FOLDS, _numbered(held_out.patients)
    found = []
    for probe in PROBES:
        (rows, y), (held, truth) = labels(train, probe), labels(held_out, probe)
        if not _enough(y, folds[rows], truth):
            continue
        scores = []
        for fitted, new in features.values():
            mean, spread = fitted[rows].mean(0), fitted[rows].std(0) + 1e-6
            fit = weights((fitted[rows].astype(np.float64) - mean) / spread, y, folds[rows])
            scores.append((new[held] - mean) / spread @ fit)
        placed = auc.placements(np.stack(scores), truth)
        areas, spread = auc.area(placed, truth), auc.delong(placed, truth, patients[held])
        names = list(features)
        gain = np.array([(n == "ssl") - float(n == "untrained") for n in names])
        found.append(
            {
                "attribute": probe[0],
                "values": probe[1:],
                "n": [int(truth.sum()), int((~truth).sum())],
                "areas": dict(zip(names, map(float, areas), strict=True)),
                "errors": dict(zip(names, map(float, np.sqrt(np.diag(spread))), strict=True)),
                "gain": float(gain @ areas),
                "gain_error": float(np.sqrt(gain @ spread @ gain)),
            }
        )
    return found


def table(found: dict) -> str:
    """The areas as Markdown, and what training gained with its interval."""
    names = list(found["probes"][0]["areas"])
    data = found["data"]["name"].partition(":")[0]
    lines = [
        f"| {data} | n | {' | '.join(names)} | trained less untrained |",
        "|---" * (len(names) + 3) + "|",
    ]
    for row in found["probes"]:
        cells = [f"{row['areas'][n]:.3f} ± {_Z * row['errors'][n]:.3f}" for n in names]
        gain = f"{row['gain']:+.3f} ± {_Z * row['gain_error']:.3f}"
        what = f"{row['attribute']}: {row['values'][0]} against {row['values'][1]}"
        lines.append(f"| {what} | {row['n'][0]} + {row['n'][1]} | {' | '.join(cells)} | {gain} |")
    means = [np.mean([row["areas"][n] for row in found["probes"]]) for n in names]
    gain = np.mean([row["gain"] for row in found["probes"]])
    cells = " | ".join(f"{mean:.3f}" for mean in means)
    return "\n".join([*lines, f"| mean | | {cells} | {gain:+.3f} |"])


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="python -m benchmarks.ssl_probe", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", required=True, type=data_folder, help="data set with two splits")
    parser.add_argument(
        "--encoder", required=True, type=local_path, metavar="EXPORT", help="of rfxray export"
    )
    parser.add_argument("--out", required=True, type=local_path, help="output folder")
    arguments = parser.parse_args(argv)
    with exit_on_error("benchmarks.ssl_probe"):
        began = time.monotonic()
        cache = arguments.out / "features"
        cache.mkdir(parents=True, exist_ok=True)
        whole = open_pictures(f"{arguments.data}:train")
        train = part_of(whole, np.arange(min(MOST, len(whole))), "", 0)
        held_out = open_pictures(f"{arguments.data}:validation")
        encoder = open_extractor(f"ssl={arguments.encoder}")
        opened = {
            "ssl": encoder,
            "untrained": twin(arguments.encoder),
            "efficientnet_lite0": open_extractor("efficientnet_lite0"),
        }
        features = {
            name: (extract(train, each, cache), extract(held_out, each, cache))
            for name, each in opened.items()
        }
        probes = judge(features, train, held_out)
        if not probes:
            raise DataError(f"{held_out.name} has no attribute with {LEAST} images of both values")
        devices = jax.devices()
        name, export = Path(arguments.data).name, arguments.encoder.name
        found = {
            "command": f"python -m benchmarks.ssl_probe --data {name} --encoder {export}",
            "written_by": version.versions(),
            "device": f"{len(devices)} × {devices[0].device_kind}",
            "seconds": round(time.monotonic() - began),
            "data": {"name": f"{name}:train+validation", "fingerprint": held_out.fingerprint},
            "weights": {name: each.hash for name, each in opened.items()},
            "probes": probes,
        }
        files.write_whole(arguments.out / "probes.json", json.dumps(found, indent=1) + "\n")
    print(table(found))
    print(f"wrote probes.json into {arguments.out}")


if __name__ == "__main__":
    main()
