"""Every command of `rfxray NAME …` and `python -m rfxray NAME …`, and the module that it runs.

A module is imported when its command is called: `rfxray --help` loads no JAX. The commands of
`data_prep` stand here by name only, because `rfxray` never imports `data_prep`.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from rfxray import stop_signals, version
from rfxray.command_line import exit_on_error, speak_utf8
from rfxray.errors import ConfigError

COMMANDS = {
    "train": ("rfxray.train", "train a model from a config, or resume it"),
    "sample": ("rfxray.sample", "draw radiographs from a trained model"),
    "edit": ("rfxray.edit", "change one attribute of a radiograph"),
    "compile-pod": ("rfxray.compile_pod", "compile a config for a TPU pod that you do not have"),
    "encode": ("rfxray.commands.encode", "turn a data set of images into one of latents"),
    "export": ("rfxray.commands.export", "one average of a run as a folder to give away"),
    "posthoc-ema": ("rfxray.posthoc_ema", "average the weights of a run to any width"),
    "status": ("rfxray.runtime.status", "judge the reports of all hosts (on stdin)"),
    "supervise": ("rfxray.runtime.supervise", "run a trainer and report how it ends"),
    "phantom": ("data_prep.phantom.__main__", "draw a data set of procedural radiographs"),
    "oracle": ("data_prep.phantom.oracle", "train the reader that judges samples of phantoms"),
    "readers": ("rfxray.commands.readers", "plan and analyse a study of human readers"),
    "causes": ("rfxray.commands.causes", "fit a causal model of the attributes, and ask it"),
    "evaluate": ("rfxray.commands.evaluate", "judge samples against real radiographs"),
    "build": ("data_prep.build", "turn a folder of radiographs and its table into a data set"),
    "harmonise": ("data_prep.harmonise", "turn several raw sets into one data set"),
    "audit": ("data_prep.audit.__main__", "show what is in a data set, and what is odd about it"),
}


def listing() -> str:
    """Text that names every command, a line each."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{text}" for name, (_, text) in COMMANDS.items()]
    usage = "usage: rfxray COMMAND [flags]      rfxray COMMAND --help lists the flags"
    return "\n".join([usage, "", *lines])


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names, with the arguments after it.

    Raises:
      SystemExit: With code 78 for a name that is not in the table, else as the command ends.
    """
    if argv is None:
        speak_utf8()
    name, *flags = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("--help", "-h"):
        print(listing())
        return
    if name == "--version":
        print(version.line())
        return
    with exit_on_error("rfxray"):
        if name not in COMMANDS:
            (nearest,) = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0)
            raise ConfigError(f"no command {name!r}; the nearest is {nearest} (--help lists all)")
    module, _ = COMMANDS[name]
    said = module.removesuffix(".__main__").replace(".commands.", ".")  # as its other lines do
    stop_signals.hear(stop_signals.ending(said))
    importlib.import_module(module).main(flags)
