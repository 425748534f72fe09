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
"""


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


class HostMissing(RfxrayError):
    """A host of the run did not come, or left."""

    exit_code = 75


class Preempted(RfxrayError):
    """Asked to stop; the state is saved and the same command resumes it."""

    exit_code = 75


def first_line(error: object) -> str:
    """What an error of another library says, cut to one line; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
