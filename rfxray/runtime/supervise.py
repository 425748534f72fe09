"""Owns the trainer of one host: `python -m rfxray.runtime.supervise --workdir W -- COMMAND…`.

It hands SIGTERM and SIGINT on to the command (and SIGHUP, the end of a terminal, as SIGTERM),
writes what becomes of it to `workdir/status/host-i.json` (see status.py) every minute and at the
end, keeps its output in `workdir/logs/ATTEMPT/host-i.log`, and ends with an exit code that a
launcher can act on. JAX is not imported: nothing that befalls the trainer befalls its supervisor.

| the trainer ended with | the supervisor ends with |
|---|---|
| 0, 65, 70, 75, 78 | the same |
| a signal: SIGKILL (out of memory), SIGABRT (134: another host is gone), SIGSEGV, SIGTERM, … | 75 |
| any other code: a traceback (1), … | 75: most are another host or the network |
| it could not be started | 78 |

What cannot succeed ends the same way each time without a step forward, which is for the launcher
(or `--restarts`) to count.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from etils import epath

from rfxray import command_line, errors
from rfxray.runtime.status import Status

RETRY = errors.Preempted.exit_code
FINAL = {0, errors.DataError.exit_code, errors.NonFiniteError.exit_code}
FINAL |= {errors.ConfigError.exit_code, RETRY}


# Seconds between two reports; an object of a bucket should not be written much more often.
REPORT = 60.0


# Bytes of the trainer's output that its log holds, the last ones: months of log lines.
KEPT = 2**24


# Pauses before the last report is tried again: a bucket may be away for a minute.
PAUSES = (1, 2, 5, 10, 20, 30)


def outcome(returncode: int) -> tuple[int, str]:
    """(exit code for a launcher, what happened) of a process that ended.

    Args:
      returncode: of `subprocess`: −n for signal n. A shell's 128 + n is read as signal n too.
    """
    if returncode in FINAL:
        return returncode, f"exit {returncode}"
    number = -returncode if returncode < 0 else returncode - 128
    with contextlib.suppress(ValueError):
        return RETRY, signal.Signals(number).name
    return RETRY, f"exit {returncode}"


class Reports:
    """The files in a workdir that tell of this host.

    Args:
      workdir: of the run, a path or `gs://…`.
      host, hosts: which host this is, of how many.
      attempt: at the run.
    """

    def __init__(self, workdir: str, host: int, hosts: int, attempt: str):
        self._host, self._hosts, self._attempt = host, hosts, attempt
        self._folder = epath.Path(workdir) / "status"
        self._log = epath.Path(workdir) / "logs" / attempt / f"host-{host}.log"
        self._output, self._logged = bytearray(), None

    def open(self) -> None:
        """The first report; a ConfigError where the workdir cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._report(None, None, None)
        except Exception as error:  # of the file system or of the client of a bucket
            reason = f"{type(error).__name__}: {errors.first_line(error)}"
            raise errors.ConfigError(
                f"{self._folder} cannot be written ({reason}); give another --workdir, or see to "
                "space and access"
            ) from error

    def keep(self, output: bytes) -> None:
        """Adds to the log, of which the next report writes the last `KEPT` bytes."""
        self._output += output
        del self._output[:-KEPT]

    def write(self, code: int | None, ended: str | None, step: int | None) -> bool:
        """Writes report and log; where that fails it says so and returns False."""
        try:
            log = bytes(self._output)
            if log != self._logged:
                self._log.write_bytes(log)
                self._logged = log
            self._report(code, ended, step)
        except Exception as error:  # the trainer must not end because a report could not be written
            say(f"no report: {error}")
            return False
        return True

    def step_of(self, pid: int) -> int | None:
        """The step in the heartbeat of the trainer of that process number."""
        try:
            beat = json.loads((self._folder / f"heartbeat-host-{self._host}.json").read_text())
            return beat["step"] if beat["pid"] == pid else None
        except Exception:  # not written yet, or the bucket is away: nothing to act on
            return None

    def _report(self, code: int | None, ended: str | None, step: int | None) -> None:
        status = Status(self._host, self._hosts, self._attempt, code, ended, step, time.time())
        file = self._folder / f"host-{self._host}.json"
        # Not `outputs.files.write_whole`: the workdir may be a bucket, where nothing is fsynced, an
        # object is replaced whole as it is, and a rename would copy it.
        if "://" in str(file):
            file.write_text(status.line())
        else:
            fresh = file.with_suffix(".json.new")
            fresh.write_text(status.line())
            fresh.replace(file)


class Supervisor:
    """Runs a command, hands signals on, and reports.

    Args:
      command: of the trainer, as words.
      reports: where to tell of it.
      interval: seconds between two reports.
    """

    def __init__(self, command: list[str], reports: Reports, interval: float = REPORT):
        self._command, self._reports, self._interval = command, reports, interval
        self._process: subprocess.Popen | None = None
        self.asked: list[int] = []  # the signals that have come
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # Under nohup the end of the terminal is to be outlived.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._forward)

    def run(self) -> tuple[int, int | None]:
        """Runs the command once: (exit code, last step or None).

        Raises:
          ConfigError: where it cannot be started.
        """
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        try:
            # A process group of its own: Ctrl-C on a terminal reaches the trainer once, from here.
            process = subprocess.Popen(
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except OSError as error:
            self._report(errors.ConfigError.exit_code, "not started", None)
            raise errors.ConfigError(f"{self._command[0]} does not start: {error}") from error
        self._process = process
        for number in self.asked:  # that came before there was a process
            process.send_signal(number)
        copying = threading.Thread(target=self._copy, args=[process.stdout], daemon=True)
        copying.start()
        step = None
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._interval)
            seen = self._reports.step_of(process.pid)
            step = step if seen is None else seen
            if process.returncode is not None:
                break
            self._reports.write(None, None, step)
        with contextlib.suppress(ProcessLookupError):  # reader processes that it left behind
            os.killpg(process.pid, signal.SIGKILL)
        copying.join(timeout=10)
        code, ended = outcome(process.returncode)
        self._report(code, ended, step)
        where = "" if step is None else f" at step {step}"
        say(f"the trainer ended with {ended}{where}: {code}")
        return code, step

    def _report(self, code: int, ended: str, step: int | None) -> None:
        for pause in (*PAUSES, None):
            if self._reports.write(code, ended, step) or pause is None:
                return
            time.sleep(pause)

    def _copy(self, output) -> None:
        while chunk := output.read1(65536):
            self._reports.keep(chunk)
            # The trainer would wait for ever for whoever does not read on. Not through sys.stdout:
            # what that could not write would fail again at the end, and be the exit code.
            with contextlib.suppress(OSError):
                while chunk:
                    chunk = chunk[os.write(1, chunk) :]

    def _forward(self, number, frame) -> None:
        number = signal.SIGTERM if number == signal.SIGHUP else number
        self.asked.append(number)
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)


def supervise(supervisor: Supervisor, restarts: int) -> int:
    """The exit code of the last run, after as many as are due.

    A run that ended with 75, without having been asked to stop, is followed by another; `restarts`
    in a row without a step beyond the furthest are the most.
    """
    furthest, futile = -1, 0
    while True:
        code, step = supervisor.run()
        if step is not None and step > furthest:
            furthest, futile = step, 0
        if code != RETRY or supervisor.asked or futile >= restarts:
            return code
        futile += 1
        say(f"starts again ({futile} of {restarts})")


def say(line: str) -> None:
    """A line on stderr, where there still is one."""
    with contextlib.suppress(OSError):
        os.write(2, f"rfxray.runtime.supervise: {line}\n".encode())


def parser() -> command_line.ArgumentParser:
    p = command_line.ArgumentParser(
        prog="python -m rfxray.runtime.supervise", description="Owns the trainer of one host."
    )
    p.add_argument("--workdir", required=True, help="of the run")
    p.add_argument("--host", type=int, default=0, help="which host of the run this is")
    p.add_argument("--hosts", type=int, default=1, help="how many there are")
    p.add_argument("--attempt", default="", help="its name; the time by default")
    p.add_argument("--interval", type=float, default=REPORT, metavar="SECONDS", help="of reports")
    p.add_argument(
        "--restarts",
        type=int,
        default=0,
        metavar="N",
        help="start again after a 75, at most N times without a step forward (default: never)",
    )
    p.add_argument("command", nargs="+", help="of the trainer, after --")
    return p


def main(argv: list[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    attempt = arguments.attempt or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    with command_line.exit_on_error("rfxray.runtime.supervise"):
        if not 0 <= arguments.host < arguments.hosts:
            raise errors.ConfigError(f"--host {arguments.host} is none of {arguments.hosts}")
        if Path(attempt).name != attempt or attempt == "..":
            raise errors.ConfigError(f"--attempt {attempt!r} is no name of a folder")
        reports = Reports(arguments.workdir, arguments.host, arguments.hosts, attempt)
        reports.open()
        supervisor = Supervisor(arguments.command, reports, arguments.interval)
        code = supervise(supervisor, arguments.restarts)
    sys.exit(code)


if __name__ == "__main__":
    main()
