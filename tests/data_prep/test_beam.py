import sys

import pytest

from data_prep.harmonise import main
from tests.data_prep import raw_trees
from tests.data_prep.test_harmonise import arguments, fails, hashes


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    roots = raw_trees.write(tmp_path_factory.mktemp("raw"))
    return {name: roots[name] for name in ("chexpert", "padchest", "nih")}


def test_missing_beam_names_the_extra_to_install(roots, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    argv = [*arguments(roots, tmp_path / "out"), "--beam="]
    assert "pip install 'rfxray[prep,beam]'" in fails(argv, 78, capsys)


def test_beam_writes_the_same_bytes_as_processes(roots, tmp_path):
    pytest.importorskip("apache_beam", reason="Apache Beam (extra beam) is not installed")
    main(arguments(roots, tmp_path / "processes"))
    main([*arguments(roots, tmp_path / "beam"), "--beam=--runner=DirectRunner"])
    assert hashes(tmp_path / "beam") == hashes(tmp_path / "processes")


def test_beam_resumes_what_processes_left_unfinished(roots, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam", reason="Apache Beam (extra beam) is not installed")
    main(arguments(roots, tmp_path / "whole"))
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("rfxray.data.writing.publish", lambda *_: pytest.exit("killed"))
        with pytest.raises(BaseException, match="killed"):
            main(arguments(roots, out))
    for written in sorted((out / "partial").glob("*.json"))[::2]:
        written.unlink()
    main([*arguments(roots, out), "--beam="])
    assert hashes(out) == hashes(tmp_path / "whole")
