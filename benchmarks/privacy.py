"""What `rfxray evaluate privacy` finds: planted copies, and runs on few and on many images.

    python -m benchmarks.privacy --train runs/smoke/phantom:train --heldout phantoms/fresh:train \\
      --run runs/few/train=runs/few/phantom --run runs/smoke/train=runs/smoke/phantom \\
      --films nih=data/nih --out runs/privacy
    python -m benchmarks.results --add privacy=runs/privacy/privacy.json

Copies of training images are planted among 2,000 samples that copy nothing (the second half of
--heldout; the first is the null), 40 of each kind. Then, for each RUN=DATA, 1,000 samples of the
run under attributes of its training set are looked up among its training images, with the gate of
the package. Each part is written when it is done, and a killed command goes on with the next.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from rfxray import sample, version
from rfxray.command_line import ArgumentParser, data_folder, exit_on_error, local_path
from rfxray.commands import evaluate_privacy
from rfxray.errors import ConfigError
from rfxray.evaluate import feature_pair, features, overlap
from rfxray.evaluate.extractors.kinds import open_extractor
from rfxray.evaluate.pictures import Pictures, open_pictures
from rfxray.evaluate.privacy import near
from rfxray.evaluate.privacy.template import open_template
from rfxray.outputs import cache, files
from rfxray.runtime import distributed

SAMPLES, EACH, SEED = 2000, 40, 5
DRAWN = 1000  # samples of a run


def _zoomed(image: np.ndarray, by: float) -> np.ndarray:
    matrix = np.diag([1 / by, 1 / by, 1])
    matrix[:2, 2] = np.array(image.shape) / 2 * (1 - 1 / by)
    return ndimage.affine_transform(image, matrix, order=1, mode="nearest")


def _shifted(image: np.ndarray, part: float) -> np.ndarray:
    rows, columns = image.shape
    return ndimage.shift(image, (part * rows, -part / 2 * columns), order=1, mode="nearest")


def _blurred(image: np.ndarray, part: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, part * image.shape[0])


def _noisy(image: np.ndarray, by: float) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:4], "little")
    return image + by * np.random.default_rng(seed).normal(size=image.shape)


# What was done to a copy; shifts and blurs are parts of its side.
WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact": lambda x: x,
    "blurred, σ 1/64": lambda x: _blurred(x, 1 / 64),
    "contrast × 0.6": lambda x: 0.5 + 0.6 * (x - 0.5),
    "shifted by 4/64": lambda x: _shifted(x, 4 / 64),
    "brighter by 0.12": lambda x: x + 0.12,
    "gamma 1.5": lambda x: x**1.5,
    "noise 0.04": lambda x: _noisy(x, 0.04),
    "blurred, σ 2/64": lambda x: _blurred(x, 2 / 64),
    "larger by 4%": lambda x: _zoomed(x, 1.04),
    "turned by 2°": lambda x: ndimage.rotate(x, 2, reshape=False, order=1, mode="nearest"),
    "mirrored": lambda x: x[:, ::-1],
}


def _part(pictures: Pictures, rows: np.ndarray, ways: Sequence[str] | np.ndarray = ()) -> Pictures:
    """Some pictures of a set, perhaps changed."""
    names = [*ways, *[""] * (len(rows) - len(ways))]

    def load(number: int) -> np.ndarray:
        image = pictures.load(int(rows[number]))
        way = WAYS[names[number]] if names[number] else WAYS["exact"]
        return np.clip(way(image), 0, 1).astype(np.float32)

    decides = json.dumps([pictures.fingerprint, rows.tolist(), names, "1"])
    return dataclasses.replace(
        pictures,
        keys=tuple(f"{names[i]} {i} {pictures.keys[row]}" for i, row in enumerate(rows)),
        patients=tuple(pictures.patients[row] for row in rows),
        fingerprint=hashlib.sha256(decides.encode()).hexdigest(),
        load=load,
    )


def planted(train: Pictures, heldout: Pictures, extractor: str) -> dict[str, Any]:
    """Recall of each kind of copy, and false alarms among what copies nothing."""
    generator = np.random.default_rng(SEED)
    names = overlap.patients(heldout, "heldout")
    codes = feature_pair.number(("heldout", len(names), names))[0][0]
    order = np.argsort(generator.permutation(codes.max() + 1)[codes], kind="stable")
    middle = len(order) // 2
    while middle < len(order) - 1 and codes[order[middle]] == codes[order[middle - 1]]:
        middle += 1
    null, new = order[:middle], order[middle:]
    each = min(EACH, len(train) // len(WAYS))
    new = new[: SAMPLES - each * len(WAYS)]
    ways = np.repeat(list(WAYS), each)
    copied = generator.permutation(len(train))[: len(ways)]
    sets = {
        "train": [train],
        "heldout": [_part(heldout, null)],
        "synthetic": [_part(train, copied, ways), _part(heldout, new)],
    }
    place = cache.folder("features")
    seen: dict[str, dict[str, np.ndarray]] = {label: {} for label in sets}
    for of in (open_extractor(extractor), open_template()):
        for label, parts in sets.items():
            values = [features.extract(part, of, place) for part in parts]
            seen[label][of.name] = values[0] if len(values) == 1 else np.concatenate(values)
    patients = overlap.patients(train, "train")
    numbers, _ = feature_pair.number(
        ("train", len(patients), patients), ("heldout", len(names), names)
    )
    found = near.find(
        *(seen["train"], numbers[0], seen["synthetic"], seen["heldout"], numbers[1][null]),
        *(0, lambda line: print(f"benchmarks.privacy: {line}", flush=True)),
    )
    rightly = found.nearest[: len(ways)] == copied
    return {
        "train": len(train),
        "null": len(found.heldout) + len(found.left_out),
        "new": len(new),
        "false_alarms": float(found.listed[len(ways) :].mean()),
        "each": each,
        "recall": {
            name: {
                "listed": float(found.listed[: len(ways)][ways == name].mean()),
                "rightly": float((found.listed[: len(ways)] & rightly)[ways == name].mean()),
            }
            for name in WAYS
        },
    }


def judged(run: Path, data: str, heldout: str, extractor: str, out: Path) -> dict[str, Any]:
    """Figures and gate of a run; draws its samples if they are not there."""
    samples = out / "samples"
    argv = ["--checkpoint", run, "--n", DRAWN, "--complete", f"table={data}:train"]
    argv += ["--steps", 16, "--seed", 0, "--batch-size", 50, "--out", samples]
    if not (samples / "samples.json").exists():
        sample.main([str(word) for word in argv])
    argv = ["--synthetic", samples, "--train", f"{data}:train", "--heldout", heldout]
    argv += ["--extractor", extractor, "--checkpoint", run, "--gate", "--out", out / "privacy"]
    try:
        evaluate_privacy.main([str(word) for word in argv])
    except SystemExit as stopped:
        if stopped.code != 1:
            raise
    return json.loads((out / "privacy/results.json").read_text())


def _plant(train: str, heldout: str, extractor: str) -> dict[str, Any]:
    return planted(open_pictures(train), open_pictures(heldout), extractor)


def _stage(file: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not file.exists():
        began = time.monotonic()
        found = measure()
        found = {**found, "took": round(time.monotonic() - began, 1)}
        files.write_whole(file, json.dumps(found, indent=1) + "\n")
    return json.loads(file.read_text())


def table(found: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    sets = found["planted"]
    head = ["what was done to a copy", *sets]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in next(iter(sets.values()))["recall"]:
        cells = [f"{of['recall'][name]['listed']:.2f}" for of in sets.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        f"| **nothing was copied: listed in vain** | "
        f"{' | '.join(format(of['false_alarms'], '.3f') for of in sets.values())} |",
        "| training images, null, new samples, copies of each kind | "
        + " | ".join(
            f"{of['train']:,}, {of['null']:,}, {of['new']:,}, {of['each']}" for of in sets.values()
        )
        + " |",
        "",
        "| training images | steps | near-copies | held-out images listed | membership AUC "
        "| TPR at 1% FPR | gate |",
        "|---" * 7 + "|",
    ]
    for row in found["runs"]:
        cells = [_cell(row["figures"][name]) for name in FIGURES]
        gate = "passes" if row["gate"] is None else "fails"
        lines.append(f"| {row['train']} | {row['steps']:,} | {' | '.join(cells)} | {gate} |")
    return "\n".join(lines)


FIGURES = (
    *("near-copies", "held-out images listed"),
    *("membership AUC", "membership TPR at 1% FPR"),
)


def _cell(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "–"
    interval = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['value']:.3f}{interval}"


def _pair(text: str) -> tuple[Path, str]:
    run, mark, data = text.partition("=")
    if not mark or not data:
        raise ConfigError(f"--run takes RUN=DATA (got {text})")
    return Path(run), data


def measured(flags: argparse.Namespace) -> dict[str, Any]:
    """All parts."""
    sets, runs, seconds = {}, [], 0.0
    for label in ("", *flags.films):
        train, heldout, extractor = flags.train, flags.heldout, flags.extractor
        name = "phantoms"
        if label:
            name, _, data = label.partition("=")
            train, heldout, extractor = f"{data}:train", f"{data}:test", "efficientnet_lite0"
        given = (train, heldout, extractor)
        sets[name] = _stage(flags.out / f"planted_{name}.json", functools.partial(_plant, *given))
        seconds += sets[name].pop("took")
    for number, text in enumerate(flags.run):
        run, data = _pair(text)
        out = flags.out / f"run_{number}"
        out.mkdir(exist_ok=True)
        given = (run, data, flags.heldout, flags.extractor, out)
        found = _stage(out / "stage.json", functools.partial(judged, *given))
        seconds += found["took"]
        steps = json.loads((out / "samples/samples.json").read_text())["plan"]["step"]
        rows = {row["name"]: row for row in found["figures"]}
        of = found["sets"]["train"]
        runs.append(
            {
                "train": f"{of['images']:,} of {of['name']}",
                "steps": steps,
                "figures": {name: rows[name] for name in FIGURES},
                "gate": found["gate"]["reason"],
            }
        )
    return {"planted": sets, "runs": runs, "seconds": round(seconds, 1)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="python -m benchmarks.privacy", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--train", required=True, type=data_folder, metavar="DATA:SPLIT", help="phantoms to copy")
    add(
        "--heldout",
        required=True,
        type=data_folder,
        metavar="DATA:SPLIT",
        help="phantoms of another seed",
    )
    add("--extractor", default="oracle", help="extractor of phantoms (default: %(default)s)")
    add(
        "--films",
        action="append",
        default=[],
        metavar="NAME=DATA",
        help="data set with train and test to plant in too; repeatable",
    )
    add("--run", action="append", default=[], metavar="RUN=DATA", help="run to judge; repeatable")
    add("--out", required=True, type=local_path, metavar="DIR", help="output folder")
    flags = parser.parse_args(argv)
    with exit_on_error("benchmarks.privacy"):
        distributed.start()
        flags.out.mkdir(parents=True, exist_ok=True)
        found = measured(flags)
        words = ["python", "-m", "benchmarks.privacy", "--train", "phantom:train"]
        words += ["--heldout", "fresh:train", "--extractor", flags.extractor]
        for name, values in (("--films", flags.films), ("--run", flags.run)):
            for text in values:
                first, _, second = text.partition("=")
                words += [name, f"{Path(first).name}={Path(second).name}"]
        found |= {
            "command": shlex.join([*words, "--out", "out"]),
            "written_by": version.versions(),
            "device": f"CPU ({platform.machine()})",
        }
        file = flags.out / "privacy.json"
        files.write_whole(file, json.dumps(found, indent=1) + "\n")
        print(table(found))
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
