"""Judges images against real radiographs, whatever made them.

Each action has flags of its own: `rfxray evaluate ACTION --help` lists them. An action's module is
imported when it is called.
"""

from collections.abc import Sequence

from rfxray.commands import actions

# Name, module, and what it does; a module is `rfxray/commands/evaluate_NAME.py`.
ACTIONS = {
    "fidelity": ("rfxray.commands.evaluate_fidelity", "distances of samples from radiographs"),
    "control": (
        "rfxray.commands.evaluate_control",
        "whether samples show what was requested, and what goes with what",
    ),
    "utility": (
        "rfxray.commands.evaluate_utility",
        "what samples are worth to a classifier, and to whom",
    ),
    "privacy": (
        "rfxray.commands.evaluate_privacy",
        "whether samples give training patients away, and a release gate",
    ),
    "reconstruction": (
        "rfxray.commands.evaluate_reconstruction",
        "measure what an autoencoder keeps of its images",
    ),
    "card": ("rfxray.commands.evaluate_card", "the evaluation part of a model card"),
    "merge": ("rfxray.commands.evaluate_merge", "several results of fidelity in one table"),
    "check-weights": (
        "rfxray.commands.evaluate_check_weights",
        "show what an extractor's weights answer, beside PyTorch",
    ),
    "convert": ("rfxray.commands.evaluate_convert", "turn published weights into safetensors"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the action that the first argument names, with the arguments after it."""
    actions.run("evaluate", __doc__, ACTIONS, argv)


if __name__ == "__main__":
    main()
