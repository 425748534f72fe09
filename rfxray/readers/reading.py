"""From the files that a user names to a study."""

from collections.abc import Sequence
from pathlib import Path

from rfxray.errors import ConfigError, DataError
from rfxray.readers import answers, key, published, study


def read(
    files: Sequence[Path], key_path: Path | None, words: list[str] | None, middle: float | None
) -> study.Study:
    """Reads answers with their key, or one table that has the truth.

    Args:
      files: Paths of the answers, or of the table.
      key_path: Path of the opened key; None for a table.
      words: `NAME=COLUMN` of the columns of a table.
      middle: Score of a table that means undecided.

    Raises:
      ConfigError: If a path is not a file, or flags do not go together.
      DataError: If a file is not what it should be.
    """
    for path in [*files, *([key_path] if key_path else [])]:
        if not path.is_file():
            raise ConfigError(f"{path} is not a file; give answers that the page exported")
    if key_path is not None:
        if words is not None or middle is not None:
            raise ConfigError(
                f"--key does not read --{'map' if words is not None else 'middle'}; leave it out"
            )
        opened = key.read(key_path)
        return study.from_files([answers.read(path) for path in files], opened)
    if len(files) != 1:
        raise ConfigError(f"{len(files)} files need --key; a table that has the truth is one file")
    (path,) = files
    if words is not None:
        rows = published.read(path, published.mapping(words))
    elif published.is_imrmc(path):
        rows = published.read_imrmc(path)
    else:
        raise DataError(
            f"{path} has no truth: give --key for files of the kit, or --map for a table with truth"
        )
    return study.from_rows(path.name, rows, middle)
