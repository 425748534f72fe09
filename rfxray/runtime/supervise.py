"""Runs the trainer of one host: `python -m rfxray.runtime.supervise --workdir W -- COMMAND…`.

It passes SIGTERM and SIGINT on to the command (and SIGHUP, the end of a terminal, as SIGTERM),
writes a report to `workdir/status/host-i.json` (see status.py) every minute and at the end, keeps
the output in `workdir/logs/ATTEMPT/host-i.log`, and exits with a code that a launcher can act on.
JAX is not imported: a crash of the trainer cannot take the supervisor with it. If the supervisor is
killed, Linux sends the trainer SIGTERM: it saves and ends, and does not go on unsupervised.

| the trainer ended with | the supervisor exits with |
|---|---|
| 0, 65, 70, 75, 78 | the same |
| a signal: SIGKILL (out of memory), SIGABRT (134: another host is gone), SIGSEGV, SIGTERM, … | 75 |
| any other code: a traceback (1), … | 75: usually caused by another host or the network |
| it could not be started | 78 |

A run that cannot succeed ends again and again without progress; the launcher (or `--restarts`)
counts these attempts.
"""

import contextlib
import ctypes
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from etils import epath

from rfxray import command_line, errors, stop_signals
from rfxray.runtime.status import Status

RETRY = errors.Preempted.exit_code
FINAL = {0, errors.DataError.exit_code, errors.NonFiniteError.exit_code}
FINAL |= {errors.ConfigError.exit_code, RETRY}


# Seconds between two reports; an object of a bucket should not be written much more often.
REPORT = 60.0


# Bytes of the trainer's output that its log keeps, from its end: months of log lines.
KEPT = 2**24


# Seconds between attempts to write the last report: a bucket may be unavailable for a minute.
PAUSES = (1, 2, 5, 10, 20, 30)


def outcome(returncode: int) -> tuple[int, str]:
    """(exit code for a launcher, actual end) of a process that ended.

    Args:
      returncode: Return code of `subprocess`: −n for signal n; 128 + n, from a shell, too.
    """
    if returncode in FINAL:
        return returncode, f"exit {returncode}"
    number = -returncode if returncode < 0 else returncode - 128
    with contextlib.suppress(ValueError):
        return RETRY, signal.Signals(number).name
    return RETRY, f"exit {returncode}"


class Reports:
    """Report and log of this host in the workdir.

    Args:
      workdir: Folder of the run, a path or `gs://…`.
      host, hosts: Number of this host, and of all hosts.
      attempt: Name of the attempt.
    """

    def __init__(self, workdir: str, host: int, hosts: int, attempt: str):
        self._host, self._hosts, self._attempt = host, hosts, attempt
        self._folder = epath.Path(workdir) / "status"
        self._log = epath.Path(workdir) / "logs" / attempt / f"host-{host}.log"
        self._output, self._logged = bytearray(), None

    def open(self) -> None:
        """Writes the first report; raises a ConfigError if the workdir cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._report(None, None, None)
        except Exception as error:  # from the file system or the client of a bucket
            reason = f"{type(error).__name__}: {errors.first_line(error)}"
            raise errors.ConfigError(
                f"{self._folder} cannot be written ({reason}); use another --workdir, or check "
                "free space and permissions"
            ) from error

    def keep(self, output: bytes) -> None:
        """Appends to the log; the next report writes its last `KEPT` bytes."""
        self._output += output
        del self._output[:-KEPT]

    def write(self, code: int | None, ended: str | None, step: int | None) -> bool:
        """Writes report and log; returns False, after a line on stderr, if that fails."""
        try:
            log = bytes(self._output)
            if log != self._logged:
                self._log.write_bytes(log)
                self._logged = log
            self._report(code, ended, step)
        except Exception as error:  # a failed report must not end the trainer
            say(f"report not written: {error}")
            return False
        return True

    def step_of(self, pid: int) -> int | None:
        """The step in the heartbeat of the trainer with this process number, or None."""
        try:
            beat = json.loads((self._folder / f"heartbeat-host-{self._host}.json").read_text())
            return beat["step"] if beat["pid"] == pid else None
        except Exception:  # not written yet, or the bucket is unavailable
            return None

    def _report(self, code: int | None, ended: str | None, step: int | None) -> None:
        status = Status(self._host, self._hosts, self._attempt, code, ended, step, time.time())
        file = self._folder / f"host-{self._host}.json"
        # Not `outputs.files.write_whole`: the workdir may be a bucket, which replaces objects
        # atomically, cannot fsync, and would copy an object to rename it.
        if "://" in str(file):
            file.write_text(status.line())
        else:
            fresh = file.with_suffix(".json.new")
            fresh.write_text(status.line())
            fresh.replace(file)


class Supervisor:
    """Runs a command, passes signals on, and reports.

    Args:
      command: Command of the trainer, as words.
      reports: Reports to write.
      interval: Seconds between two reports.

    Attributes:
      asked: Signals received so far.
    """

    def __init__(self, command: list[str], reports: Reports, interval: float = REPORT):
        self._command, self._reports, self._interval = command, reports, interval
        self._process: subprocess.Popen | None = None
        self._passing = threading.Lock()
        self.asked: list[int] = []
        stop_signals.hear(self._forward)

    def run(self) -> tuple[int, int | None]:
        """Runs the command once; returns (exit code, last step or None).

        Raises:
          ConfigError: If it cannot be started.
        """
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        try:
            # In its own process group: Ctrl-C on a terminal reaches the trainer only from here.
            process = subprocess.Popen(
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=functools.partial(_end_with, os.getpid()),
            )
        except OSError as error:
            self._report(errors.ConfigError.exit_code, "not started", None)
            raise errors.ConfigError(f"{self._command[0]} cannot be started: {error}") from error
        with self._passing:
            self._process = process
            for number in self.asked:  # received before the process existed
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
        with contextlib.suppress(
            ProcessLookupError
        ):  # ends reader processes that the trainer left behind
            os.killpg(process.pid, signal.SIGKILL)
        copying.join(timeout=10)
        code, ended = outcome(process.returncode)
        self._report(code, ended, step)
        where = "" if step is None else f" at step {step}"
        say(f"trainer ended{where} with {ended}; exit code {code}")
        return code, step

    def _report(self, code: int, ended: str, step: int | None) -> None:
        for pause in (*PAUSES, None):
            if self._reports.write(code, ended, step) or pause is None:
                return
            time.sleep(pause)

    def _copy(self, output) -> None:
        while chunk := output.read1(65536):
            self._reports.keep(chunk)
            # If nobody reads the output any more, the trainer must not block. sys.stdout would fail
            # again at exit and change the exit code.
            with contextlib.suppress(OSError):
                while chunk:
                    chunk = chunk[os.write(1, chunk) :]

    def _forward(self, number: int) -> None:
        number = signal.SIGTERM if number == signal.SIGHUP else number
        with self._passing:
            self.asked.append(number)
            if self._process and self._process.poll() is None:
                self._process.send_signal(number)


# PR_SET_PDEATHSIG of prctl(2); looked up here, because a forked child should do little.
_SIGNAL_AT_DEATH_OF_PARENT = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def _end_with(supervisor: int) -> None:
    """In the trainer, before it begins: has the kernel send it SIGTERM when the supervisor dies."""
    if _prctl is not None:  # Linux only
        _prctl(_SIGNAL_AT_DEATH_OF_PARENT, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != supervisor:  # it died before the call
            os._exit(RETRY)


def supervise(supervisor: Supervisor, restarts: int) -> int:
    """Runs the command, again after a 75; returns the exit code of the last run.

    It does not restart after a signal, nor after `restarts` restarts in a row without a new step.
    """
    furthest, futile = -1, 0
    while True:
        code, step = supervisor.run()
        if step is not None and step > furthest:
            furthest, futile = step, 0
        if code != RETRY or supervisor.asked or futile >= restarts:
            return code
        futile += 1
        say(f"restarting the trainer (restart {futile} of {restarts} without progress)")


def say(line: str) -> None:
    """Writes a line to stderr if it is still open."""
    with contextlib.suppress(OSError):
        os.write(2, f"rfxray.runtime.supervise: {line}\n".encode())


def parser() -> command_line.ArgumentParser:
    p = command_line.ArgumentParser(
        prog="python -m rfxray.runtime.supervise", description="Runs the trainer of one host."
    )
    p.add_argument("--workdir", required=True, help="folder of the run, a path or gs://…")
    p.add_argument("--host", type=int, default=0, help="number of this host (default: 0)")
    p.add_argument("--hosts", type=int, default=1, help="number of hosts (default: 1)")
    p.add_argument("--attempt", default="", help="name of the attempt (default: the time)")
    p.add_argument(
        "--interval",
        type=float,
        default=REPORT,
        metavar="SECONDS",
        help="time between two reports (default: 60)",
    )
    p.add_argument(
        "--restarts",
        type=int,
        default=0,
        metavar="N",
        help="restart after a 75, at most N times in a row without progress (default: 0)",
    )
    p.add_argument("command", nargs="+", help="command of the trainer, after --")
    return p


def main(argv: list[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    attempt = arguments.attempt or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    with command_line.exit_on_error("rfxray.runtime.supervise"):
        if not 0 <= arguments.host < arguments.hosts:
            raise errors.ConfigError(
                f"--host must be from 0 to {arguments.hosts - 1} (got {arguments.host})"
            )
        if Path(attempt).name != attempt or attempt == "..":
            raise errors.ConfigError(
                f"--attempt must be the name of a folder, without / (got {attempt!r})"
            )
        reports = Reports(arguments.workdir, arguments.host, arguments.hosts, attempt)
        reports.open()
        supervisor = Supervisor(arguments.command, reports, arguments.interval)
        code = supervise(supervisor, arguments.restarts)
    sys.exit(code)


if __name__ == "__main__":
    main()
