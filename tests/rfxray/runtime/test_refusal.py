"""Hosts that differ, or of which one is refused: all end with one code and one line."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def stale(tmp_path):
    """A checkout in which one file is another."""
    for name in ("rfxray", "configs"):
        shutil.copytree(ROOT / name, tmp_path / "stale" / name)
    with (tmp_path / "stale/rfxray/objectives/flow.py").open("a") as file:
        file.write("# of another day\n")
    return tmp_path / "stale"


def same_line(lines: list[list[str]]) -> str:
    """The only line of every host."""
    (line,) = {line for each in lines for line in each}
    assert all(len(each) == 1 for each in lines), lines
    return line


def differing(what: str, n: int, arguments, data, other, stale, workdir):
    """Flags and folders of n hosts of which the last one differs, and what the line must name."""
    flags = [arguments(workdir, f"data.dirs={data}") for _ in range(n)]
    folders, named = {}, None
    if what == "config key":
        flags[-1].append("--config.optim.learning_rate=1e-3")
        named = f"config.optim.learning_rate is 0.001 on host {n - 1} and 0.002 on host"
    elif what == "runtime key":
        flags[-1].append("--config.model.remat=full")
        named = f"config.model.remat is 'full' on host {n - 1} and 'none' on host"
    elif what == "data set":
        flags[-1] = arguments(workdir, f"data.dirs={other}")
        named = f"({other}) on host {n - 1}"
    else:
        folders[n - 1] = stale
        named = "file rfxray/objectives/flow.py"
    return flags, folders, named


KINDS = ("config key", "runtime key", "data set", "checkout")
QUICK = {("runtime key", 2), ("checkout", 3)}  # the others are drills


@pytest.mark.parametrize(
    ("what", "n"),
    [
        pytest.param(what, n, marks=[] if (what, n) in QUICK else [pytest.mark.drill])
        for what in KINDS
        for n in (2, 3)
    ],
)
def test_hosts_that_differ_all_end_with_78_and_what_differs(
    end_of_hosts, tiny_arguments, tiny_data, other_data, stale, tmp_path, what, n
):
    flags, folders, named = differing(
        what, n, tiny_arguments, tiny_data, other_data, stale, tmp_path / "run"
    )
    codes, lines = end_of_hosts(flags, folders=folders)
    assert codes == [78] * n, lines
    line = same_line(lines)
    assert f"host {n - 1} differs from the others" in line or n == 2
    assert named in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("refused", "key", "code", "reason"),
    [
        (0, "modl.depth=3", 78, "host 0: no config key 'modl.depth'"),
        pytest.param(
            1, "modl.depth=3", 78, "host 1: no config key 'modl.depth'", marks=pytest.mark.drill
        ),
        pytest.param(0, "data.dirs=none", 65, "host 0: data set none", marks=pytest.mark.drill),
        pytest.param(1, "data.dirs=none", 65, "host 1: data set none", marks=pytest.mark.drill),
    ],
)
def test_refusal_of_one_host_before_the_run_ends_all_with_its_code(
    end_of_hosts, tiny_arguments, tiny_data, tmp_path, refused, key, code, reason
):
    flags = [tiny_arguments(tmp_path / "run", f"data.dirs={tiny_data}") for _ in range(2)]
    flags[refused].append(f"--config.{key}")
    codes, lines = end_of_hosts(flags)
    assert codes == [code, code], lines
    assert reason in same_line(lines)


@pytest.mark.drill
@pytest.mark.parametrize("refused", [0, 1])
def test_host_that_meets_a_damaged_record_ends_the_others_in_the_middle_of_a_step(
    end_of_hosts, tiny_arguments, tiny_data, damage_record, tmp_path, refused
):
    copy = shutil.copytree(tiny_data, tmp_path / "copy")
    damage_record(copy, 5)
    keys = ("steps=1000000", "log_every=1000", "checkpoint_every=0", "data.verify=none")
    flags = [tiny_arguments(tmp_path / "run", f"data.dirs={tiny_data}", *keys) for _ in range(2)]
    flags[refused].append(f"--config.data.dirs={copy}")
    codes, lines = end_of_hosts(flags)
    assert codes == [65, 65], lines
    assert f"host {refused}: record 5 of {copy}" in same_line(lines)
