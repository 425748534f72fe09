"""Damages every kind of file of a checkpoint and of a data set and checks the result.

    python -m tests.corruption

In each kind of file one bit in the middle is flipped, or the file is cut in half, or deleted.
Expected: a damaged checkpoint is moved aside and the run resumes from the one before; damaged data
ends the run with code 65 and the name of the file; damage to a file that is never read changes
nothing.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from rfxray import train
from rfxray.checkpoints.run import Checkpoints
from rfxray.command_line import ArgumentParser
from rfxray.config import load as configuration
from rfxray.config.identity import identity_of
from rfxray.data import dataset
from rfxray.errors import ConfigError, DataError
from rfxray.runtime import sharding
from rfxray.training import recipe as recipes
from rfxray.training import state
from rfxray.training.metrics import fresh
from tests import conftest

SAVE = 6  # steps between the two checkpoints of the run
WRITTEN_LAST = {"_CHECKPOINT_METADATA", "commit_success.txt"}  # by Orbax, and never read


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x04
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], None]] = {"flip": flip, "cut": cut, "delete": Path.unlink}


def kinds(folder: Path) -> Iterator[tuple[str, Path]]:
    """One file of each kind, with a name that lacks random and numbered parts."""
    seen = set()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = re.sub(r"[0-9a-f]{32}", "*", str(file.relative_to(folder)))
        name = re.sub(r"\d{5}-of", "*-of", name).replace("ema_0.100", "ema_0.050")
        if name not in seen:
            seen.add(name)
            yield name, file


def checkpoints(folder: Path) -> Iterator[tuple[str, str, str, bool]]:
    """(file, damage, outcome, whether it is expected) for every kind of file of a checkpoint."""
    data = conftest.write(folder / "data", train=range(50), validation=range(50, 70))
    overrides = [*conftest.TINY, f"data.dirs={data}"]
    config = configuration.load_config(str(conftest.ROOT / "configs/smoke.py"), overrides)
    with conftest.keep_signal_handlers():
        train.train(config, folder / "run")
    mesh = sharding.make_mesh(1, 1, 1)
    recipe = recipes.build(config)
    identity = identity_of(config, train.open_data(config, recipe.model.input_shape).fingerprint)

    def resume(workdir: Path):
        empty = fresh(recipe.metrics, sharding.replicated(mesh))
        store = Checkpoints(workdir, config, identity, state.abstract(recipe, mesh), empty)
        try:
            step, restored, _ = store.resume()
            return step, jax.tree.map(np.asarray, restored[0])
        finally:
            store.close()

    expected = {2 * SAVE: resume(folder / "run")[1]}
    older = shutil.copytree(folder / "run", folder / "older")
    shutil.rmtree(older / "checkpoints" / "12")
    expected[SAVE] = resume(older)[1]

    for name, file in kinds(folder / "run" / "checkpoints" / "12"):
        for damage, apply in DAMAGE.items():
            copy = shutil.copytree(folder / "run", folder / "copy")
            apply(copy / "checkpoints" / "12" / file.relative_to(folder / "run/checkpoints/12"))
            step, found = resume(copy)
            same = jax.tree.all(jax.tree.map(np.array_equal, found, expected[step]))
            aside = (copy / "set_aside" / "12").is_dir()
            outcome = f"moved aside, resumed at step {step}" if aside else "restored bitwise"
            right = (
                same and (aside == (step == SAVE)) and (aside or Path(name).name in WRITTEN_LAST)
            )
            yield f"checkpoint/{name}", damage, outcome if same else "WRONG NUMBERS", right
            shutil.rmtree(copy)


def data_sets(folder: Path) -> Iterator[tuple[str, str, str, bool]]:
    """The same for every kind of file of a data set, with `data.verify=full`."""
    whole = folder / "data"
    expected = list(dataset.stored(dataset.open_dataset(whole), "train"))
    fingerprint = dataset.open_dataset(whole).fingerprint
    for name, file in kinds(whole):
        for damage, apply in DAMAGE.items():
            copy = shutil.copytree(whole, folder / "copy")
            apply(copy / file.relative_to(whole))
            try:
                opened = dataset.open_dataset(copy)
                dataset.verify(opened, "full")
                found = list(dataset.stored(opened, "train"))
            except (DataError, ConfigError) as error:
                named = file.name in str(error)
                yield (
                    f"data/{name}",
                    damage,
                    f"exit {error.exit_code}: {_brief(error, copy)}",
                    named,
                )
            else:
                same = opened.fingerprint == fingerprint and all(
                    a["key"] == b["key"] and np.array_equal(a["image"], b["image"])
                    for a, b in zip(found, expected, strict=True)
                )
                read = "array_record" in name
                yield f"data/{name}", damage, "the same records", same and not read
            shutil.rmtree(copy)


def _brief(error: Exception, copy: Path) -> str:
    return str(error).replace(f"{copy}/", "")[:70]


def main() -> None:
    ArgumentParser(prog="python -m tests.corruption", description=__doc__).parse_args()
    failed = 0
    print(f"{'file':<58}{'damage':<8}outcome")
    with tempfile.TemporaryDirectory() as folder:
        for part in (checkpoints, data_sets):
            for name, damage, outcome, right in part(Path(folder)):
                failed += not right
                print(f"{name:<58}{damage:<8}{outcome}{'' if right else '   <-- NOT AS SPECIFIED'}")
    print("every damage came out as specified" if not failed else f"{failed} did not")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
