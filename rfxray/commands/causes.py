"""Causes of findings: fits a structural causal model, and asks it what an intervention does.

Each action has flags of its own: `rfxray causes ACTION --help` lists them. An action's module is
imported when it is called.
"""

from collections.abc import Sequence

from rfxray.commands import actions

ACTIONS = {
    "fit": ("rfxray.commands.causes_fit", "fit the mechanisms of a graph to a table"),
    "ask": ("rfxray.commands.causes_ask", "effects, counterfactuals and paths, with intervals"),
    "stress": ("rfxray.commands.causes_stress", "whether a classifier leans on an attribute"),
    "graph": ("rfxray.commands.causes_graph", "check a graph; write it as JSON, DAGitty, DOT, GML"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the action that the first argument names, with the arguments after it."""
    actions.run("causes", __doc__, ACTIONS, argv)


if __name__ == "__main__":
    main()
