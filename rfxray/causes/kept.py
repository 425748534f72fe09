"""What a fit has done so far, beside its folder, so that a killed one goes on."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rfxray.causes import folder
from rfxray.causes.graph import Graph
from rfxray.causes.mechanisms import Mechanism, StructuralModel
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import files, lock
from rfxray.outputs.folders import whole_folder

_PLAN = "plan.json"

Keep = Callable[[Graph, str, Callable[[], Mechanism]], Mechanism]


def nothing(graph: Graph, name: str, make: Callable[[], Mechanism]) -> Mechanism:
    """Keeps nothing: makes the mechanism."""
    return make()


@contextlib.contextmanager
def beside(out: Path, plan: Mapping[str, object]) -> Iterator[Keep]:
    """Mechanisms that are kept in `.NAME.fitting` beside a folder until that is whole.

    What another table, graph or version left there is removed, and so is everything when the block
    ends, except after a kill, a stop or a full disk.

    Args:
      out: Folder that the fit will write.
      plan: All that decides the mechanisms, as JSON values.

    Yields:
      Function that takes the graph, the name of a variable and what makes its mechanism, and makes
      it unless it is there.

    Raises:
      ConfigError: If another process is fitting into `out`.
      OSError: If the disk refuses.
    """
    out = Path(os.path.realpath(out))
    place = out.with_name(f".{out.name}.fitting")
    place.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plan, indent=1, sort_keys=True) + "\n"
    try:
        with lock.locked(place):
            if not (place / _PLAN).exists() or (place / _PLAN).read_text() != text:
                _clear(place)
                files.write_whole(place / _PLAN, text)

            def keep(graph: Graph, name: str, make: Callable[[], Mechanism]) -> Mechanism:
                own = place / name
                if own.exists():
                    with contextlib.suppress(DataError, ConfigError):  # a damaged one is made again
                        return folder.load(own)[0].mechanisms[name]
                    shutil.rmtree(own)
                found = make()
                with whole_folder(own) as inside:
                    single = StructuralModel(graph, {name: found}, ())
                    for file, content in folder.contents(single, {}).items():
                        files.write_whole(inside / file, content)
                return found

            try:
                yield keep
            except (ConfigError, DataError):
                _clear(place)
                raise
            _clear(place)
    finally:
        with contextlib.suppress(OSError):  # there is something to go on with
            place.rmdir()


def _clear(place: Path) -> None:
    for path in place.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not lock.is_lock(path):
            path.unlink()
