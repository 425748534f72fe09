"""Fits the mechanisms of a causal graph to a table of attributes, and judges them.

    rfxray causes fit --data data/mine --out runs/causes
    rfxray causes fit --data mine.csv --graph mine.dot --out runs/causes

Every variable of the graph gets a mechanism: a threshold on noise if it has categories, a monotone
spline if it is continuous, both with bends of continuous causes and all interactions. Unknown
values are left out variable by variable. One patient in eight is held out, and the page shows how
well the mechanisms describe them, beside a logistic model; which independences of the graph the
table contradicts; and the average effects. The same table and graph give the same files. A fit
takes seconds to minutes. Every mechanism is kept in --out as it is fitted: if the command is
killed, run it again, and it goes on and writes the same files. Parts of another table, graph,
option or version are not used; a finished model of another one is not overwritten.
"""

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rfxray import version
from rfxray.causes import contrasts, fitting, folder, independence, judged, page, parts, tables
from rfxray.causes.graph import GRAPH, Graph, read_graph, written
from rfxray.causes.mechanisms import Mechanism
from rfxray.causes.parts import Part, Parts
from rfxray.causes.tables import Table
from rfxray.command_line import (
    ArgumentParser,
    Progress,
    data_folder,
    exit_on_error,
    local_path,
    require,
)
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import files, folders

COMMAND = "rfxray.causes.fit"


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray causes fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--data",
        required=True,
        type=data_folder,
        metavar="DATA[:SPLIT]",
        help="data set (its train split, if none is named), or a CSV file with a column for each "
        "variable, and patient if patients have several rows",
    )
    p.add_argument(
        "--graph",
        type=local_path,
        default=GRAPH,
        metavar="FILE",
        help="causal graph in JSON, DAGitty's text, DOT or GML (default: that of RadiT)",
    )
    p.add_argument(
        "--boosting",
        action="store_true",
        help="compare with gradient boosting too, which needs scikit-learn (default: not)",
    )
    p.add_argument("--out", required=True, type=local_path, metavar="DIR", help="output folder")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        run(flags.data, flags.graph, flags.out, flags.boosting)


def run(data: str, graph_file: Path, out: Path, boosting: bool) -> None:
    """Reads, fits, judges, writes.

    Raises:
      ConfigError: For a graph that cannot be, or a folder with other content.
      DataError: For a table that cannot be read, or shows nothing of a variable.
    """
    if boosting:
        require("peers", "sklearn")
    graph = read_graph(graph_file)
    with folders.held(out, (*folder.FILES, parts.FOLDER)):
        with Progress(COMMAND, tables.size(data), unit="row") as progress:
            table = tables.read(data, graph, progress.advance)
        kept = Parts(out, _inputs(table, graph, boosting))
        if not _is_finished(out, kept.inputs):
            for note in kept.notes:
                _say(note)
            if len(kept):
                _say(f"goes on: {len(kept)} parts of this fit are there")
            try:
                _fit(data, table, graph, out, boosting, kept)
            except DataError:  # of this table no model comes
                kept.remove()
                raise
        kept.remove()
    print(f"wrote {out / folder.PAGE}")


def _inputs(table: Table, graph: Graph, boosting: bool) -> str:
    """Digest of what a fit depends on, hex."""
    what = {
        "table": table.fingerprint(),
        "graph": written(graph, "json"),
        "boosting": boosting,
        "written_by": version.versions(),
    }
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _is_finished(out: Path, inputs: str) -> bool:
    """Whether the folder holds the model of these inputs, whole.

    Raises:
      ConfigError: If it holds that of others.
    """
    if not folder.is_model(out):
        return False
    try:
        _, record = folder.load(out)
    except DataError:
        _say(f"the model in {out} is damaged: it is fitted again")
        return False
    if record.get("inputs") != inputs:
        raise ConfigError(
            f"{out} is not empty: it holds the model of another table, graph, option or version of "
            "rfxray; choose another --out"
        )
    if not (out / folder.PAGE).is_file():
        return False
    _say(f"{out} holds the model of this table and graph already")
    return True


def _fit(data: str, table: Table, graph: Graph, out: Path, boosting: bool, kept: Parts) -> None:
    aside = table.held_out()
    train, held_out = table.rows(~aside), table.rows(aside)
    if not len(train) or not len(held_out):
        raise DataError(
            f"{data} has {len(table):,} rows of {table.patients.max() + 1:,} patients, too few to "
            "hold some out; give a table of more patients"
        )
    _say(f"{len(table):,} rows of {table.patients.max() + 1:,} patients, an eighth held out")

    def mechanism(form: str, name: str, make: Callable[[], Mechanism]) -> Mechanism:
        part = kept.kept(f"{form}-{name}", lambda: folder.part_of(make()))
        return folder.mechanism_of(graph, name, part)

    def boosted(name: str, make: Callable[[], float]) -> float:
        return kept.kept(f"boosting-{name}", lambda: Part(make(), {})).tree

    count = len(graph.parents)
    with Progress(COMMAND, 5 * count, unit="variable") as progress:
        advance = progress.advance
        model = fitting.fit(graph, train, "flow", fitting.REPLICATES, advance, mechanism)
        for note in model.notes:
            _say(note)
        logistic = fitting.fit(graph, train, "logistic", 0, advance, mechanism)
        found = judged.judge(model, logistic, train, held_out, boosting, advance, boosted)
        tests = independence.checked(model, train, advance)
        effects = contrasts.measured(model, advance)
    record = {"inputs": kept.inputs, **_record(table, found, tests, effects)}
    whole = folder.contents(model, record)
    page_of = {folder.PAGE: page.render(model, record).encode()}
    with files.saving(out):
        # The record comes last: with it the folder is a model.
        files.write_together(out, {**page_of, **whole})
    _tell(found, tests)


def _record(table: Table, found, tests, effects) -> dict[str, Any]:
    return {
        "written_by": version.versions(),
        "table": {
            "sha256": table.fingerprint(),
            "rows": len(table),
            "patients": int(table.patients.max()) + 1,
        },
        "held_out": {name: dataclasses.asdict(each) for name, each in found.items()},
        "tests": [dataclasses.asdict(each) for each in tests],
        "effects": [dataclasses.asdict(each) for each in effects],
    }


def _tell(found, tests) -> None:
    for name, each in found.items():
        line = f"{name}: {each.flow:.4f} nats a row held out, logistic {each.logistic:.4f}"
        if each.boosted is not None:
            line += f", boosting {each.boosted:.4f}"
        _say(f"{line}; N {each.rows:,}")
    wrong, unseen = independence.failing(tests), independence.unseen(tests)
    for test in wrong[:5]:
        _say(
            f"the table contradicts the graph: {test.cause} and {test.effect} depend on each other "
            f"given its causes ({test.size:.2g} nats a row)"
        )
    if len(wrong) > 5:
        _say(f"and {len(wrong) - 5} more; see {folder.PAGE}")
    for test in unseen:
        _say(f"the table shows nothing of the edge {test.cause} → {test.effect}")


def _say(line: str) -> None:
    print(f"{COMMAND}: {line}", flush=True)


if __name__ == "__main__":
    main()
