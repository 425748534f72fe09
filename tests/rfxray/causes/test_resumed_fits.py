import errno
import json
import os
import shutil

import pytest

from rfxray.causes import fitting, folder, parts
from rfxray.commands import causes_fit
from rfxray.outputs import files, lock
from tests.rfxray.causes.test_commands import fit, place

__all__ = ["place"]  # the fixture


class Killed(BaseException):
    """What no handler of the command catches: as a kill, it leaves all as it lies."""


class Dying:
    """A module of which some functions die after so many calls, all together."""

    def __init__(self, module, names, left):
        self._module, self._names, self._left = module, names, left

    def __getattr__(self, name):
        do = getattr(self._module, name)

        def dies(*given, **more):
            if not self._left[0]:
                raise Killed
            self._left[0] -= 1
            return do(*given, **more)

        return dies if name in self._names else do


def test_a_fit_that_is_killed_at_any_moment_goes_on_to_the_same_files(place, monkeypatch, capsys):
    """Killed before each file gets its name, on and on in one folder: 8 parts, 4 files."""
    left = [0]
    monkeypatch.setattr(files, "os", Dying(os, ["replace"], left))
    monkeypatch.setattr(parts, "shutil", Dying(shutil, ["rmtree"], left))
    for allowed in (0, *[1] * 8, 1, 2, 3):
        left[0] = allowed
        with pytest.raises(Killed):
            fit(place, "killed")
        assert not folder.is_model(place / "killed")
    left[0] = 4
    with pytest.raises(Killed):
        fit(place, "killed")
    assert (place / "killed" / "parts").is_dir()
    assert "goes on: 3 parts of this fit are there" in capsys.readouterr().out
    left[0] = 1
    fit(place, "killed")
    assert "holds the model of this table and graph already" in capsys.readouterr().out
    same(place / "model", place / "killed")


def same(one, other):
    """Asserts that two folders hold the same files."""
    names = [sorted(path.name for path in of.iterdir()) for of in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def begun(place, monkeypatch, out, kept, **more):
    """A fit that was killed once so many of its parts were there."""
    calls, fit_one = [], fitting.fit_one

    def dies(*given):
        if len(calls) == kept:
            raise Killed
        calls.append(given)
        return fit_one(*given)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit_one", dies)
        with pytest.raises(Killed):
            fit(place, out, **more)


def test_parts_of_another_graph_or_damaged_ones_are_fitted_again(place, monkeypatch, capsys):
    other = {"parents": {"cardiomegaly": ["age"], "pleural_effusion": ["cardiomegaly", "sex"]}}
    (place / "other.json").write_text(json.dumps(other))
    begun(place, monkeypatch, "other", 4, graph="other.json")
    begun(place, monkeypatch, "other", 2)
    printed = capsys.readouterr().out
    assert "4 parts in" in printed
    assert "are damaged, or of another table, graph, option or version" in printed
    part = place / "other" / "parts" / "flow-sex.part"
    content = bytearray(part.read_bytes())
    content[-3] ^= 1
    part.write_bytes(content)
    fit(place, "other")
    printed = capsys.readouterr().out
    assert "3 parts in" in printed  # two of the first fit, and the damaged one
    assert "goes on: 1 parts" in printed
    same(place / "model", place / "other")


def test_a_finished_fit_is_left_as_it_is_and_a_damaged_one_fitted_again(place, capsys):
    fit(place, "twice")
    files_of = {path: path.stat().st_mtime_ns for path in (place / "twice").iterdir()}
    fit(place, "twice")
    assert "holds the model of this table and graph already" in capsys.readouterr().out
    assert files_of == {path: path.stat().st_mtime_ns for path in (place / "twice").iterdir()}
    (place / "twice" / folder.GRAPH).write_text("{")
    fit(place, "twice")
    assert "is damaged: it is fitted again" in capsys.readouterr().out
    same(place / "model", place / "twice")


def test_two_fits_of_one_folder_exclude_each_other(place, refusal):
    (place / "held").mkdir()
    flags = ["--data", str(place / "table.csv"), "--graph", str(place / "graph.json")]
    with lock.locked(place / "held"):
        code, line = refusal(causes_fit.main, [*flags, "--out", str(place / "held")])
    assert (code, "another process is writing" in line) == (78, True)
    assert list((place / "held").iterdir()) == []


def test_a_full_disk_ends_a_fit_that_then_goes_on(place, monkeypatch, refusal):
    written, count = files.Path.write_bytes, [0]

    def full(path, content):
        count[0] += 1
        if count[0] > 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return written(path, content)

    flags = ["--data", str(place / "table.csv"), "--graph", str(place / "graph.json")]
    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "write_bytes", full)
        code, line = refusal(causes_fit.main, [*flags, "--out", str(place / "full")])
    assert (code, "check free space" in line) == (75, True)
    assert len(list((place / "full" / "parts").iterdir())) == 3
    fit(place, "full")
    same(place / "model", place / "full")


def test_a_refused_table_leaves_nothing(place, refusal):
    """The variable that never varies comes last, when parts of others are there."""
    head, *rows = (place / "table.csv").read_text().splitlines()
    column = head.split(",").index("pleural_effusion")
    lines = [head]
    for row in rows:
        cells = row.split(",")
        cells[column] = "absent"
        lines.append(",".join(cells))
    (place / "constant.csv").write_text("\n".join(lines) + "\n")
    flags = ["--data", str(place / "constant.csv"), "--graph", str(place / "graph.json")]
    code, line = refusal(causes_fit.main, [*flags, "--out", str(place / "refused")])
    assert (code, "pleural_effusion" in line) == (65, True)
    assert not (place / "refused").exists()
