"""What can go wrong, as exceptions that carry the exit code of the process.

A command wraps its `main` in `exit_on_error`: an expected failure becomes one line on stderr and
the code below, so that a launch script can act on it; anything else keeps its traceback.

| code | meaning | what a launcher does |
|---|---|---|
| 0  | finished | stop |
| 65 | bad data: a shard, an image, a checkpoint's content | stop, look |
| 70 | non-finite beyond the allowed skips | stop, look |
| 75 | preempted and saved, or a fault worth retrying | run the same command again |
| 78 | bad configuration, or a refused restore | stop, correct the command |

What the system refuses (a full disk, a read-only folder, no memory, a reader process that was
killed) comes as an error of Python or of a library in C++; `refused_by_system` gives it its code.
"""

import errno
import os


class RfxrayError(Exception):
    """An expected failure: `str(error)` is one line that says what, where and what to do."""

    exit_code = 1


class ConfigError(RfxrayError, ValueError):
    """A flag, a config key, an attribute or a combination of them that cannot work."""

    exit_code = 78


class HostsDiffer(ConfigError):
    """The hosts of a run do not run the same program on the same data."""


class DataError(RfxrayError):
    """A data set, a shard, an image or a checkpoint that is missing, torn or not what it says."""

    exit_code = 65


class NonFiniteError(RfxrayError):
    """The loss, the gradient or a picture stopped being finite."""

    exit_code = 70


class SaveFailed(RfxrayError):
    """A checkpoint, a data set or a picture could not be written."""

    exit_code = 75


class OutOfMemory(RfxrayError):
    """The machine or a device has no memory left, or a process was killed for its memory."""

    exit_code = 75


class HostMissing(RfxrayError):
    """A host of the run did not come, or left."""

    exit_code = 75


class Preempted(RfxrayError):
    """Asked to stop; the state is saved and the same command resumes it."""

    exit_code = 75


# What a restart may mend once somebody has made space, and what needs another command. EFBIG is a
# limit on the size of a file or of a file system; ESTALE is a mount on which another host wrote.
_AGAIN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
_CORRECT = (
    *(errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),  # the path itself cannot be
)


def refused_by_system(error: BaseException) -> RfxrayError | None:
    """An error of the system as one of the errors above, or None if it is another one.

    A library may wrap what the system said, so causes are looked at too. Libraries in C++ (Orbax,
    TensorStore, XLA) hand on only its words.

    Args:
      error: Error that ended a command.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    for link in chain:
        if isinstance(link, MemoryError) or getattr(link, "errno", None) == errno.ENOMEM:
            return OutOfMemory(
                f"no memory left ({first_line(link)}); free some, or lower batch_size, "
                "data.prefetch or data.workers, then rerun the command"
            )
        if isinstance(link, OSError) and link.errno in _AGAIN + _CORRECT:
            place = link.filename2 or link.filename
            named = "a file" if place is None or isinstance(place, int) else os.fsdecode(place)
            return _refused(link.errno, named, os.strerror(link.errno))
    for link in chain:
        words = str(link)
        for number in _AGAIN + _CORRECT:
            if os.strerror(number) in words:
                return _refused(number, "a file", first_line(link))
        if "terminated unexpectedly with exit code" in words:  # Grain, of a worker process
            return OutOfMemory(
                f"a reader process of data.workers is gone ({words.split('. ')[0]}), as when the "
                "machine has no memory left; rerun the command, with fewer data.workers if it "
                "recurs"
            )
        if "RESOURCE_EXHAUSTED" in words:  # XLA
            return OutOfMemory(
                f"a device has no memory left ({first_line(link)}); free it, or lower batch_size "
                "or raise accumulate, then rerun the command"
            )
    return None


def _refused(number: int, place: str, words: str) -> RfxrayError:
    if number in _CORRECT:
        return ConfigError(
            f"{place} cannot be written or read ({words}); check its permissions, or use another "
            "folder"
        )
    return SaveFailed(
        f"{place} cannot be written or read ({words}); check free space and the disk, then rerun "
        "the command"
    )


def first_line(error: object) -> str:
    """What an error of another library says, cut to one line; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
