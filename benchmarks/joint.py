"""What goes with what in a population of samples: the model's own, or completed from the table.

    python -m benchmarks.joint --folder runs/smoke --out runs/joint

FOLDER is that of launch/smoke.sh. Every row of requests has a view, and the rest of it either left
to the model (`view`) or drawn from rows of the training split (`complete`, as `rfxray sample
--complete` does), under several weights of guidance; `complete:2:6` gives the findings that the
model does not reach a weight of their own, 6. The oracle reads the samples, and phantoms of the
completed requests. For every two values of two attributes that reach .8 of the ceiling at guidance
3, the table has the largest difference of the share of images that have both, how many differ by
more than .05, both again without the requests of which every pathology is one that the model does
not reach (it shows them as No Finding), the largest of P(present | present), and ages. Answers are
kept in OUT by blocks; rerun the command to continue. A minute for 1,000 samples on two cores.
Prints Markdown.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep import phantom
from rfxray import sampling
from rfxray.attributes.vocabulary import INDEX, PATHOLOGY_NAMES, Attributes
from rfxray.command_line import ArgumentParser, Progress, exit_on_error, local_path
from rfxray.data.dataset import open_dataset
from rfxray.data.pixels import to_float
from rfxray.evaluate import classifier
from rfxray.evaluate.control import joint
from rfxray.outputs import files
from rfxray.runtime import distributed
from rfxray.sampling import completion

SEED = 4243  # of phantoms and noise that nothing was trained on
BLOCK = 256
REACHED = (
    "view",
    "sex",
    "age",
    "enlarged_cardiomediastinum",
    "cardiomegaly",
    "edema",
    "consolidation",
    "pneumothorax",
    "pleural_effusion",
    "pleural_other",
    "support_devices",
    "no_finding",
)
WEAK = tuple(name for name in PATHOLOGY_NAMES if name not in REACHED)
CASES = ("phantoms", "view:1", "view:2", "view:3", "complete:1", "complete:2", "complete:3")


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all cases share.

    Attributes:
      folder: Folder of the smoke run.
      out: Folder of the answers.
      n: Number of images of each case.
      steps: Steps of the sampler.
    """

    folder: Path
    out: Path
    n: int
    steps: int

    def requests(self) -> tuple[Attributes, Attributes]:
        """Views only, and the same completed from the table, each [n, 19]."""
        views = phantom.draw_attributes(SEED, np.arange(self.n))
        known = np.zeros(views.shape, bool)
        known[:, INDEX["view"]] = True
        asked = Attributes(np.where(known, views, 0).astype(np.float32), known)
        table = completion.of_dataset(open_dataset(self.folder / "phantom"), "train", SEED)
        return asked, table.fill(asked, np.arange(self.n))

    def read(self, case: str) -> dict[str, np.ndarray]:
        """What the oracle reads from a case, `[n]` by attribute."""
        asked, completed = self.requests()
        name, weight, own = (*case.split(":"), "", "")[:3]
        oracle, model = classifier.load(self.folder / "oracle.npz"), None
        parts = []
        with Progress("benchmarks.joint", self.n) as progress:
            for start in range(0, self.n, BLOCK):
                numbers = np.arange(start, min(start + BLOCK, self.n))
                which = f"{name}{weight}{'w' + own if own else ''}"
                file = self.out / f"{which}-{self.steps}-{start:06d}.npz"
                if not file.exists():
                    if name == "phantoms":
                        images = to_float(
                            phantom.draw_images(
                                np.asarray(completed.values[numbers]), SEED, numbers, 64
                            )
                        )
                    else:
                        model = model or sampling.load(self.folder / "train")
                        rows = (asked if name == "view" else completed).rows(numbers)
                        settings = sampling.Settings(
                            seed=SEED,
                            steps=self.steps,
                            guidance=float(weight),
                            batch_size=BLOCK,
                            weights=((WEAK, float(own)),) if own else (),
                        )
                        images = sampling.generate(
                            model, rows, indices=numbers, settings=settings
                        ).images
                    with files.whole_file(file) as temporary, temporary.open("wb") as opened:
                        np.savez(opened, allow_pickle=False, **oracle.predict(images))
                with np.load(file) as found:
                    parts.append(dict(found))
                progress.advance(len(numbers))
        return {name: np.concatenate([part[name] for part in parts]) for name in REACHED}


def shown(completed: Attributes) -> np.ndarray:
    """Requests that are healthy, or have a pathology that the model reaches, `[n] bool`."""
    present = {name: np.asarray(completed.values)[:, INDEX[name]] > 0.5 for name in PATHOLOGY_NAMES}
    weak = np.any([present[name] for name in WEAK], 0)
    return ~weak | np.any([present[name] for name in PATHOLOGY_NAMES if name not in WEAK], 0)


def pairs_of(
    read: Mapping[str, np.ndarray], of: Mapping[str, np.ndarray]
) -> list[tuple[float, str]]:
    """The difference of the share of images that have two values, and the values."""
    owners, labels, there = joint.indicators(read)
    both = [columns.T @ columns / len(columns) for columns in (there, joint.indicators(of)[2])]
    return [
        (abs(float(both[0][i, j] - both[1][i, j])), f"{labels[i]} & {labels[j]}")
        for i in range(len(labels))
        for j in range(i)
        if owners[i] != owners[j]
    ]


def row(
    case: str, read: Mapping[str, np.ndarray], of: Mapping[str, np.ndarray], kept: np.ndarray
) -> str:
    """The figures of a case against phantoms, a line of Markdown; `kept` are those of `shown`."""
    pairs = pairs_of(read, of)
    some = pairs_of(*({name: values[kept] for name, values in each.items()} for each in (read, of)))
    groups = np.arange(len(kept))
    compared = joint.compare((read, groups), (of, groups), np.ones(len(groups)))
    present = [
        (abs(each.figure.value), f"{each.value.split('=')[0]} | {each.given.split('=')[0]}")
        for each in compared
        if each.figure.value is not None
        and each.value.endswith("present")
        and each.given.endswith("present")
    ]
    shares = {(each.value, each.given): each.samples for each in compared}
    wet = shares["pleural_effusion=present", "cardiomegaly=present"] or 0.0
    rest = max(pair for pair in pairs if "no_finding" not in pair[1])
    return (
        f"| {case} | {max(pairs)[0]:.3f} ({max(pairs)[1]}) | {rest[0]:.3f} "
        f"| {sum(size > joint.OFF for size, _ in pairs)} of {len(pairs)} "
        f"| {max(some)[0]:.3f}, {sum(size > joint.OFF for size, _ in some)} "
        f"| {max(present)[0]:.3f} ({max(present)[1]}) | {wet:.2f} "
        f"| {read['age'].mean():.1f} ± {read['age'].std():.1f} |"
    )


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.joint", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--folder", required=True, type=local_path, help="folder of a smoke run")
    parser.add_argument("--n", type=int, default=8192, help="samples (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=16, help="steps (default: %(default)s)")
    parser.add_argument(
        "--cases", default=",".join(CASES), help="NAME:GUIDANCE, by commas (default: %(default)s)"
    )
    parser.add_argument("--out", required=True, type=local_path, metavar="DIR", help="answers")
    flags = parser.parse_args()
    with exit_on_error("benchmarks.joint"):
        distributed.start()
        flags.out.mkdir(parents=True, exist_ok=True)
        bench = Bench(flags.folder, flags.out, flags.n, flags.steps)
        of, kept = bench.read("phantoms"), shown(bench.requests()[1])
        print(
            "| requests:guidance | largest difference of a pair | without No Finding | beyond .05 "
            "| without weak requests "
            "| largest of P(present given present) | P(effusion given cardiomegaly) | age, years |"
        )
        print("|---" * 8 + "|")
        for case in flags.cases.split(","):
            print(row(case, bench.read(case), of, kept), flush=True)


if __name__ == "__main__":
    main()
