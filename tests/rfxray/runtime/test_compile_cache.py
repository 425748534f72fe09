"""The folder of compiled programs, on machines with and without a home."""

import os
import pwd
from pathlib import Path

import jax
import pytest

from rfxray.runtime import compile_cache

VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "RFXRAY_CACHE", "XDG_CACHE_HOME", "HOME")


@pytest.fixture
def home_of(monkeypatch):
    """`home_of(HOME=…)`: sets these variables and removes the other ones."""

    def choose(**given: str) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return choose


@pytest.fixture
def cache(monkeypatch):
    """What `start` sets in the configuration of JAX, which stays as it is."""
    found = {}
    monkeypatch.setattr(jax.config, "update", found.__setitem__)
    return found


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({"JAX_COMPILATION_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/a"),
        ({"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, None),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/rfxray/jax"),
        ({"RFXRAY_CACHE": "/r", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/r/jax"),
        ({"RFXRAY_CACHE": "r", "HOME": "/h"}, "/h/.cache/rfxray/jax"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/rfxray/jax"),
        ({"XDG_CACHE_HOME": "x/y", "HOME": "/h"}, "/h/.cache/rfxray/jax"),
        ({"HOME": "/h ö'\""}, "/h ö'\"/.cache/rfxray/jax"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/rfxray/jax"),
    ],
)
def test_cache_lies_where_the_first_variable_says_that_holds_an_absolute_path(
    home_of, given, folder
):
    home_of(**given)
    assert compile_cache.folder() == (folder and Path(folder))


@pytest.mark.parametrize("variables", [{}, {"HOME": ""}, {"HOME": "h"}, {"XDG_CACHE_HOME": "c"}])
def test_user_without_a_home_has_no_cache_and_one_line(
    home_of, cache, monkeypatch, capsys, tmp_path, variables
):
    def absent(uid):
        raise KeyError(uid)

    home_of(**variables)
    monkeypatch.setattr(pwd, "getpwuid", absent)
    monkeypatch.chdir(tmp_path)
    compile_cache.start()
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no home folder; set JAX_COMPILATION_CACHE_DIR" in line
    assert not list(tmp_path.iterdir())
    assert cache == {}


def test_cache_that_was_turned_off_is_not_mentioned(home_of, cache, capsys):
    home_of(JAX_COMPILATION_CACHE_DIR="", HOME="/h")
    compile_cache.start()
    assert capsys.readouterr().err == ""
    assert cache == {}


def test_cache_that_cannot_be_written_is_not_used(home_of, cache, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    home_of(HOME=str(tmp_path / "file"))
    compile_cache.start()
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be created (Not a directory)" in line
    assert cache["jax_compilation_cache_dir"] is None

    home_of(HOME=str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    compile_cache.start()
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
    assert cache["jax_compilation_cache_dir"] is None
