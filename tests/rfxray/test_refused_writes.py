"""A disk that refuses, at any call of any command: one line, its code, and nothing lost."""

import errno
import itertools
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.phantom import __main__ as phantom
from rfxray import edit, sample, train
from rfxray.commands import encode
from tests import conftest, full_disk

ROOT = Path(__file__).resolve().parents[2]
CODES = {
    errno.ENOSPC: 75,
    errno.EDQUOT: 75,
    errno.EIO: 75,
    errno.EROFS: 78,
    errno.EACCES: 78,
}


def run(main, argv, capfd) -> int:
    """The exit code of a command, which says at most one line about its end."""
    capfd.readouterr()
    code = 0
    with conftest.keep_signal_handlers():
        try:
            main([str(word) for word in argv])
        except SystemExit as end:
            code = end.code or 0
    error = capfd.readouterr().err
    assert "Traceback" not in error, error
    said = [line for line in error.splitlines() if ": error: " in line]
    assert len(said) == bool(code), error
    return code


def rows(workdir: Path) -> dict[int, float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in lines}


# Every second call of a start up to its first checkpoint, then some of each later kind.
ALL = (*range(0, 24, 2), *range(25, 136, 9))


@pytest.mark.parametrize("calls", [(4, 40), pytest.param(ALL, marks=pytest.mark.drill)])
def test_training_on_a_disk_that_refuses_says_so_and_loses_no_row(
    tiny_arguments, tiny_data, tmp_path, capfd, calls
):
    steps = 4 if len(calls) < 9 else 60
    keys = (f"data.dirs={tiny_data}", f"steps={steps}", "log_every=1")
    keys = (*keys, "checkpoint_every=2", "ema_every=2")
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert run(train.main, tiny_arguments(whole, *keys), capfd) == 0
    for first, number in zip(calls, itertools.cycle(CODES)):
        with full_disk.refusing(torn, first, number):
            code = run(train.main, tiny_arguments(torn, *keys), capfd)
        assert code == CODES[number], (first, number)
    assert run(train.main, tiny_arguments(torn, *keys), capfd) == 0
    assert rows(torn) == rows(whole)
    assert sorted(rows(torn)) == list(range(1, steps + 1))


DRAW = ("--n", "4", "--solver", "euler", "--steps", "2", "--batch-size", "2")
EDIT = ("--set", "cardiomegaly=present", "--steps", "2", "--method", "flow", "--dicom")
PHANTOM = ("--n", "20", "--size", "32", "--validation", "0.2")
ENCODE = ("--batch-size", "12", "--shard-examples", "16")
COMMANDS = {
    "png": (sample.main, DRAW),
    "dicom": (sample.main, (*DRAW, "--format", "dicom")),
    "array_record": (sample.main, (*DRAW, "--format", "array_record")),
    "grid": (sample.main, ("--grid", "sex=F,M", "--n", "2", *DRAW[2:])),
    "edit": (edit.main, EDIT),
    "phantom": (phantom.main, PHANTOM),
    "encode": (encode.main, ENCODE),
}


@pytest.fixture
def radiograph(tmp_path) -> Path:
    shades = np.add.outer(np.arange(48), np.arange(40)).astype(np.uint8)
    Image.fromarray(2 * shades).save(tmp_path / "chest.png")
    return tmp_path / "chest.png"


def content(folder: Path) -> dict[str, bytes]:
    """Files of a folder by name; those of JSON and HTML, and of edits, hold the command."""
    files = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    command = (".json", ".html", "edited.png", "edited.dcm")
    return {k: b"" if k.endswith(command) else v for k, v in files.items()}


@pytest.mark.parametrize(
    ("command", "step"),
    [
        pytest.param(command, step, marks=pytest.mark.drill if step == 1 else ())
        for command in COMMANDS
        for step in (1, 1000)
    ],
)
def test_command_on_a_disk_that_refuses_says_so_and_continues(
    trained, tiny_data, tiny_vae, radiograph, tmp_path, capfd, command, step
):
    main, flags = COMMANDS[command]
    images = ("--data", tiny_data, "--vae", tiny_vae)
    model = {"phantom": (), "encode": images}.get(command, ("--checkpoint", trained))
    shown = ("--image", radiograph) if command == "edit" else ()
    words = (*model, *shown, *flags, "--out")
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    with full_disk.refusing(whole, 10**9, errno.ENOSPC) as calls:
        assert run(main, [*words, whole], capfd) == 0
    total = len(calls)
    for first, number in zip(
        range(total - 1 if step > 1 else 0, total, step), itertools.cycle(CODES)
    ):
        with full_disk.refusing(torn, first, number):
            code = run(main, [*words, torn], capfd)
        assert code in (0, CODES[number]), (first, number)
    assert run(main, [*words, torn], capfd) == 0
    assert content(torn) == content(whole)


@pytest.mark.drill
@pytest.mark.parametrize("command", ["train", "phantom", "sample"])
def test_library_in_cpp_that_meets_a_limit_is_one_line_and_the_command_continues(
    environment, tiny_arguments, tiny_data, trained, tmp_path, command
):
    """TensorStore and ArrayRecord write by themselves; the system ends their files at a limit."""
    out = tmp_path / "out"
    keys = (f"data.dirs={tiny_data}", "steps=4", "log_every=1", "checkpoint_every=2")
    draw = (*DRAW[2:], "--n", "64", "--format", "array_record", "--checkpoint", str(trained))
    words = {
        "train": ["rfxray.train", *tiny_arguments(out, *keys)],
        "phantom": ["data_prep.phantom", "--n", "70", "--size", "32", "--out", str(out)],
        "sample": ["rfxray.sample", *draw, "--out", str(out)],
    }[command]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}  # of which a file is too large

    def start(limit: int) -> subprocess.CompletedProcess:
        most = (limit, resource.RLIM_INFINITY)
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env={**environment(), **cache},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, most),
            capture_output=True,
            text=True,
            timeout=300,
        )

    refused = start(30_000)
    assert refused.returncode == 75, refused.stderr[-3000:]
    assert "Traceback" not in refused.stderr
    assert sum(": error: " in line for line in refused.stderr.splitlines()) == 1, refused.stderr
    done = start(resource.RLIM_INFINITY)
    assert done.returncode == 0, done.stderr
    if command == "train":
        assert sorted(rows(out)) == [1, 2, 3, 4]
