"""What every command shares: its parser, its exit codes, its progress."""

import argparse
import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from rfxray.errors import ConfigError, Preempted, RfxrayError, first_line


def refuse_unread(arguments: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raises a ConfigError where one of these flags is given, though nothing would read it.

    Args:
      arguments: as parsed.
      names: of flags, as the parser has them.
      why: what leaves them unread, such as `--times`.
    """
    if given := [name for name in names if getattr(arguments, name) is not None]:
        raise ConfigError(f"{why} does not read --{given[0]}; leave it out")


def settings_given(arguments: argparse.Namespace, settings: type) -> dict:
    """The fields of a dataclass for which there is a flag, and one that is given."""
    flags = vars(arguments)
    names = [field.name for field in dataclasses.fields(settings)]
    return {name: flags[name] for name in names if flags.get(name) is not None}


def local_path(text: str) -> Path:
    """A path of this machine, as the type of a flag.

    Raises:
      ArgumentTypeError: for `gs://…` and the like, which would silently become a folder here.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text} is not a path; mount the bucket (gcsfuse) and give the folder it is mounted at"
        )
    return Path(text)


def require(extra: str, *modules: str) -> None:
    """Raises a ConfigError unless these modules can be imported.

    A command calls it before it imports what needs them.

    Args:
      extra: Extra of `setup.cfg` that installs them; several with commas.
      modules: Names of the modules.
    """
    missing, why = [], ""
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            missing.append(name)
        except ImportError as error:  # a library of the system is missing
            missing.append(name)
            why = f" ({first_line(error)})"
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} missing{why}: install the extra, pip install 'rfxray[{extra}]'"
        )


class ArgumentParser(argparse.ArgumentParser):
    """Answers a wrong flag in one line and with the exit code of a bad configuration."""

    def error(self, message):
        command = self.prog.removeprefix("python -m ")
        print(f"{command}: error: {message} (--help lists the flags)", file=sys.stderr)
        sys.exit(ConfigError.exit_code)


@contextlib.contextmanager
def exit_on_error(command: str):
    """Turns an `RfxrayError` into one line on stderr and its exit code.

    Args:
      command: what the line begins with, such as `rfxray.train`.
    """
    try:
        yield
    except RfxrayError as error:
        line = " ".join(str(error).split())
        kind = "stopped" if isinstance(error, Preempted) else "error"
        print(f"{command}: {kind}: {line}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


class Bar:
    """Progress of the training loop: one line that is redrawn, on the terminal of the first host.

    Args:
      step: where it begins.
      steps: where it ends.
      host: of this process.
    """

    def __init__(self, step: int, steps: int, host: int = 0):
        on_terminal = sys.stderr.isatty() and host == 0
        self._bar = tqdm(total=steps, initial=step, unit="step", disable=not on_terminal)

    def advance(self) -> None:
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `3d 04h`, `2h 05m`, `1m 09s`."""
    s = round(seconds)
    for unit, size, next_unit, next_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if s >= size:
            return f"{s // size}{unit} {s % size // next_size:02d}{next_unit}"
    return f"{s // 60}m {s % 60:02d}s"
