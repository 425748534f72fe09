"""The classifiers that a measurement of utility trains, each in a folder of its own.

`OUT/data` holds the sets as the trainer reads them, at the size of the classifier and without keys
or patients; `OUT/runs` a run of `rfxray train` for each classifier; `OUT/answers` what each says of
the test set. What is whole is not made again. A classifier of samples and then reals resumes from
the checkpoint of samples, with the data changed and as many steps again, and so does one of reals
for twice the steps.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np

from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import FINDING_NAMES, INDEX, NAMES
from rfxray.checkpoints import weights
from rfxray.command_line import Progress
from rfxray.config.identity import identity_of
from rfxray.config.load import override
from rfxray.data import manifest
from rfxray.data.plan import make_plan
from rfxray.data.writing import write_dataset
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.extractors.extractor import Preprocessing
from rfxray.evaluate.pictures import Pictures
from rfxray.evaluate.utility import figures
from rfxray.networks import classifier
from rfxray.networks import kinds as networks
from rfxray.outputs import files
from rfxray.outputs.folders import whole_folder
from rfxray.sampling.pretrained import averaged
from rfxray.train import train

PLAN, FOLDERS = "plan.json", ("data", "runs", "answers")
COMMAND = "rfxray.evaluate.utility"
_SHARD = 4096  # images
_BATCH = 128  # test images that are read at once
FINDINGS = [INDEX[name] for name in FINDING_NAMES]  # columns of attributes


@dataclasses.dataclass(frozen=True)
class Trainings:
    """All that decides the classifiers.

    Attributes:
      out: Folder that holds everything.
      config: Config of a classifier.
      sets: Sets by label: `test`, `real`, `synthetic`, and `more` if it was given.
      fractions: Shares of the real images, above 0 and at most 1.
      seeds: Number of classifiers of each training.
    """

    out: Path
    config: ml_collections.FrozenConfigDict
    sets: Mapping[str, Pictures]
    fractions: Sequence[float]
    seeds: int

    def answers(self) -> dict[figures.Training, np.ndarray]:
        """Trains what is missing, and reads the test set.

        Returns:
          Log-odds of every finding, [seeds, n, 14] float32, by training.

        Raises:
          ConfigError: If the folder belongs to other sets or another classifier.
          DataError: If the folder is damaged.
        """
        self._claim()
        trainings = list(self._trainings())
        found: dict[figures.Training, list[np.ndarray]] = {}
        with Progress(COMMAND, len(trainings), unit="classifier", seconds=5.0) as progress:
            for training, name, parts, start in trainings:
                scores = self._answers(name, parts, start)
                if training is not None:
                    found.setdefault(training, []).append(scores)
                progress.advance()
        return {training: np.stack(scores) for training, scores in found.items()}

    def _trainings(
        self,
    ) -> Iterator[tuple[figures.Training | None, str, dict[str, float], str | None]]:
        """Of every classifier: training, name, shares of its sets, and the run it goes on from.

        Those of one seed are beside each other, because they share their compiled programs.
        """
        others = {"synthetic": (figures.SYNTHETIC, figures.THEN), "more": (None, figures.MORE)}
        for seed in range(self.seeds):
            for label, (first, _) in others.items():
                if label in self.sets:
                    yield (first, 0.0) if first else None, f"{label}-{seed}", {label: 1.0}, None
            for share in self.fractions:
                real = f"real-{share:g}-{seed}"
                yield (figures.REAL, share), real, {"real": share}, None
                again = f"real-again-{share:g}-{seed}"
                yield (figures.AGAIN, share), again, {"real": share}, real
                both = {"real": share, "synthetic": 1.0}
                yield (figures.BOTH, share), f"both-{share:g}-{seed}", both, None
                for label, (_, then) in others.items():
                    if label in self.sets:
                        name = f"{label}-then-{share:g}-{seed}"
                        yield (then, share), name, {"real": share}, f"{label}-{seed}"

    def _claim(self) -> None:
        """Raises a ConfigError if the folder holds classifiers of something else."""
        same = {
            "sets": {label: each.fingerprint for label, each in self.sets.items()},
            "config": identity_of(self.config, "") | {"steps": self.config.steps},
        }
        file = self.out / PLAN
        if not file.exists():
            with files.saving(file):
                files.write_whole(file, json.dumps(same, indent=1) + "\n")
        try:
            there = json.loads(file.read_text())
        except ValueError as error:
            raise DataError(f"{file} is damaged; choose another --out") from error
        if there != json.loads(json.dumps(same)):
            differ = [key for key in same if there.get(key) != json.loads(json.dumps(same))[key]]
            raise ConfigError(
                f"{self.out} holds classifiers of another {' and '.join(differ)}; choose another "
                "--out"
            )

    def _answers(self, name: str, parts: Mapping[str, float], start: str | None) -> np.ndarray:
        file = self.out / "answers" / f"{name}.npz"
        if file.exists():
            with np.load(file) as found:
                return found["scores"]
        seed = int(name.rpartition("-")[2])
        folders = [str(self._data(label, share, seed)) for label, share in parts.items()]
        config = override(
            self.config,
            {
                "seed": seed,
                "data.dirs": tuple(folders),
                "data.weights": (1.0,) * len(folders),
                "data.split": "train",
                "steps": self.config.steps * (2 if start else 1),
                **{f"evaluators.{each}.every": 0 for each in self.config.evaluators},
            },
        )
        folder = self.out / "runs" / name
        if start and not folder.exists():
            with whole_folder(folder) as inside:
                before = self.out / "runs" / start
                shutil.copytree(before / "checkpoints", inside / "checkpoints")
                shutil.copy(before / "run.json", inside / "run.json")
        allow = ("data.fingerprint", "steps") if start else ()
        with contextlib.redirect_stdout(io.StringIO()):
            train(config, folder, allow)
        scores = read(folder, config, self.sets["test"])
        with files.saving(file):
            file.parent.mkdir(exist_ok=True)
            with files.whole_file(file) as temporary, temporary.open("wb") as opened:
                np.savez(opened, allow_pickle=False, scores=scores)
        return scores

    def _data(self, label: str, share: float, seed: int) -> Path:
        """The data set of a share of the patients of a set, each seed with patients of its own."""
        pictures = self.sets[label]
        rows, name = np.arange(len(pictures)), label
        if share < 1:
            rows, name = part(pictures, share, seed), f"{label}-{share:g}-{seed}"
        folder = self.out / "data" / name
        write(pictures, rows, self.config.model.size, folder)
        return folder


def part(pictures: Pictures, share: float, seed: int) -> np.ndarray:
    """Rows of a share of the patients of a set, drawn by a seed; a larger share has the same ones.

    A picture of unknown patient is one of its own.
    """
    names = [name or f" {number}" for number, name in enumerate(pictures.patients)]
    drawn = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names]
    order = sorted(set(drawn))
    kept = set(order[: round(share * len(order))])
    return np.flatnonzero([each in kept for each in drawn])


def preprocessing(size: int) -> Preprocessing:
    """The way from an image to what is stored for a classifier."""
    return Preprocessing(size, "pad", "area", False, 1, (0.0,), (1.0,))


def write(pictures: Pictures, rows: np.ndarray, size: int, out: Path) -> None:
    """Writes some images of a set as a data set of the trainer, without keys or patients; one that
    is whole is not written again, because `plan.json` of the measurement names its set."""
    if (out / manifest.NAME).is_file():
        return
    plan = make_plan(
        {"train": rows.tolist()},
        name="utility",
        size=size,
        shard_examples=_SHARD,
        options={"of": pictures.fingerprint},
        preprocessing={"resize": str(preprocessing(size))},
    )
    make = functools.partial(_records, pictures=pictures, size=size)
    with contextlib.redirect_stdout(io.StringIO()):
        write_dataset(plan, make, out, command=COMMAND)


def _records(rows: Sequence[int], pictures: Pictures, size: int) -> Iterable[dict]:
    assert pictures.attributes is not None
    prepare = preprocessing(size).prepare
    for row in rows:
        values, known = (np.asarray(field)[row] for field in pictures.attributes)
        states = np.where(known, State.STATED, State.UNLABELLED).astype(np.int8)
        there = np.where(values[FINDINGS] > 0.5, State.POSITIVE, State.NEGATIVE)
        states[FINDINGS] = np.where(known[FINDINGS], there, State.UNLABELLED)
        yield {
            "image": np.round(prepare(pictures.read(row))[..., 0] * 65535).astype(np.uint16),
            "content_box": (0, 0, size, size),
            "original_size": (size, size),
            "original_bits": 16,
            "pixel_spacing": (0.0, 0.0),
            "laterality": "",
            "attributes": np.where(known, values, 0).astype(np.float32),
            "states": states,
            "key": f"utility/{row}",
            "patient": f"utility/{row}",
        }


def read(workdir: Path, config: ml_collections.FrozenConfigDict, pictures: Pictures) -> np.ndarray:
    """What the classifier of a finished run says of a set: log-odds of findings, [n, 14] float32.

    It has the weights of the first EMA profile.
    """
    network = networks.build(config.model)
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), averaged(config)
    )
    name = weights.ema_name(config.ema_sigmas[0])
    params = weights.restore_ema(workdir, shapes, name).params["model"]
    apply, prepare = _applied(network.apply), preprocessing(config.model.size).prepare
    found = []
    for start in range(0, len(pictures), _BATCH):
        numbers = range(start, min(start + _BATCH, len(pictures)))
        images = np.stack([prepare(pictures.read(number)) for number in numbers]) * 2 - 1
        padded = np.pad(images, ((0, _BATCH - len(images)), (0, 0), (0, 0), (0, 0)))
        parts = np.split(np.asarray(apply(params, padded)), classifier.ENDS[:-1], axis=1)
        by_name = dict(zip(NAMES, parts, strict=True))
        odds = [by_name[each][:, 1] - by_name[each][:, 0] for each in FINDING_NAMES]
        found.append(np.stack(odds, -1)[: len(images)])
    return np.concatenate(found)


@functools.lru_cache(maxsize=2)
def _applied(apply):
    return jax.jit(apply)
