"""Several processes that sample into one folder: the same images as one, and one publishes."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from rfxray import edit
from rfxray.outputs import files
from rfxray.runtime import distributed, supervise

FLAGS = ("--steps", "3", "--solver", "euler", "--batch-size", "4", "--set", "view=PA")


@pytest.fixture
def sample(trained, end_of_hosts, run_module):
    """`sample(out, n, *flags, hosts, **how)`: exit codes and lines of `rfxray.sample`."""

    def run(out: Path, n: int, *flags: str, hosts: int = 2, each=(), **how):
        words = ["--checkpoint", str(trained), "--out", str(out), "--n", str(n), *FLAGS, *flags]
        if hosts == 1:
            done = run_module("rfxray.sample", *words)
            assert done.returncode == 0, done.stderr
            return [0], [[]]
        return end_of_hosts(
            [[*words, *(each[host] if each else ())] for host in range(hosts)],
            command="rfxray.sample",
            **how,
        )

    return run


def index(out: Path) -> list[dict]:
    """Entries of `samples.json`, without what depends on a level of the pixels."""
    entries = json.loads((out / "samples.json").read_text())["pictures"]
    return [{k: v for k, v in entry.items() if "sha256" not in k} for entry in entries]


def same_images(one: Path, two: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir())
    for name in (name for name in names if name.startswith("sample_")):
        a, b = (files.read_png(folder / name).astype(int) for folder in (one, two))
        assert np.abs(a - b).max() <= 1, name
    assert index(one) == index(two)


def test_two_hosts_sample_the_same_16_images_as_one(sample, tmp_path):
    codes, lines = sample(tmp_path / "two", 16)
    assert codes == [0, 0], lines
    sample(tmp_path / "one", 16, hosts=1)
    same_images(tmp_path / "one", tmp_path / "two")


@pytest.mark.drill
def test_three_hosts_write_the_same_data_set_as_one(sample, tmp_path):
    kind = ("--format", "array_record")
    codes, lines = sample(tmp_path / "three", 9, *kind, hosts=3)
    assert codes == [0, 0, 0], lines
    sample(tmp_path / "one", 9, *kind, hosts=1)
    names = [sorted(p.name for p in (tmp_path / k).iterdir()) for k in ("one", "three")]
    assert names[0] == names[1]
    assert index(tmp_path / "one") == index(tmp_path / "three")


@pytest.mark.drill
def test_hosts_of_which_one_is_asked_to_stop_all_end_with_75(sample, tmp_path):
    out = tmp_path / "two"
    codes, lines = sample(
        out, 400, killed=lambda: len([*out.glob("parts/*.json")]) > 2, by=signal.SIGTERM
    )
    assert codes == [75, 75], lines
    for ended in lines:
        assert len(ended) == 1
        assert "asked to by SIGTERM; rerun the command to continue" in ended[0]
    assert not (out / "samples.json").exists()


@pytest.mark.drill
@pytest.mark.parametrize("again", [1, 2])
def test_hosts_of_which_one_is_killed_resume_to_the_same_images(sample, tmp_path, again):
    """Also on another number of hosts."""
    out, n = tmp_path / "two", 200
    codes, _ = sample(
        out,
        n,
        killed=lambda: len([*out.glob("parts/*.json")]) > 4,
        variables={host: {"RFXRAY_HEARTBEAT_TIMEOUT": "10"} for host in range(2)},
    )
    assert codes[1] == -9
    assert supervise.outcome(codes[0])[0] == 75
    assert not (out / "samples.json").exists()
    codes, lines = sample(out, n, hosts=again)
    assert codes == [0] * again, lines
    sample(tmp_path / "one", n, hosts=1)
    same_images(tmp_path / "one", out)


@pytest.mark.drill
def test_hosts_that_are_asked_for_different_images_all_end_with_78(sample, tmp_path):
    codes, lines = sample(tmp_path / "out", 16, each=((), ("--seed", "3")))
    assert codes == [78, 78], lines
    assert lines[0] == lines[1]
    assert "host 1: " in lines[0][0]
    assert "different settings of: seed" in lines[0][0]


@pytest.mark.drill
def test_refusal_of_one_host_ends_the_others(sample, tmp_path):
    codes, lines = sample(tmp_path / "out", 16, each=((), ("--ema", "0.07")))
    assert codes == [78, 78], lines
    assert lines[0] == lines[1]


def test_edit_on_several_hosts_is_refused_in_one_line(refusal, monkeypatch, trained, tmp_path):
    for name, value in (("COORDINATOR_ADDRESS", "localhost:1"), ("NUM_PROCESSES", "2")):
        monkeypatch.setenv(f"JAX_{name}", value)
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    monkeypatch.setattr(distributed, "start", lambda: pytest.fail("joins the others"))
    words = ["--checkpoint", trained, "--image", "x.png", "--set", "view=PA", "--out", tmp_path]
    code, line = refusal(edit.main, words)
    assert code == 78
    assert "rfxray.edit works in one process, and this is one of several hosts" in line
