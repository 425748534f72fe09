"""Whether a classifier leans on an attribute: twins of radiographs, and two placebos.

    rfxray causes stress --classifier xrv=FILE --data data/mine:test --checkpoint runs/x/train \\
      --do sex --out runs/stress
    rfxray causes stress --classifier python=mine.py --pairs runs/stress/pairs --out runs/mine

A twin is the same radiograph with one attribute changed: --do sex changes it in everybody, --do
sex=M makes men of women. A classifier that reads more of a finding in one twin than in the other
leans on that attribute. In every report are two placebos: a round trip that changes nothing, and an
edit of an unrelated attribute, enlarged in each radiograph to the same mean absolute change of the
pixels.
By default no finding follows the change; with --propagate those that the causal model lets follow
do, and pairs in which a finding follows are left out of that finding's figures.

The twins stay in --out/pairs, and --pairs reads them again for another classifier, or twins of your
own: before/NAME.png, after/NAME.png, perhaps placebo/ and nothing/, and pairs.csv with image, from
and to (sex=F, sex=M), and perhaps patient and attributes.

A classifier is oracle (of phantoms), xrv=FILE, or python=FILE.py with SIZE and predict(images).
Writes report.html, results.json and scores.csv. If it is killed, run the same command again.
"""

import argparse
import dataclasses
import json
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import FINDING_NAMES, lookup
from rfxray.causes import effects, leaning, leaning_page, pairs, twinned
from rfxray.causes import folder as models
from rfxray.causes.twinned import Wanted
from rfxray.command_line import (
    ArgumentParser,
    Progress,
    data_folder,
    exit_on_error,
    local_path,
    refuse_unread,
    settings_given,
    words_of,
)
from rfxray.commands.evaluate_control import refuse_not_phantoms
from rfxray.data.pixels import to_float
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate import features, results, strata
from rfxray.evaluate.control.classifiers import Classifier, open_classifier
from rfxray.evaluate.extractors import circularity
from rfxray.evaluate.pictures import Pictures, open_pictures
from rfxray.evaluate.tables import tables_of
from rfxray.outputs import cache, files, folders
from rfxray.runtime import distributed
from rfxray.sampling import distance, edit_folder, model_flags, samples
from rfxray.sampling.batching import blocks
from rfxray.sampling.editing import EditSettings
from rfxray.sampling.pretrained import Model, load

COMMAND = "rfxray.causes.stress"
REPORT, RESULTS, SCORES, PAIRS = "report.html", "results.json", "scores.csv", "pairs"
MAKING = ("data", "do", "placebo", "n", "propagate", "ema", "step", "vae", "checkpoint")
EDITING = ("method", "guidance", "steps", "seed")
AT_ONCE = 16  # radiographs of which the flow loss is measured
N = 256  # pairs: a drift of .1 is then known to about .02


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray causes stress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, d = p.add_argument, EditSettings()
    model_flags.add_places(p)
    add(
        "--classifier",
        required=True,
        metavar="NAME[=FILE]",
        help="what is tested: oracle, xrv=FILE or python=FILE.py",
    )
    add("--data", type=data_folder, metavar="DATA[:SPLIT]", help="radiographs to make twins of")
    add(
        "--csv",
        action="append",
        default=[],
        metavar="FOLDER=FILE",
        help="table of a folder of files: columns image, patient and attributes",
    )
    add(
        "--do",
        metavar="NAME[=VALUE]",
        help="attribute that changes: to VALUE, or to the other one of two values",
    )
    add(
        "--pairs",
        type=local_path,
        metavar="DIR",
        help="twins that are there already (default: make them from --data)",
    )
    add(
        "--placebo",
        metavar="NAME",
        help="unrelated attribute, changed to its next value (default: race; fracture for --do "
        "race)",
    )
    add("--n", type=int, help=f"pairs at most (default: {N})")
    add(
        "--propagate",
        type=local_path,
        metavar="MODEL",
        help="folder of rfxray causes fit: findings follow the change (default: none does)",
    )
    add(
        "--margin",
        type=float,
        default=leaning.MARGIN,
        help="drift of the probability that is of no consequence (default: %(default)s)",
    )
    add(
        "--threshold",
        type=float,
        default=leaning.THRESHOLD,
        help="probability from which on a finding counts as read (default: %(default)s)",
    )
    how = p.add_argument_group("how twins are made (docs/sampling.md)")
    how.add_argument("--method", help=f"invert or flow, see rfxray edit (default: {d.method})")
    how.add_argument(
        "--guidance", type=float, help=f"weight of the change (default: {d.guidance:g})"
    )
    how.add_argument("--steps", type=int, help=f"solver steps (default: {d.steps})")
    how.add_argument("--seed", type=int, help=f"seed of added noise (default: {d.seed})")
    model_flags.add_weights(how)
    model_flags.add_vae(how)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        flags = parser().parse_args(argv)
        distributed.start_one(COMMAND)
        run(flags)


def run(flags: argparse.Namespace) -> None:
    """Makes or opens the twins, reads them, judges, writes.

    Raises:
      ConfigError, DataError: For flags, pictures or a classifier that cannot be used.
    """
    if not 0 < flags.margin < 1 or not 0 < flags.threshold < 1:
        raise ConfigError("--margin and --threshold must be between 0 and 1")
    if flags.pairs:
        refuse_unread(flags, (*MAKING, *EDITING), "--pairs")
        if flags.csv:
            raise ConfigError("--pairs does not read --csv; its table is pairs.csv")
    elif not flags.data or not flags.do:
        raise ConfigError("give --data and --do to make twins, or --pairs with twins")
    classifier = open_classifier(flags.classifier)
    with folders.held(flags.out, (REPORT, RESULTS, SCORES, PAIRS)):
        made: dict[str, Any] = {"twins": None, "placebo": None, "notes": []}
        if not flags.pairs:
            made = make(flags, classifier)
        judge(flags, classifier, flags.pairs or flags.out / PAIRS, made)


def make(flags: argparse.Namespace, classifier: Classifier) -> dict[str, Any]:
    """Makes the twins in --out/pairs; what the results say of them."""
    name, equals, value = flags.do.partition("=")
    name = lookup(name).name
    encoded = None
    if equals:
        encoded, known = vocabulary.encode_value(name, value)
        if not known:
            raise ConfigError(f"--do {flags.do} must be an actual value")
    placebo = lookup(flags.placebo or ("fracture" if name == "race" else "race")).name
    wanted = Wanted(name, encoded, placebo, N if flags.n is None else flags.n)
    settings = EditSettings(**settings_given(flags, EditSettings))
    if settings.method == "noise":
        raise ConfigError("--method noise shows another patient; use invert or flow")
    table = tables_of(flags.csv, [flags.data], "--data")
    pictures = open_pictures(flags.data, table.get(flags.data))
    refuse_not_phantoms(classifier, "data", pictures)
    rows = _rows(pictures, wanted)
    causes, record = models.load(flags.propagate) if flags.propagate else (None, {})
    if causes and encoded is not None:
        effects.refuse_unsupported(causes, {name: encoded})
    plan: dict[str, Any] = {
        "pictures": pictures.fingerprint,
        **dataclasses.asdict(wanted),
        "propagate": record.get("tensors_sha256"),
        **dataclasses.asdict(settings),
    }
    out, step = flags.out / PAIRS, flags.step
    if step is None and model_flags.is_run(flags.checkpoint):
        step = edit_folder.begun_step(out, plan)
    model = load(flags.checkpoint, flags.ema, step, allow_kinds=flags.allow_kind, vae=flags.vae)
    plan |= samples.by_content(model.source)
    _say(model_flags.described(model.source))
    left = len(pictures) - len(rows)
    _say(f"{len(rows):,} twins of {pictures.name}; {left:,} others are not changed")
    with files.saving(out):
        out.mkdir(exist_ok=True)
        edit_folder.claim(out, plan)
        with Progress(COMMAND, len(rows), unit="pair") as progress:
            twinned.make(model, pictures, rows, wanted, settings, causes, out, progress.advance)
    return {
        "twins": {
            "model": f"{Path(str(model.source['checkpoint'])).name} at step {model.source['step']}",
            "weights": model.source["weights"],
            "data": pictures.name,
            "method": settings.method,
            "guidance": settings.guidance,
            "steps": settings.steps,
            "seed": settings.seed,
            "propagated": bool(flags.propagate),
        },
        "placebo": placebo,
        "notes": [
            *pictures.notes,
            *_unlike(model, out / "before"),
            f"{left:,} of {len(pictures):,} pictures are not changed: beyond the number of pairs, "
            f"{name} unknown, or without another value",
        ],
    }


def _unlike(model: Model, before: Path) -> list[str]:
    """What a reader has to know if radiographs are unlike the training data of the model."""
    if model.flow_loss_limit is None:
        line = (
            "the run logged no flow loss of held-out images, so it is not known whether the "
            "radiographs are like its training data"
        )
        _say(line)
        return [line]
    paths, far = sorted(before.glob("*.png")), 0
    for rows, real in blocks(len(paths), AT_ONCE):
        images = to_float(np.stack([files.read_png(paths[row]) for row in rows]))
        far += int((model.flow_losses(images)[:real] > model.flow_loss_limit).sum())
    if not far:
        return []
    line = (
        f"{far:,} of {len(paths):,} radiographs are far from the training data of the model (flow "
        f"loss above {model.flow_loss_limit:.3f}; of held-out images {distance.SHARE:.1%} are "
        "below): their twins may show what the model knows in their place"
    )
    _say(f"warning: {line}")
    return [line]


def _rows(pictures: Pictures, wanted: Wanted) -> np.ndarray:
    if pictures.attributes is None:
        raise DataError(
            f"nothing is known of {pictures.name}; give a data set, or --csv FOLDER=FILE with the "
            "columns image, patient and attributes"
        )
    rows = wanted.rows(pictures.attributes)
    if not len(rows):
        raise DataError(f"no picture of {pictures.name} can be changed in {wanted.name}")
    return rows


def judge(
    flags: argparse.Namespace, classifier: Classifier, place: Path, made: dict[str, Any]
) -> None:
    """Reads the twins and writes the report."""
    opened = pairs.read(place)
    refuse_not_phantoms(classifier, "pairs", opened.sets["before"])
    unread = {opened.name, made["placebo"]}
    names = [n for n in classifier.names if n in FINDING_NAMES and n not in unread]
    if not names:
        raise ConfigError("the classifier reads no finding besides what is changed; give another")
    began = time.monotonic()
    read = {}
    for label, of in opened.sets.items():
        answers = features.extracted(of, classifier.extractor, cache.folder("features"))
        read[label] = classifier.reading(answers.values).answers
    seconds = {"answers": time.monotonic() - began}
    sizes, unequal = opened.sizes(), 0
    if "placebo" in sizes:
        off = np.abs(sizes["placebo"] - sizes["after"]) > pairs.EQUAL * sizes["after"]
        unequal = int(off.sum())
        for name in names:
            read["placebo"][name] = np.where(off[:, None], np.nan, read["placebo"][name])
    present = {label: {name: of[name][:, 1] for name in names} for label, of in read.items()}
    twins = {
        name: leaning.Twins(
            present["before"][name],
            present["after"][name],
            *(present[label][name] if label in present else None for label in pairs.FOLDERS[2:]),
        )
        for name in names
    }
    findings = leaning.judge(twins, opened.pairs, opened.followed, flags.margin, flags.threshold)
    before, sign = opened.sets["before"], opened.pairs.sign
    counts = {name: len(os.listdir(place / name)) - len(of) for name, of in opened.sets.items()}
    unlisted = [
        f"left out of {name}, since {pairs.TABLE} has no row: {count:,} files"
        for name, count in counts.items()
        if count
    ]
    for note in unlisted:
        _say(note)
    of = classifier.extractor
    found = {
        **results.made(COMMAND, _line(flags), seconds),
        "verdict": leaning.overall(findings),
        "changed": opened.name,
        **made,
        "notes": [*made["notes"], *unlisted],
        "pairs": len(sign),
        "patients": len(np.unique(opened.pairs.patients)),
        "directions": {
            words: int((sign == side).sum()) for side, words in opened.pairs.directions.items()
        },
        "sizes": {name: float(each.mean()) for name, each in sizes.items()},
        "unequal": unequal,
        "margin": flags.margin,
        "threshold": flags.threshold,
        "level": leaning.LEVEL,
        "classifier": {
            "name": of.name,
            "hash": of.hash,
            "resize_path": str(of.preprocessing),
            "reads": list(classifier.names),
        },
        "circular": circularity.reasons(of, "the set", strata.sources(before.attributes)),
    }
    report = leaning_page.render(found, findings, twins, opened, flags.threshold)
    found["findings"] = leaning_page.rows(findings)
    with files.saving(flags.out):
        contents = {
            SCORES: leaning_page.scores(twins, opened.pairs),
            REPORT: report,
            RESULTS: json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n",
        }
        files.write_together(flags.out, contents)
    for each in findings:
        other = each.placebo.value
        placebo = "none" if other is None else f"{other:.3f}"
        _say(f"{each.name}: {each.verdict}; {each.drift}; placebo {placebo}")
    _say(f"{opened.name}: {found['verdict']}")
    print(f"wrote {flags.out / REPORT}")


def _line(flags: argparse.Namespace) -> str:
    """The command line, with the last part of each path only: results are shared."""
    name, mark, path = flags.classifier.partition("=")
    shown = {**vars(flags), "classifier": f"{name}{mark}{Path(path).name if path else ''}"}
    for key in ("data", "pairs", "out", "checkpoint", "propagate", "vae"):
        shown[key] = Path(shown[key]).name if shown[key] else None
    shown["csv"] = ["=".join(Path(part).name for part in each.split("=", 1)) for each in flags.csv]
    words = words_of(parser(), argparse.Namespace(**shown))
    return shlex.join(["rfxray", "causes", "stress", *words])


def _say(line: str) -> None:
    print(f"{COMMAND}: {line}", flush=True)


if __name__ == "__main__":
    main()
