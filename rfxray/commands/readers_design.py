"""A page for each reader, from real radiographs and synthetic ones.

    rfxray readers design --study chest-1 --real data/held_out --synthetic out/samples \\
      --match view --cases 100 --readers 5 --key safe/key.json --out runs/study

A set is a data set of ours, a folder that `rfxray sample` wrote, or a folder of files with a CSV
(columns image and attributes). --out gets one page for each reader and the protocol; the key goes
to --key, outside of it. Images that leak what is synthetic are refused.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rfxray.command_line import (
    ArgumentParser,
    Progress,
    exit_on_error,
    local_path,
    refuse_unread,
    require,
)
from rfxray.errors import ConfigError
from rfxray.outputs import files, lock
from rfxray.readers import candidates, design, diagnosis, protocol, reader_page, sealing
from rfxray.readers.reader_page import STRINGS

COMMAND = "rfxray.readers.design"


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray readers design",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--study", required=True, help="name of the study")
    for kind in ("real", "synthetic"):
        p.add_argument(
            f"--{kind}", required=True, type=local_path, metavar="DIR", help=f"{kind} images"
        )
        p.add_argument(
            f"--{kind}-csv", type=local_path, metavar="FILE", help="table of a folder of files"
        )
    p.add_argument(
        "--degraded",
        type=int,
        default=0,
        metavar="N",
        help="real images with blur, noise, JPEG blocks or without their marker, among the cases, "
        "which attentive readers find (default: %(default)s)",
    )
    p.add_argument(
        "--reconstructed",
        type=local_path,
        metavar="DIR",
        help="reconstructions of real images under the same keys or file names",
    )
    p.add_argument(
        "--reconstructions",
        type=int,
        metavar="N",
        help="number of them to show among the cases (default: 10)",
    )
    p.add_argument("--cases", required=True, type=int, help="images, half synthetic, or pairs")
    p.add_argument("--readers", required=True, type=int, help="number of readers")
    p.add_argument(
        "--pairs", action="store_true", help="show a real and a synthetic image side by side"
    )
    p.add_argument(
        "--match",
        default="",
        metavar="NAME,NAME",
        help="attributes with equal values in both sets, such as view,sex,age_decade "
        "(default: none)",
    )
    p.add_argument(
        "--repeats",
        type=float,
        default=0.15,
        help="share of cases shown again at the end (default: %(default)s)",
    )
    p.add_argument(
        "--training", type=int, default=6, help="items with feedback first (default: %(default)s)"
    )
    p.add_argument(
        "--diagnosis",
        default="",
        metavar="NAME,NAME",
        help="first ask of each image, before the reader knows the question, whether it is normal "
        "and which of these findings it has; all: the 12 pathologies (default: no such phase)",
    )
    p.add_argument(
        "--images",
        choices=("page", "folder"),
        default="page",
        help="where images lie: in each page, or in a folder beside the pages, for large studies "
        "(default: %(default)s)",
    )
    p.add_argument(
        "--margin",
        type=float,
        default=0.05,
        help="margin of equivalence, for the protocol and its power (default: %(default)s)",
    )
    p.add_argument(
        "--model-grid",
        type=float,
        metavar="PIXELS",
        help="period at --size of a grid that the model itself makes, such as the side of its "
        "patches: readers may see it, so it does not block (default: every grid blocks)",
    )
    p.add_argument("--size", type=int, default=512, help="side in pixels (default: %(default)s)")
    p.add_argument("--strings", type=local_path, metavar="FILE", help="JSON of translated texts")
    p.add_argument("--key", required=True, type=local_path, metavar="FILE", help="new key file")
    p.add_argument(
        "--seal",
        action="store_true",
        help="encrypt the key; asks for a passphrase, without a terminal on stdin (default: no)",
    )
    p.add_argument("--out", required=True, type=local_path, metavar="DIR", help="new folder")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        wanted = design.Design(
            study=flags.study,
            modality="pairs" if flags.pairs else "single",
            cases=flags.cases,
            training=flags.training,
            readers=flags.readers,
            repeats=flags.repeats,
            match=tuple(name.strip() for name in flags.match.split(",") if name.strip()),
            size=flags.size,
            diagnosis=diagnosis.findings(flags.diagnosis),
            folder=flags.images == "folder",
            degraded=flags.degraded,
            reconstructed=_reconstructions(flags),
            margin=flags.margin,
            model_grid=flags.model_grid,
        )
        _refuse_places(flags.out, flags.key)
        strings = _strings(flags.strings)
        for table in filter(None, (flags.real_csv, flags.synthetic_csv)):
            if not table.is_file():
                raise ConfigError(f"{table} is not a file; give the CSV that describes the images")
        if flags.seal:
            require("seal", "cryptography")
        passphrase = sealing.ask_new() if flags.seal else ""
        print(f"{COMMAND}: {wanted.cases} cases for {wanted.readers} readers of {wanted.study}")
        real = candidates.find(flags.real, flags.real_csv, wanted.match)
        synthetic = candidates.find(flags.synthetic, flags.synthetic_csv, wanted.match)
        altered = [] if not flags.reconstructed else candidates.find(flags.reconstructed, None, ())
        images = (wanted.cases + wanted.training) * (2 if flags.pairs else 1)
        images += wanted.degraded + 2 * wanted.reconstructed
        with Progress(COMMAND, images) as progress:
            made = design.make(
                wanted,
                real,
                synthetic,
                np.random.default_rng(),
                strings,
                progress.advance,
                altered,
            )
        page = protocol.text(wanted, made)
        for what, number in made.left_out.items():
            print(f"left out: {number} {what}")
        content = sealing.seal(made.key, passphrase) if flags.seal else made.key
        with files.saving(flags.out):
            flags.out.mkdir(parents=True, exist_ok=True)
            with lock.locked(flags.out):
                _refuse_places(flags.out, flags.key)  # another process may have been faster
                _write(flags.out, flags.key, content, made, page)
        print(f"wrote {len(made.pages)} pages and protocol.md into {flags.out}, key {flags.key}")


def _write(out: Path, key: Path, content: bytes, made: design.Made, page: str) -> None:
    """The key first, so that no page is without it, and the protocol last: a study is complete."""
    with files.saving(key):
        key.parent.mkdir(parents=True, exist_ok=True)
        before = os.umask(0o077)
        try:
            files.write_whole(key, content)
        finally:
            os.umask(before)
    try:
        if made.images:
            (out / reader_page.FOLDER).mkdir()
        for name, sheet in made.images.items():
            files.write_whole(out / reader_page.FOLDER / name, sheet)
        for reader, html in made.pages.items():
            files.write_whole(out / f"{reader}.html", html)
        files.write_whole(out / "protocol.md", page)
    except OSError:  # the same command begins again
        for path in out.iterdir():
            if not lock.is_lock(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        key.unlink(missing_ok=True)
        raise


def _reconstructions(flags: argparse.Namespace) -> int:
    if flags.reconstructed is None:
        refuse_unread(flags, ["reconstructions"], "a study without --reconstructed")
        return 0
    return 10 if flags.reconstructions is None else flags.reconstructions


def _refuse_places(out: Path, key: Path) -> None:
    if out.exists() and (not out.is_dir() or not all(map(lock.is_lock, out.iterdir()))):
        unfinished = out.is_dir() and not (out / "protocol.md").exists()
        why = " and has no protocol.md: a study that was interrupted?" if unfinished else ""
        raise ConfigError(f"{out} is not empty{why}; delete it, or choose another --out")
    if key.exists():
        raise ConfigError(f"{key} exists; a key is written once, choose another --key")
    if key.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"--key {key} is inside --out, which readers get; keep it elsewhere")


def _strings(file: Path | None) -> dict[str, str]:
    if file is None:
        return STRINGS
    try:
        found = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{file} is not JSON of texts by name ({error})") from error
    if unknown := sorted(set(found) - set(STRINGS)):
        raise ConfigError(f"{file} has an unknown text {unknown[0]!r}; names: {', '.join(STRINGS)}")
    return {**STRINGS, **{name: str(text) for name, text in found.items()}}


if __name__ == "__main__":
    main()
