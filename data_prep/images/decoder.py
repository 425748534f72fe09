"""Decoding in a process of its own, limited in time and memory.

A decoder meets files that nobody has vetted. What hangs, takes too much memory or crashes takes its
own process with it and becomes a reason for the ledger; the next file gets a fresh one. The limit
is of processor time, so that a busy machine drops no other files than an idle one. What it answers
is checked (`wire.py`): a decoder that a file has broken can cause a refusal, nothing else.

    python -m data_prep.images.decoder   # the process itself: requests on stdin, answers on stdout
"""

import contextlib
import functools
import hashlib
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import numpy as np

from data_prep.images import wire
from rfxray.data.radiograph import Refused, read, square
from rfxray.errors import Preempted

SECONDS = 30
BYTES = 2 << 30
STALLED_SECONDS = 600  # of the clock: the storage hangs, not the decoder
ANSWER_SECONDS = 60  # of the clock, from the first byte of an answer to its last; 1 ms is usual
LIMITS = {"decoder_seconds": SECONDS, "decoder_bytes": BYTES}


class Decoder:
    """A decoding process, started when first needed and again after each death."""

    def __init__(self):
        self._process: subprocess.Popen | None = None

    def decode(self, path: str | os.PathLike, size: int) -> tuple[dict, bytes, tuple[str, ...]]:
        """`radiograph.square` of a file, the sha256 of its decoded pixels, and remarks about how it
        was read (`Radiograph.notes`).

        Raises:
          Refused: If `radiograph` refuses it, or it broke the decoder twice.
          Preempted: If the storage gives no answer.
        """
        reason = ""
        for _ in range(2):  # retry once: an earlier file may have corrupted the process
            try:
                answer = self._ask(os.fspath(path), size)
            except (wire.TornAnswer, BrokenPipeError):
                reason = _cause(self.close())
            except wire.Nonsense as error:
                self._kill()
                reason = f"the decoder answered nonsense: {error}"
            else:
                if isinstance(answer, str):
                    raise Refused(answer)
                return answer
        raise Refused(reason)

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

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self.close()

    def _ask(self, path: str, size: int) -> str | tuple[dict, bytes, tuple[str, ...]]:
        if self._process is not None:
            _, answers = _pipes(self._process)
            if select.select([answers], [], [], 0)[0]:  # it ended, or talks without being asked
                self._kill()
        if self._process is None:
            self._process = _start()
        requests, answers = _pipes(self._process)
        wire.send(requests.fileno(), {"path": path, "size": size})
        if not select.select([answers], [], [], STALLED_SECONDS)[0]:
            self._kill()
            raise Preempted(f"no answer over {path} in {STALLED_SECONDS} s; is it readable?")
        return wire.receive_answer(answers.fileno(), size, time.monotonic() + ANSWER_SECONDS)


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
    """Answers until stdin ends: a record, a digest and notes, or the reason of a refusal."""
    requests, answers = sys.stdin.fileno(), os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what C code prints is not an answer
    already = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (already + BYTES, already + BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            request = wire.receive_header(requests)
        except wire.TornAnswer:
            return
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal kills, inside C code too
        answer, reason = None, ""
        try:
            answer = _decode(request["path"], request["size"])
        except Refused as refusal:
            reason = str(refusal)
        except MemoryError:
            reason = f"needs too much memory: over {BYTES >> 20} MiB"
        signal.setitimer(signal.ITIMER_PROF, 0)
        if answer is None:
            wire.send_refusal(answers, reason)
        else:
            wire.send_picture(answers, *answer)


def _decode(path: str, size: int) -> tuple[dict, bytes, tuple[str, ...]]:
    radiograph = read(path)
    pixels = np.ascontiguousarray(radiograph.pixels)
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.data).digest()
    return square(radiograph, size), digest, radiograph.notes


if __name__ == "__main__":
    _serve()
