"""Fits the mechanisms of a causal graph to a table of attributes, and judges them.

    rfxray causes fit --data data/mine --out runs/causes
    rfxray causes fit --data mine.csv --graph mine.dot --out runs/causes

Every variable of the graph gets a mechanism: a threshold on noise if it has categories, a monotone
spline if it is continuous, both with bends of continuous causes and all interactions. Unknown
values are left out variable by variable. One patient in eight is held out, and the page shows how
well the mechanisms describe them, beside a logistic model; which independences of the graph the
table contradicts; and the average effects. The same table and graph give the same files. A fit
takes seconds to minutes and writes its folder whole; if it is killed, the same command goes on with
the variables that are left.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfxray import version
from rfxray.causes import contrasts, fitting, folder, independence, judged, kept, page, tables
from rfxray.causes.graph import GRAPH, Graph, read_graph, written
from rfxray.causes.tables import Table
from rfxray.command_line import (
    ArgumentParser,
    Progress,
    data_folder,
    exit_on_error,
    local_path,
    require,
)
from rfxray.errors import DataError
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
    folders.refuse_content(out)
    if boosting:
        require("peers", "sklearn")
    graph = read_graph(graph_file)
    with Progress(COMMAND, tables.size(data), unit="row") as progress:
        table = tables.read(data, graph, progress.advance)
    aside = table.held_out()
    train, held_out = table.rows(~aside), table.rows(aside)
    if not len(train) or not len(held_out):
        raise DataError(f"{data} has {len(table):,} rows, of too few patients to hold some out")
    _say(f"{len(table):,} rows of {table.patients.max() + 1:,} patients, an eighth held out")
    count = len(graph.parents)
    with (
        files.saving(out),
        kept.beside(out, _plan(table, graph)) as keep,
        Progress(COMMAND, 5 * count, unit="variable") as progress,
    ):
        model = fitting.fit(graph, train, "flow", fitting.REPLICATES, progress.advance, keep)
        for note in model.notes:
            _say(note)
        logistic = fitting.fit(graph, train, "logistic", 0, progress.advance)
        found = judged.judge(model, logistic, train, held_out, boosting, progress.advance)
        tests = independence.checked(model, train, progress.advance)
        effects = contrasts.measured(model, progress.advance)
        record = _record(table, found, tests, effects)
        with folders.whole_folder(out) as inside:
            for name, content in folder.contents(model, record).items():
                files.write_whole(inside / name, content)
            files.write_whole(inside / folder.PAGE, page.render(model, record))
    _tell(found, tests)
    print(f"wrote {out / folder.PAGE}")


def _plan(table: Table, graph: Graph) -> dict[str, Any]:
    """All that decides the mechanisms."""
    return {
        "table": table.fingerprint(),
        "graph": written(graph, "json"),
        "replicates": fitting.REPLICATES,
        "written_by": version.versions(),
    }


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
