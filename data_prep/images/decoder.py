"""Decoding in a process of its own, limited in time and memory.

A decoder meets files that nobody has vetted. What hangs, takes too much memory or crashes takes its
own process with it and becomes a reason for the ledger; the next file gets a fresh one. The limit
is of processor time, so that a busy machine drops no other files than an idle one.

    python -m data_prep.images.decoder   # the process itself: requests on stdin, answers on stdout
"""

import contextlib
import functools
import hashlib
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import numpy as np

from rfxray.data.radiograph import Refused, read, square
from rfxray.errors import Preempted

SECONDS = 30
BYTES = 2 << 30
STALLED_SECONDS = 600  # of the clock: the storage hangs, not the decoder
LIMITS = {"decoder_seconds": SECONDS, "decoder_bytes": BYTES}


class Decoder:
    """A decoding process, started when first needed and again after each death."""

    def __init__(self):
        self._process: subprocess.Popen | None = None

    def decode(self, path: str | os.PathLike, size: int) -> tuple[dict, bytes]:
        """`radiograph.square` of a file, and the sha256 of its decoded pixels.

        Raises:
          Refused: If `radiograph` refuses it, or it broke the decoder twice.
          Preempted: If the storage gives no answer.
        """
        for attempt in (1, 2):  # retry once: an earlier file may have corrupted the process
            try:
                answer = self._ask((os.fspath(path), size))
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                reason = _cause(self.close())
                if attempt == 2:
                    raise Refused(reason) from None
            else:
                if isinstance(answer, str):
                    raise Refused(answer)
                return answer
        raise AssertionError

    def close(self) -> int:
        """Ends the process; returns how it ended, as `subprocess` has it."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        requests, answers = _pipes(process)
        with contextlib.suppress(BrokenPipeError):
            requests.close()
        try:
            return process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            answers.close()

    def _ask(self, request):
        if self._process is None:
            self._process = _start()
        requests, answers = _pipes(self._process)
        pickle.dump(request, requests)
        requests.flush()
        if not select.select([answers], [], [], STALLED_SECONDS)[0]:
            self._process.kill()
            self.close()
            raise Preempted(f"no answer over {request[0]} in {STALLED_SECONDS} s; is it readable?")
        return pickle.load(answers)


def _pipes(process: subprocess.Popen) -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output of the process."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


@functools.cache
def decoder() -> Decoder:
    """The decoder of this process."""
    return Decoder()


def _start() -> subprocess.Popen:
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "data_prep.images.decoder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the C decoders talk
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C ends the worker, which ends this
    )


def _cause(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"the decoder took too long: over {SECONDS} s"
    what = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    return f"the decoder crashed: {what}"


def _serve() -> None:
    """Answers until stdin ends: a record and a digest, or the reason of a refusal."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what C code prints is not an answer
    already = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (already + BYTES, already + BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            path, size = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal kills, inside C code too
        try:
            answer = _decode(path, size)
        except Refused as refusal:
            answer = str(refusal)
        except MemoryError:
            answer = f"needs too much memory: over {BYTES >> 20} MiB"
        signal.setitimer(signal.ITIMER_PROF, 0)
        pickle.dump(answer, answers)
        answers.flush()


def _decode(path: str, size: int) -> tuple[dict, bytes]:
    radiograph = read(path)
    pixels = np.ascontiguousarray(radiograph.pixels)
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.data).digest()
    return square(radiograph, size), digest


if __name__ == "__main__":
    _serve()
