"""What samples of the smoke model are worth beside true phantoms, or of any model beside films.

    python -m benchmarks.utility --folder runs/smoke --out runs/utility
    python -m benchmarks.results --add utility=runs/utility/utility.json

`benchmarks.results` also takes `results.json` of `rfxray evaluate utility` on films.

FOLDER is that of launch/smoke.sh. Samples are drawn with requests that are completed from the rows
that the model was trained on; test set and bound are phantoms of other seeds, which the generator
draws. The classifiers are those of `rfxray evaluate utility`. Rerun the command to continue; some
ten minutes on two cores. Prints the table of docs/audit.md.
"""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.phantom import dataset
from rfxray import sample
from rfxray.command_line import ArgumentParser, exit_on_error, local_path, words_of
from rfxray.commands import evaluate_utility
from rfxray.evaluate import results
from rfxray.evaluate.utility import figures, folder
from rfxray.outputs import files

FINDING = "pneumonia"  # of which the tables have a column
TEST_SEED, MORE_SEED = 7001, 7002  # of phantoms that nothing was trained on


def phantoms(out: Path, seed: int, n: int) -> None:
    """Draws phantoms of 64² as one split, `train`."""
    dataset.write(dataset.Options(out, n, 64, seed, 0.0, 2))


def samples(run: Path, out: Path, n: int, steps: int) -> None:
    """Draws samples of the smoke model as a data set."""
    words = {
        "checkpoint": run / "train",
        "out": out,
        "n": n,
        "complete": f"table={run / 'phantom'}:train",
        "format": "array_record",
        "steps": steps,
        "seed": TEST_SEED,
        "batch-size": 256,
    }
    sample.main([word for name, value in words.items() for word in (f"--{name}", str(value))])


def compact(found: Mapping[str, Any]) -> dict[str, Any]:
    """The results of a measurement without figures by finding of every group."""
    of_all = [row for row in found["figures"] if not row["group"]]
    gaps = [row for row in found["figures"] if row["group"] and row["of"] != "value"]
    same = {key: value for key, value in found.items() if key not in ("figures", "kind")}
    return {**same, "trainings": [_short(row) for row in (*of_all, *gaps)]}


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    drop = ("name", "n_real", "n_synthetic")
    return {
        key: round(value, 5) if isinstance(value, float) else value
        for key, value in row.items()
        if key not in drop
    }


def table(found: Mapping[str, Any]) -> str:
    """Markdown: AUROC of every training, and gaps of the smallest group before and after."""
    rows = found["trainings"]
    head = ["trained on", "share of the reals", "mean AUROC", "gain", "share of the gain"]
    head += [f"of {FINDING}", "gain"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    trainings = dict.fromkeys((row["training"], row["fraction"]) for row in rows)
    for training, fraction in trainings:
        same = {
            "training": training,
            "fraction": fraction,
            "measure": figures.AUROC,
            "group": "",
        }
        cells = [
            _cell(folder.chosen(rows, **same, finding=finding, of=of))
            for finding, of in (
                *((figures.MEAN, of) for of in ("value", "gain", "share of the gain")),
                *((FINDING, of) for of in ("value", "gain")),
            )
        ]
        lines.append(f"| {training} | {fraction or '–'} | {' | '.join(cells)} |")
    # Race changes no pixel of a phantom, so no classifier can fail a race.
    shown = [name for name in found["groups"] if not name.startswith("race=")]
    group = min(shown, key=lambda name: found["groups"][name])
    lines += [
        "",
        f"The smallest group, {group} ({found['groups'][group]:,} of "
        f"{found['sets']['test']['images']:,} images), less all others:",
        "",
        f"| figure | share of the reals | {figures.AGAIN} | {figures.THEN} | change |",
        "|---" * 5 + "|",
    ]
    for measure in figures.MEASURES:
        for fraction in found["fractions"]:
            same = {"fraction": fraction, "measure": measure, "group": group}
            cells = [
                _cell(folder.chosen(rows, **same, training=training, of=of))
                for training, of in (
                    (figures.AGAIN, "gap"),
                    (figures.THEN, "gap"),
                    (figures.THEN, "gap change"),
                )
            ]
            lines.append(f"| {measure} | {fraction:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "–"
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def parser() -> ArgumentParser:
    p = ArgumentParser(prog="python -m benchmarks.utility", description=__doc__)
    p.formatter_class = argparse.RawDescriptionHelpFormatter
    add = p.add_argument
    add("--folder", required=True, type=local_path, metavar="DIR", help="folder of a smoke run")
    add("--n", type=int, default=2048, help="samples, and further phantoms (default: %(default)s)")
    add("--test", type=int, default=2048, help="test images (default: %(default)s)")
    add("--steps", type=int, default=16, help="steps of the sampler (default: %(default)s)")
    add("--seeds", default="3", help="classifiers of each training (default: %(default)s)")
    add("--fractions", default="0.05", help="shares of the reals (default: %(default)s)")
    add("--out", required=True, type=local_path, metavar="DIR", help="output folder")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error("benchmarks.utility"):
        flags.out.mkdir(parents=True, exist_ok=True)
        phantoms(flags.out / "test", TEST_SEED, flags.test)
        phantoms(flags.out / "more", MORE_SEED, flags.n)
        samples(flags.folder, flags.out / "samples", flags.n, flags.steps)
        words = {
            "real": f"{flags.folder / 'phantom'}:train",
            "test": flags.out / "test",
            "synthetic": flags.out / "samples",
            "more": flags.out / "more",
            "seeds": flags.seeds,
            "fractions": flags.fractions,
            "out": flags.out / "utility",
        }
        given = [word for name, value in words.items() for word in (f"--{name}", str(value))]
        evaluate_utility.main(given)
        found = compact(json.loads((flags.out / "utility" / results.NAME).read_text()))
        named = argparse.Namespace(**{**vars(flags), "folder": flags.folder.name})
        words = words_of(parser(), named, hidden=("out",))
        found["command"] = shlex.join(["python", "-m", "benchmarks.utility", *words])
        file = flags.out / "utility.json"
        files.write_whole(file, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        print(table(found))
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
