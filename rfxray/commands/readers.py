"""A study of human readers: can they tell synthetic radiographs from real ones?

Each action has flags of its own: `rfxray readers ACTION --help` lists them. An action's module is
imported when it is called.
"""

from collections.abc import Sequence

from rfxray.commands import actions

ACTIONS = {
    "design": ("rfxray.commands.readers_design", "a page for each reader, and the sealed key"),
    "analyse": ("rfxray.commands.readers_analyse", "turn answers and the key into a verdict"),
    "power": ("rfxray.commands.readers_power", "readers and cases for a margin and a power"),
    "example": ("rfxray.commands.readers_example", "a whole study of phantoms, in a minute"),
    "simulate": ("rfxray.commands.readers_simulate", "answers of readers of known ability"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the action that the first argument names, with the arguments after it."""
    actions.run("readers", __doc__, ACTIONS, argv)


if __name__ == "__main__":
    main()
