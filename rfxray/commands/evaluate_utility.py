"""What samples are worth to a classifier that is trained on them, and to whom.

    rfxray evaluate utility --real data/mine:train --test data/mine:test \\
      --synthetic out/samples --fractions 0.05,1 --seeds 5 --out runs/utility

Trains classifiers of findings from scratch, with `rfxray train` in this process: on the reals, on
the samples, on both, on the samples and then the reals, and on the reals for as many steps, at each
share of the reals and for each seed. Reports AUROC by finding, what the samples add to it, missed
and underdiagnosed films, and the gaps of sex, age, view, race and source before and after. With
--more, further real images take the place of the samples: what they add is the bound. The samples
must state their attributes (samples.json, a data set, or --csv). Every classifier has a folder in
--out; the same command continues after a kill, and with more --seeds or --fractions it trains only
those. Writes report.html, results.json and figures.csv.
"""

import argparse
import dataclasses
import hashlib
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np

from rfxray.attributes.vocabulary import Attributes
from rfxray.command_line import ArgumentParser, Progress, data_folder, exit_on_error, words_of
from rfxray.commands import set_flags
from rfxray.commands.utility_runs import (
    COMMAND,
    FINDINGS,
    FOLDERS,
    PLAN,
    Trainings,
    part,
    preprocessing,
)
from rfxray.config.load import load_config, overrides
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate import feature_pair, intervals, overlap, results
from rfxray.evaluate.folder import announce
from rfxray.evaluate.pictures import Pictures, open_pictures
from rfxray.evaluate.tables import tables_of
from rfxray.evaluate.utility import figures, folder
from rfxray.networks import kinds as networks
from rfxray.outputs import files, folders
from rfxray.runtime import distributed, refusal
from rfxray.training import recipe as recipes

KIND = ("classifier", "classification")  # of the network and the objective of a config


@dataclasses.dataclass(frozen=True)
class Command:
    """What the flags say; see `parser`."""

    real: str
    test: str
    synthetic: str
    more: str | None
    fractions: tuple[float, ...]
    seeds: int
    config: str
    overrides: tuple[str, ...]
    csv: tuple[str, ...]
    skip_rejected: bool
    out: Path

    def sets(self) -> dict[str, Pictures]:
        """The sets that are read, by label."""
        named = {"test": self.test, "real": self.real, "synthetic": self.synthetic}
        named |= {"more": self.more} if self.more else {}
        tables = tables_of(self.csv, named.values(), "--real, --test, --synthetic or --more")
        return {
            label: open_pictures(path, tables.get(path), self.skip_rejected)
            for label, path in named.items()
        }


def shares(text: str) -> tuple[float, ...]:
    """Numbers above 0 and at most 1, with commas between them.

    Raises:
      ArgumentTypeError: If they are not, or one is there twice.
    """
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if not found or len(set(found)) < len(found) or not all(0 < each <= 1 for each in found):
        raise argparse.ArgumentTypeError(f"{text!r} must be shares above 0 up to 1, as 0.05,1")
    return tuple(sorted(found))


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray evaluate utility",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    data, split = data_folder, "DATA[:SPLIT]"
    add("--real", required=True, type=data, metavar=split, help="radiographs to train on")
    add("--test", required=True, type=data, metavar=split, help="radiographs of other patients")
    add("--synthetic", required=True, type=data, metavar="DIR", help="samples to train on")
    add(
        "--more",
        type=data,
        metavar=split,
        help="further radiographs, in the place of the samples: the bound; only as many as there "
        "are samples are read (default: none)",
    )
    add(
        "--fractions",
        type=shares,
        default=(0.05, 1.0),
        metavar="SHARE,…",
        help="shares of the patients of --real that are trained on (default: 0.05,1)",
    )
    add("--seeds", type=int, default=5, help="classifiers of each training (default: %(default)s)")
    add(
        "--config",
        default="classifier",
        metavar="FILE",
        help="config of the classifier, as of rfxray train; --config.KEY=VALUE sets a key of it "
        "(default: %(default)s)",
    )
    set_flags.add_csv(p)
    set_flags.add_rest(p)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND), refusal.travels(COMMAND):
        flags, rest = parser().parse_known_args(argv)
        given = {**vars(flags), "csv": tuple(flags.csv), "overrides": tuple(overrides(rest))}
        command = Command(**given)
        distributed.start(refusal.listen)
        run(command, shlex.join(["rfxray", "evaluate", "utility", *shown(flags, rest)]))


def run(command: Command, line: str) -> None:
    """Trains what is missing, reads the test set, compares, writes.

    Args:
      command: What the flags say.
      line: Command line that the results name.

    Raises:
      ConfigError, DataError: See `open_pictures`, `Trainings.answers` and `figures.judged`.
    """
    if command.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1 (got {command.seeds})")
    if distributed.place()[1] > 1:
        raise ConfigError("rfxray evaluate utility works in one process; start it on one host")
    config = load_config(command.config, command.overrides)
    if (got := (config.model.kind, config.objective.kind)) != KIND:
        raise ConfigError(
            f"--config {command.config} trains {got[0]} by {got[1]}; give one that starts from "
            "defaults(model='classifier', objective='classification')"
        )
    recipes.build(config)  # refuses keys that do not go together, before anything is read
    with folders.held(command.out, (*folder.FILES, PLAN, *FOLDERS)):
        _run(command, config, line)


def _run(command: Command, config: ml_collections.FrozenConfigDict, line: str) -> None:
    sets = command.sets()
    for label, pictures in sets.items():
        announce(label, pictures, _say)
        if (
            pictures.attributes is None
            or not np.asarray(pictures.attributes.known)[:, FINDINGS].any()
        ):
            raise DataError(
                f"no finding is known of the images of {pictures.name}; give a data set, or --csv "
                "FOLDER=FILE with the columns image, patient and findings"
            )
    sets |= _as_many(sets)
    films = _films(sets["test"])
    _, left_out = figures.judged(films)
    for name, why in left_out.items():
        _say(f"{name} is not judged: {why}")
    _refuse_small(sets["real"], command)
    _refuse_common(sets, command.out, config.model.size)
    began = time.monotonic()
    trainings = Trainings(command.out, config, sets, command.fractions, command.seeds)
    read = trainings.answers()
    seconds = {"classifiers": time.monotonic() - began}
    began = time.monotonic()
    rows = figures.rows(read, films)
    seconds["figures"] = time.monotonic() - began
    found = {
        **results.made(folder.KIND, line, seconds),
        "sets": {
            "more": None,
            **{label: set_flags.described(each) for label, each in sets.items()},
        },
        "classifier": {
            "parameters": networks.build(config.model).parameters,
            "size": config.model.size,
            "steps": config.steps,
            "batch_size": config.batch_size,
        },
        "seeds": command.seeds,
        "fractions": list(command.fractions),
        "left_out": left_out,
        "groups": {
            name: int(mask.sum()) for name, (mask, _) in figures.groups(films.attributes).items()
        },
        "notes": [f"{label}: {note}" for label in sets for note in sets[label].notes],
    }
    page = folder.write(command.out, found, rows)
    for text in folder.said(rows):
        _say(text)
    print(f"wrote {page}")


def _films(pictures: Pictures) -> figures.Films:
    assert pictures.attributes is not None
    names = overlap.patients(pictures, "test")
    return figures.Films(
        pictures.attributes, feature_pair.number(("test", len(names), names))[0][0]
    )


def _as_many(sets: dict[str, Pictures]) -> dict[str, Pictures]:
    """The further real images, as many as there are samples: the first ones of the set."""
    if "more" not in sets:
        return {}
    more, count = sets["more"], len(sets["synthetic"])
    if len(more) < count:
        raise DataError(
            f"--more {more.name} has {len(more):,} images and --synthetic {count:,}; give at least "
            "as many"
        )
    assert more.attributes is not None
    kept = Attributes(more.attributes.values[:count], more.attributes.known[:count])
    digest = hashlib.sha256(f"{more.fingerprint} {count}".encode()).hexdigest()
    return {
        "more": dataclasses.replace(
            more,
            keys=more.keys[:count],
            patients=more.patients[:count],
            attributes=kept,
            boxes=None,
            fingerprint=digest,
        )
    }


def _refuse_small(real: Pictures, command: Command) -> None:
    """Raises a DataError, before anything is trained, if a share is too small to train on."""
    for share in command.fractions:
        least = min(len(part(real, share, seed)) for seed in range(command.seeds))
        if least < intervals.LEAST:
            raise DataError(
                f"a share of {share:g} of {real.name} is {least} images; give at least "
                f"{intervals.LEAST / len(real):.2g}"
            )


def _refuse_common(sets: dict[str, Pictures], out: Path, size: int) -> None:
    """Raises a DataError if the test set shares a patient, or an image, with what is trained on."""
    test = sets["test"]
    pixels = {label: _pixels(label, each, out, size) for label, each in sets.items()}
    for label, other in sets.items():
        if label == "test":
            continue
        set_flags.refuse_common_patients(other, test, "--test")
        overlap.refuse(other, pixels[label], test, pixels["test"])


def _pixels(label: str, pictures: Pictures, out: Path, size: int) -> np.ndarray:
    """SHA-256 of each image as a classifier sees it, [n] of 32 bytes; kept in the folder."""
    file = out / "data" / f"pixels-{label}-{pictures.fingerprint[:16]}-{size}.npy"
    if file.exists():
        return np.load(file)
    prepare, found = preprocessing(size).prepare, []
    with Progress(f"{COMMAND}: {label}", len(pictures)) as progress:
        for number in range(len(pictures)):
            image = np.round(prepare(pictures.read(number)) * 65535).astype(np.uint16)
            found.append(hashlib.sha256(image.tobytes()).digest())
            progress.advance()
    digests = np.array(found, "S32")
    with files.saving(file):
        file.parent.mkdir(exist_ok=True)
        with files.whole_file(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, digests)
    return digests


def shown(flags: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """The words of a command line, with the last part of each path only: results are shared."""
    paths = {name: getattr(flags, name) for name in ("real", "test", "synthetic", "more", "out")}
    named = argparse.Namespace(
        **{
            **vars(flags),
            **{name: set_flags.last(path) if path else None for name, path in paths.items()},
            "csv": set_flags.named(flags.csv),
            "config": set_flags.last(flags.config),
            "fractions": ",".join(f"{each:g}" for each in flags.fractions),
        }
    )
    return [*words_of(parser(), named), *set_flags.named(rest)]


def _say(line: str) -> None:
    print(f"{COMMAND}: {line}", flush=True)


if __name__ == "__main__":
    main()
