from pathlib import Path

import pytest

from rfxray.config import schema
from rfxray.runtime import agreement

DATA = [(Path("/a"), "0123"), (Path("/b"), "4567")]


@pytest.fixture
def config(make_config):
    return make_config()


def test_every_key_is_compared_except_those_of_one_host(config):
    keys = schema.flatten(config).keys()
    assert set(agreement.LOCAL) <= keys
    compared = {
        k.removeprefix("config.") for k in agreement.facts(config, []) if k.startswith("config.")
    }
    assert compared == keys - set(agreement.LOCAL)


def test_no_key_that_another_host_waits_for_is_local():
    together = ("every", "steps", "mesh", "model", "accumulate", "batch", "keep", "minutes", "skip")
    assert not [
        k for k in agreement.LOCAL if k != "profile.steps" and any(t in k for t in together)
    ]


def test_source_versions_and_data_are_compared(config):
    found = agreement.facts(config, DATA)
    assert found["file rfxray/train.py"].startswith("SHA-256 ")
    assert found["config.data.dirs[1]"] == "fingerprint 4567\0 (/b)"
    assert found["version of jax"] != "not installed"
    assert found["jax_enable_x64"] == "False"
    assert not any("compilation_cache_dir" in name for name in found)


def test_files_of_a_foreign_kind_are_compared(tmp_path, monkeypatch):
    package = tmp_path / "lab_of_agreement"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text("class Net:\n    KEYS = {}\n")
    (package / "layers.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    config = schema.defaults(model="lab_of_agreement.nets:Net")
    before = agreement.facts(config, [])
    (package / "layers.py").write_text("WIDTH = 2\n")
    after = agreement.facts(config, [])
    assert {k for k in before if before[k] != after[k]} == {"file lab_of_agreement/layers.py"}


def test_difference_names_the_hosts_that_differ_from_most():
    groups = [([0], {"a": "1", "b": "x"}), ([1, 2], {"a": "2", "b": "x"})]
    line = agreement.difference(groups)
    assert line.startswith("host 0 differs from the others: a is 1 on host 0 and 2 on hosts 1, 2;")


def test_difference_lists_few_of_many_and_what_is_absent():
    here = {f"k{i}": "1" for i in range(5)}
    line = agreement.difference([([0, 1], here), ([2], {"k1": "1"})])
    assert line.startswith("host 2 differs from the others: k0 is absent on host 2 and 1 on hosts")
    assert "and 1 more" in line
    assert "k1 is" not in line


def test_paths_are_shown_and_not_compared():
    groups = [
        ([0], {"a": "1", "data": "f\0 (/here)"}),
        ([1], {"a": "2", "data": "f\0 (/there)"}),
    ]
    assert "data" not in agreement.difference(groups).partition(";")[0]
    groups[1][1]["data"] = "g\0 (/there)"
    assert "data is g (/there) on host 1 and f (/here) on host 0" in agreement.difference(groups)
