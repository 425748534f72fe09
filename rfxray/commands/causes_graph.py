"""Checks a causal graph and prints it, in our JSON or as text for other programs.

    rfxray causes graph --graph mine.dot --as dagitty

A graph is a file in JSON, DAGitty's text (dag { age -> edema }), DOT or GML (both of which DoWhy
reads). Refused are cycles, unknown variables, and parents that cannot be.
"""

import argparse
from collections.abc import Sequence

from rfxray.causes import graph, graph_text
from rfxray.command_line import ArgumentParser, exit_on_error, local_path

COMMAND = "rfxray.causes.graph"


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray causes graph",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--graph",
        type=local_path,
        default=graph.GRAPH,
        metavar="FILE",
        help="file of the graph (default: that of RadiT, over 16 attributes)",
    )
    p.add_argument(
        "--as",
        dest="form",
        choices=["json", *graph_text.FORMS],
        default="json",
        help="form to print it in (default: %(default)s)",
    )
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        print(graph.written(graph.read_graph(flags.graph), flags.form), end="")


if __name__ == "__main__":
    main()
