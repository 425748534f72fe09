"""Whether samples give patients of the training set away, and a gate before a release.

    rfxray evaluate privacy --synthetic out/samples --train data/mine:train \\
      --heldout data/mine:test --extractor efficientnet_lite0 --checkpoint runs/b --gate \\
      --out runs/privacy

Every sample is looked up among the training images, by features and by correlation of edges after
registration, and is listed if it is nearer to one than new patients' images are. With --checkpoint,
membership inference by the flow loss too. --gate compares with limits (without FILE those of the
package) and ends with exit code 1 if one is not kept. Writes report.html, results.json, samples.csv
(each sample by its key), copies.png (listed samples beside training images: keep it as you keep
these), model_card.md and rejected.csv. No key of a patient is written unless --show-training.
"""

import argparse
import contextlib
import copy
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rfxray.command_line import (
    ArgumentParser,
    Progress,
    data_folder,
    exit_on_error,
    local_path,
    words_of,
)
from rfxray.commands import set_flags
from rfxray.commands.set_flags import last
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate import feature_pair, features, intervals, overlap, results, strata
from rfxray.evaluate.extractors import circularity
from rfxray.evaluate.extractors.extractor import Extractor
from rfxray.evaluate.extractors.kinds import open_extractor
from rfxray.evaluate.figure import Figure
from rfxray.evaluate.folder import announce
from rfxray.evaluate.pictures import Pictures, open_pictures
from rfxray.evaluate.privacy import advice, folder, gate, membership, near, reidentification
from rfxray.evaluate.privacy.template import open_template
from rfxray.evaluate.tables import tables_of
from rfxray.outputs import cache, folders
from rfxray.runtime import distributed, refusal

if TYPE_CHECKING:
    from rfxray.sampling.pretrained import Model

COMMAND = "rfxray.evaluate.privacy"
MEMBERS = 2048  # images of each side, at most
LEAST = 20  # images of a set


@dataclasses.dataclass(frozen=True)
class Command:
    """What the flags say; see `parser`."""

    synthetic: str
    train: str
    heldout: str
    extractor: tuple[str, ...]
    checkpoint: Path | None
    ema: float | None
    step: int | None
    gate: Path | None
    show_training: bool
    csv: tuple[str, ...]
    skip_rejected: bool
    seed: int
    out: Path

    def __post_init__(self):
        names = [spec.partition("=")[0] for spec in self.extractor]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"--extractor names one twice (got {','.join(names)}); give each once"
            )
        if self.seed < 0:
            raise ConfigError(f"--seed must be 0 or more (got {self.seed})")
        if self.checkpoint is None and (self.ema, self.step) != (None, None):
            raise ConfigError("--ema and --step say which weights of --checkpoint; give that too")

    def sets(self) -> dict[str, Pictures]:
        """The sets that are read, by label."""
        given = {"synthetic": self.synthetic, "train": self.train, "heldout": self.heldout}
        tables = tables_of(self.csv, given.values(), "--synthetic, --train or --heldout")
        return {
            label: open_pictures(path, tables.get(path), self.skip_rejected, repeats=True)
            for label, path in given.items()
        }


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray evaluate privacy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flag = p.add_argument
    flag("--synthetic", required=True, type=data_folder, metavar="DIR", help="synthetic images")
    flag(
        "--train",
        required=True,
        type=data_folder,
        metavar="DATA[:SPLIT]",
        help="all images that the model was trained on",
    )
    flag(
        "--heldout",
        required=True,
        type=data_folder,
        metavar="DATA[:SPLIT]",
        help="images of other patients that the model never saw",
    )
    flag(
        "--extractor",
        default="efficientnet_lite0",
        metavar="NAME[=WEIGHTS],…",
        help="networks that turn images into features (default: %(default)s)",
    )
    flag(
        "--checkpoint",
        type=local_path,
        metavar="RUN",
        help="run or export of the model, for membership inference (default: none)",
    )
    flag("--ema", type=float, help="EMA profile of --checkpoint (default: that of sampling)")
    flag("--step", type=int, help="step of --checkpoint (default: the newest)")
    flag(
        "--gate",
        nargs="?",
        const=gate.DEFAULT,
        type=local_path,
        metavar="FILE",
        help="limits to keep (without FILE: those of the package); exit code 1 if one is not",
    )
    flag(
        "--show-training",
        action="store_true",
        help="show training images and their keys on the page, in the table and in copies.png",
    )
    set_flags.add_csv(p)
    flag("--seed", type=int, default=0, help="seed of what is drawn (default: %(default)s)")
    set_flags.add_rest(p)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    failed = None
    with exit_on_error(COMMAND), refusal.travels(COMMAND):
        flags = parser().parse_args(argv)
        several = {"csv": tuple(flags.csv), "extractor": tuple(flags.extractor.split(","))}
        command = Command(**{**vars(flags), **several})
        distributed.start(refusal.listen)
        refusal.hear_stops()
        failed = run(command, shlex.join(["rfxray", "evaluate", "privacy", *shown(flags)]))
    if failed:
        print(f"{COMMAND}: gate failed: {failed}", file=sys.stderr, flush=True)
        sys.exit(1)


def run(command: Command, line: str) -> str | None:
    """Looks samples up, infers membership, compares with the limits, writes.

    Args:
      command: What the flags say.
      line: Command line that the results name.

    Returns:
      Why the gate fails; None if it passes, or there is none.

    Raises:
      ConfigError, DataError: If sets cannot be read or compared.
    """
    first = distributed.place()[0] == 0
    with folders.held(command.out, folder.FILES) if first else contextlib.nullcontext():
        failed = _run(command, line, first)
    distributed.barrier("the end of the evaluation of privacy", 86400.0)
    return failed


def _run(command: Command, line: str, first: bool) -> str | None:
    limits = gate.limits(command.gate) if command.gate else None
    extractors = [*map(open_extractor, command.extractor), open_template()]
    sets = command.sets()
    for label, pictures in sets.items():
        if first:
            announce(label, pictures, _say)
        if len(pictures) < LEAST:
            raise DataError(f"{pictures.name} has {len(pictures)} images; privacy needs {LEAST}")
    set_flags.refuse_common_patients(sets["train"], sets["heldout"], "--heldout")
    model = _model(command, sets) if command.checkpoint and first else None
    began = time.monotonic()
    seen: dict[str, dict[str, np.ndarray]] = {label: {} for label in sets}
    pixels: dict[str, np.ndarray] = {}
    for extractor in extractors:
        for label, pictures in sets.items():
            found = features.extracted(pictures, extractor, cache.folder("features"))
            seen[label][extractor.name] = found.values
            pixels[label] = found.pictures["pixels"]
    seconds = {"features": time.monotonic() - began}
    overlap.refuse(sets["train"], pixels["train"], sets["heldout"], pixels["heldout"])
    if not first:
        return None
    began = time.monotonic()
    codes = _patients(sets)
    found = near.find(
        *(seen["train"], codes["train"], seen["synthetic"]),
        *(seen["heldout"], codes["heldout"], command.seed, _say),
    )
    seconds["near-copies"] = time.monotonic() - began
    figures = _figures(command, sets, seen, codes, found, extractors[0])
    began = time.monotonic()
    measured: dict[str, float | None] = {
        "samples": float(len(sets["synthetic"])),
        "held_out": float(len(sets["heldout"])),
        "near_copies": figures[0].value,
        "membership_auc": None,
        "membership_tpr": None,
    }
    if model is not None:
        inferred = _membership(command, model, sets, codes)
        figures += [inferred.area, inferred.rate]
        measured |= {"membership_auc": inferred.area.value, "membership_tpr": inferred.rate.value}
        seconds["membership"] = time.monotonic() - began
    checks = gate.checks(limits, measured) if limits else []
    failed = gate.reason(checks)
    training = len(sets["train"])
    head = {
        **results.made(folder.KIND, line, seconds),
        "sets": {label: set_flags.described(pictures) for label, pictures in sets.items()},
        "extractors": {
            each.name: {
                "hash": each.hash,
                "resize_path": str(each.preprocessing),
            }
            for each in extractors
        },
        "circular": _circular(extractors, sets),
        "notes": [f"{label}: {note}" for label in sets for note in sets[label].notes],
        "detectors": list(found.p),
        "level": found.level,
        "null": {"held_out": len(found.heldout), "training": len(found.left_out)},
        "listed": int(found.listed.sum()),
        "figures": [dataclasses.asdict(figure) for figure in figures],
        "gate": {"checks": [dataclasses.asdict(c) for c in checks], "reason": failed}
        if limits
        else None,
        "advice": advice.steps(found, training, checks),
    }
    page = folder.write(command.out, head, found, sets, command.show_training)
    for figure in figures:
        _say(str(figure))
    for text in (str(check) for check in checks):
        _say(f"gate: {text}")
    for text in head["advice"]:
        _say(f"next: {text}")
    print(f"wrote {page}")
    return failed


def _patients(sets: dict[str, Pictures]) -> dict[str, np.ndarray]:
    """Patients of the reals in one numbering."""
    labels = ("train", "heldout")
    names = [(label, len(sets[label]), overlap.patients(sets[label], label)) for label in labels]
    return dict(zip(labels, feature_pair.number(*names)[0], strict=True))


def _figures(
    command: Command,
    sets: dict[str, Pictures],
    seen: dict[str, dict[str, np.ndarray]],
    codes: dict[str, np.ndarray],
    found: near.Found,
    extractor: Extractor,
) -> list[Figure]:
    n, m = len(sets["train"]), len(sets["synthetic"])
    of = len(sets["heldout"])
    figures = [
        intervals.proportion("near-copies", found.listed, np.arange(m), n, m),
        intervals.proportion(
            "held-out images listed", found.heldout_listed, codes["heldout"], n, of
        ),
    ]
    for name, p in found.p.items():
        share = found.level / len(found.p)
        figures.append(
            intervals.proportion(f"near-copies by {name}", p <= share, np.arange(m), n, m)
        )
    reals = np.concatenate([seen[label][extractor.name] for label in ("train", "heldout")])
    patients = np.concatenate([codes["train"], codes["heldout"]])
    figures.append(reidentification.judge(reals, patients, command.seed))
    return figures


def _model(command: Command, sets: dict[str, Pictures]) -> "Model":
    """The model of --checkpoint, which was trained on images as those of the sets are.

    Raises:
      ConfigError: If it was not.
    """
    from rfxray import sampling

    assert command.checkpoint is not None
    model = sampling.load(command.checkpoint, command.ema, command.step)
    for pictures in (sets["train"], sets["heldout"]):
        if pictures.attributes is None or not pictures.records:
            raise ConfigError(
                f"--checkpoint needs data sets, as the model was trained on; {pictures.name} is a "
                "folder of files"
            )
        if (shape := pictures.read(0).shape) != (model.size, model.size):
            raise ConfigError(
                f"{pictures.name} is of {shape[0]}², and --checkpoint of {model.size}²; give the "
                "data set that the model was trained on"
            )
    return model


def _membership(
    command: Command, model: "Model", sets: dict[str, Pictures], codes: dict[str, np.ndarray]
) -> membership.Membership:
    from rfxray.sampling.membership_losses import flow_losses

    generator = np.random.default_rng(command.seed)
    losses, patients = [], []
    for label in ("train", "heldout"):
        pictures = sets[label]
        assert pictures.attributes is not None
        chosen = np.sort(generator.permutation(len(pictures))[:MEMBERS])
        with Progress(COMMAND, len(chosen)) as progress:
            losses.append(
                flow_losses(
                    model,
                    (2 * pictures.read(int(number)) - 1 for number in chosen),
                    pictures.attributes.rows(chosen),
                    seed=command.seed,
                    done=progress.advance,
                )
            )
        patients.append(codes[label][chosen])
    return membership.judge(*losses, *patients)


def _circular(extractors: Sequence[Extractor], sets: dict[str, Pictures]) -> list[str]:
    return [
        reason
        for extractor in extractors
        for label, pictures in sets.items()
        for reason in circularity.reasons(
            extractor, f"the {label} set", strata.sources(pictures.attributes)
        )
    ]


def shown(flags: argparse.Namespace) -> list[str]:
    """The words of a command line, with the last part of each path only: results are shared."""
    named = copy.copy(flags)
    for name in ("synthetic", "train", "heldout", "out", "checkpoint"):
        given = getattr(flags, name)
        setattr(named, name, last(given) if given else given)
    if flags.gate:
        named.gate = flags.gate == gate.DEFAULT or last(flags.gate)
    named.csv = set_flags.named(flags.csv)
    specs = [spec.partition("=") for spec in flags.extractor.split(",")]
    named.extractor = ",".join(f"{name}{mark}{last(path)}" for name, mark, path in specs)
    return words_of(parser(), named)


def _say(line: str) -> None:
    print(f"{COMMAND}: {line}", flush=True)


if __name__ == "__main__":
    main()
