"""Whether samples show what was requested, and what goes with what in them as in radiographs.

    rfxray evaluate control --synthetic out/samples --real data/mine:test \\
      --classifier oracle=runs/oracle.npz --out runs/control

A classifier that took no part in training reads the samples: oracle (of phantoms; without a file
that of the package), xrv=FILE (findings of radiographs), run=WORKDIR (of rfxray train --config
classifier), or python=FILE.py with SIZE and
predict(images), which returns probabilities by attribute. What was requested stands in samples.json
or in a data set; for a folder of another generator, --csv has a column image and attributes. With
--real every figure has its gap to radiographs, and the joint distribution of what is read is
compared: shares, every two values of two attributes, ages. Answers are cached in RFXRAY_CACHE by
content. Writes report.html, results.json, pairs.csv, images.csv and rejected.csv.
"""

import argparse
import contextlib
import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from rfxray.command_line import ArgumentParser, data_folder, exit_on_error, words_of
from rfxray.commands import set_flags
from rfxray.commands.set_flags import last
from rfxray.errors import ConfigError
from rfxray.evaluate import features, overlap, results, strata
from rfxray.evaluate.control import drawn, folder, judge
from rfxray.evaluate.control.classifiers import Classifier, open_classifier
from rfxray.evaluate.extractors import circularity
from rfxray.evaluate.folder import announce
from rfxray.evaluate.pictures import Pictures, open_pictures
from rfxray.evaluate.tables import tables_of
from rfxray.outputs import cache, folders
from rfxray.runtime import distributed, refusal

COMMAND = "rfxray.evaluate.control"


@dataclasses.dataclass(frozen=True)
class Command:
    """What the flags say; see `parser`."""

    synthetic: str
    real: str | None
    csv: tuple[str, ...]
    classifier: str
    skip_rejected: bool
    out: Path

    def sets(self) -> dict[str, Pictures]:
        """The sets that are read, by label."""
        given = {"synthetic": self.synthetic} | ({"real": self.real} if self.real else {})
        tables = tables_of(self.csv, given.values(), "--synthetic or --real")
        return {
            label: drawn.noted(path, open_pictures(path, tables.get(path), self.skip_rejected))
            for label, path in given.items()
        }


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray evaluate control",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--synthetic", required=True, type=data_folder, metavar="DIR", help="synthetic images"
    )
    p.add_argument(
        "--real",
        type=data_folder,
        metavar="DATA[:SPLIT]",
        help="radiographs that the model was not trained on (default: none, so no gaps and no "
        "joint distribution)",
    )
    p.add_argument(
        "--classifier",
        required=True,
        metavar="NAME[=FILE]",
        help="what reads the images: oracle, xrv=FILE, run=WORKDIR or python=FILE.py",
    )
    set_flags.add_csv(p)
    set_flags.add_rest(p)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND), refusal.travels(COMMAND):
        flags = parser().parse_args(argv)
        command = Command(**{**vars(flags), "csv": tuple(flags.csv)})
        distributed.start(refusal.listen)
        refusal.hear_stops()
        run(command, shlex.join(["rfxray", "evaluate", "control", *shown(flags)]))


def run(command: Command, line: str) -> None:
    """Reads both sets, compares, writes.

    Args:
      command: What the flags say.
      line: Command line that the results name.

    Raises:
      ConfigError, DataError: See `open_pictures`, `open_classifier` and `judge.judge`.
    """
    first = distributed.place()[0] == 0
    with folders.held(command.out, folder.FILES) if first else contextlib.nullcontext():
        _run(command, line, first)
    distributed.barrier("the end of the control", 86400.0)


def _run(command: Command, line: str, first: bool) -> None:
    classifier, sets = open_classifier(command.classifier), command.sets()
    for label, pictures in sets.items():
        refuse_not_phantoms(classifier, label, pictures)
        if first:
            announce(label, pictures, _say)
    began = time.monotonic()
    answers = {
        label: features.extracted(pictures, classifier.extractor, cache.folder("features"))
        for label, pictures in sets.items()
    }
    seconds = {"answers": time.monotonic() - began}
    if "real" in sets:
        pixels = [answers[label].pictures["pixels"] for label in ("real", "synthetic")]
        overlap.refuse(sets["real"], pixels[0], sets["synthetic"], pixels[1])
    if not first:
        return
    began = time.monotonic()
    read = {label: classifier.reading(found.values) for label, found in answers.items()}
    control = judge.judge(sets["synthetic"], read["synthetic"], sets.get("real"), read.get("real"))
    seconds["figures"] = time.monotonic() - began
    circular = []
    for label, pictures in sets.items():
        sources = strata.sources(pictures.attributes)
        circular += circularity.reasons(classifier.extractor, f"the {label} set", sources)
    of = classifier.extractor
    found = {
        **results.made(folder.KIND, line, seconds),
        "sets": {
            "real": None,
            **{
                label: {**set_flags.described(each), "requested": folder.requested(each)}
                for label, each in sets.items()
            },
        },
        "classifier": {
            "name": of.name,
            "hash": of.hash,
            "resize_path": str(of.preprocessing),
            "reads": list(classifier.names),
            "trained_on": list(of.trained_on),
        },
        "circular": circular,
        "notes": [f"{label}: {note}" for label in sets for note in sets[label].notes],
    }
    page = folder.write(command.out, found, control, sets)
    for text in folder.said(control):
        _say(text)
    print(f"wrote {page}")


def refuse_not_phantoms(classifier: Classifier, label: str, pictures: Pictures) -> None:
    """An oracle answers anything to a radiograph, and each answer would look like a figure."""
    others = sorted(strata.sources(pictures.attributes) - {"phantom"})
    if classifier.extractor.name == "oracle answers" and others:
        raise ConfigError(
            f"the oracle reads phantoms only, and the {label} set {pictures.name} is of "
            f"{', '.join(others)}; give --classifier xrv=FILE or python=FILE.py"
        )


def shown(flags: argparse.Namespace) -> list[str]:
    """The words of a command line, with the last part of each path only: results are shared."""
    name, mark, path = flags.classifier.partition("=")
    named = argparse.Namespace(
        **{
            **vars(flags),
            "synthetic": last(flags.synthetic),
            "real": last(flags.real) if flags.real else None,
            "out": last(flags.out),
            "classifier": f"{name}{mark}{last(path)}",
            "csv": set_flags.named(flags.csv),
        }
    )
    return words_of(parser(), named)


def _say(line: str) -> None:
    print(f"{COMMAND}: {line}", flush=True)


if __name__ == "__main__":
    main()
