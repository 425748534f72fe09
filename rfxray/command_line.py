"""What every command shares: its parser, its exit codes, its progress."""

import argparse
import contextlib
import dataclasses
import importlib
import io
import locale
import os
import re
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rfxray.errors import ConfigError, Preempted, RfxrayError, first_line, refused_by_system
from rfxray.printing_flags import add_version

LONGEST_WORD = 300  # characters: a typed number of more would fill the screen


def refuse_unread(arguments: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raises a ConfigError if one of these flags is given, though nothing would read it.

    Args:
      arguments: Parsed flags.
      names: Names of flags that are not read, without dashes.
      why: Reason for it, such as `--times`.
    """
    if given := [name for name in names if getattr(arguments, name) is not None]:
        flag = given[0].replace("_", "-")
        raise ConfigError(f"{why} does not read --{flag}; leave it out")


def settings_given(arguments: argparse.Namespace, settings: type) -> dict[str, Any]:
    """The fields of a dataclass that a flag of the same name gives."""
    flags = vars(arguments)
    names = [field.name for field in dataclasses.fields(settings)]
    return {name: flags[name] for name in names if flags.get(name) is not None}


def words_of(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, hidden: Collection[str] = ()
) -> list[str]:
    """The words of a command line that these flags come from, without those left at their default.

    Args:
      parser: Parser of the command.
      arguments: What it read.
      hidden: Flags of which only the name is written, such as IMAGE: the name of a file, or of the
        folder that it lies in, may be that of a patient.
    """
    flags = {action.dest: action.option_strings[-1] for action in parser._actions}
    words = []
    for name, value in vars(arguments).items():
        if value == parser.get_default(name):
            continue
        if value is True:
            words.append(flags[name])
            continue
        for each in value if isinstance(value, list) else [value]:
            words += [flags[name], name.upper() if name in hidden else str(each)]
    return words


def local_path(text: str) -> Path:
    """A path of this machine, as the type of a flag; `~` at its start is the home folder.

    Shells expand `~` only at the start of a word, so not in `--workdir=~/runs`.

    Raises:
      ArgumentTypeError: For an empty path, which would be the current folder, and for `gs://…` and
        the like, which would silently become a local folder.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "the path is empty; give a folder or file (. for this one)"
        )
    try:
        refuse_address(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return at_home(text)


def refuse_address(path: str | Path) -> None:
    """Raises a ConfigError for `gs://…` and the like, which would become a local folder `gs:`."""
    # pathlib leaves one of the two slashes.
    if "://" in str(path) or re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        raise ConfigError(
            f"{path} is not a path; mount the bucket (gcsfuse) and give the folder it is mounted at"
        )


def data_folder(text: str) -> str:
    """A data set folder, and perhaps `:SPLIT`, as the type of a flag: as it is, if it is a path.

    Raises:
      ArgumentTypeError: See `local_path`.
    """
    local_path(text)
    return text


def at_home(path: str | Path) -> Path:
    """A path with `~` at its start as the home folder, if there is one."""
    with contextlib.suppress(RuntimeError):  # a user without a home
        if str(path).startswith("~"):
            return Path(path).expanduser()
    return Path(path)


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


def add_allow_kind(parser: argparse._ActionsContainer) -> None:
    """Adds `--allow-kind`, which sets `allow_kind` to a list, to the parser of a command.

    The config of a run may name code outside of rfxray. A command that reads a run must be given
    what may be run: a folder from elsewhere must not choose that.
    """
    parser.add_argument(
        "--allow-kind",
        action="append",
        default=[],
        metavar="PACKAGE.MODULE:NAME",
        help="code outside of rfxray that the run's config may name, repeatable (default: none)",
    )


def speak_utf8() -> None:
    """Makes files, names and output UTF-8, whatever the locale and `PYTHONIOENCODING` say.

    In a locale such as `de_DE` (Latin-1) Python would read and write our files in that encoding.
    Its UTF-8 mode can only be chosen at the start, so this process starts once more under the same
    number: for a command's process only, never within a notebook or another program. What a
    terminal's encoding lacks is shown as `\\u2192`.
    """
    ours = locale.getencoding().replace("-", "").lower() == "utf8"
    if not (sys.flags.utf8_mode or ours or sys.flags.ignore_environment):
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


class ArgumentParser(argparse.ArgumentParser):
    """Answers a wrong flag in one line and with the exit code of a bad configuration.

    Every parser has `--version`. One that reads the words of its own process makes it speak UTF-8.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        add_version(self)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        if (args[0] if args else kwargs.get("args")) is None:
            # The process is the command: no other program has called it.
            speak_utf8()
        return super().parse_known_args(*args, **kwargs)

    def error(self, message):
        command = self.prog.removeprefix("python -m ")
        message = one_line(message)
        print(f"{command}: error: {message} (--help lists the flags)", file=sys.stderr)
        raise SystemExit(ConfigError.exit_code) from ConfigError(message)


def one_line(text: str) -> str:
    """A text as one line; of a word longer than any path, only the beginning."""
    words = (word if len(word) <= LONGEST_WORD else f"{word[:40]}…" for word in text.split())
    return " ".join(words)


@contextlib.contextmanager
def exit_on_error(command: str):
    """Turns an `RfxrayError`, or what the system refuses, into one line on stderr and an exit code.

    Args:
      command: Name that the line begins with, such as `rfxray.train`.
    """
    try:
        yield
    except Exception as error:
        known = error if isinstance(error, RfxrayError) else refused_by_system(error)
        if known is None:
            raise
        line = one_line(str(known))
        kind = "stopped" if isinstance(known, Preempted) else "error"
        with contextlib.suppress(OSError):  # stderr may be a file on the disk that is full
            print(f"{command}: {kind}: {line}", file=sys.stderr, flush=True)
        sys.exit(known.exit_code)


class Progress:
    """Progress of a command: a bar on a terminal, a line now and then in a log. A context manager.

    Rate and remaining time are those of the work done by this process.

    Args:
      command: Name of the command, such as `rfxray.sample`, that every line begins with.
      total: Amount of work, with what earlier processes did.
      done: Amount that earlier processes did.
      unit: Name of one unit of work.
      seconds: Seconds between lines if stderr is not a terminal; None prints no lines.
      shown: Whether anything is shown, such as on the first of several hosts only.
    """

    def __init__(
        self,
        command: str,
        total: int,
        done: int = 0,
        unit: str = "image",
        seconds: float | None = 10.0,
        shown: bool = True,
    ):
        self._command, self._total, self._unit = command, total, unit
        self._before, self._done = done, done
        self._bar = tqdm(
            desc=command,
            total=total,
            initial=done,
            unit=unit,
            disable=not (shown and sys.stderr.isatty()),
        )
        self._seconds = seconds if shown and self._bar.disable else None
        self._began = self._last = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, new: int = 1) -> None:
        """Counts work that this process did since the last call."""
        self._bar.update(new)
        self._done += new
        now = time.monotonic()
        if self._seconds is None or now - self._last < self._seconds:
            return
        self._last = now
        rate = (self._done - self._before) / (now - self._began)
        line = f"{self._command}: {self._done:,} of {self._total:,} {self._unit}s"
        if rate:
            shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
            line += f", {shown}/s, {duration((self._total - self._done) / rate)} left"
        print(line, file=sys.stderr, flush=True)

    def show(self, done: int) -> None:
        """Sets the amount of work that is done, with what earlier processes did."""
        self.advance(done - self._done)

    def close(self) -> None:
        """Ends the bar's line."""
        self._bar.close()


def duration(seconds: float) -> str:
    """Seconds in the two largest units: `3d 04h`, `2h 05m`, `1m 09s`."""
    s = round(seconds)
    for unit, size, next_unit, next_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if s >= size:
            return f"{s // size}{unit} {s % size // next_size:02d}{next_unit}"
    return f"{s // 60}m {s % 60:02d}s"
