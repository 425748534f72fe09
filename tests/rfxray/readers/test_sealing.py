"""A sealed key: it opens by its passphrase, to the content of which the hash was registered."""

import getpass
import hashlib
import io
import json
import sys

import pytest

pytest.importorskip("cryptography", reason="the extra seal")

from rfxray.commands import readers as command
from rfxray.errors import ConfigError, DataError
from rfxray.readers import key, sealing

PASSPHRASE = "twelve or more"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """128 MB a guess would be two seconds of these tests."""
    monkeypatch.setattr(sealing, "COST", {"n": 2**10, "r": 8, "p": 1})


def typed(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text + "\n"))


def test_sealed_key_hides_its_content_and_keeps_its_hash(simulated):
    folder = simulated()
    content = folder.key.read_bytes()
    sealed = sealing.seal(content, PASSPHRASE)
    assert json.loads(content)["nonce"].encode() not in sealed
    assert b"truth" not in sealed
    assert sealing.seal(content, PASSPHRASE) != sealed
    folder.key.write_bytes(sealed)
    found = key.read(folder.key, lambda: PASSPHRASE)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert len(found.cases) == 40


def test_plain_key_asks_for_nothing(simulated):
    def never():
        raise AssertionError("a plain key needs no passphrase")

    assert key.read(simulated().key, never).modality == "single"


def test_analysis_opens_a_sealed_key_and_refuses_a_wrong_passphrase(
    simulated, tmp_path, monkeypatch, refusal, capsys
):
    folder = simulated()
    registered = hashlib.sha256(folder.key.read_bytes()).hexdigest()
    folder.key.write_bytes(sealing.seal(folder.key.read_bytes(), PASSPHRASE))
    words = ["analyse", *map(str, folder.answers), "--key", str(folder.key)]
    typed(monkeypatch, "another passphrase")
    code, line = refusal(command.main, [*words, "--out", tmp_path / "a"])
    assert code == 65
    assert "the passphrase is wrong, or the file was changed" in line
    typed(monkeypatch, PASSPHRASE)
    command.main([*words, "--out", str(tmp_path / "b")])
    assert "wrote" in capsys.readouterr().out
    assert registered in (tmp_path / "b" / "analysis.html").read_text()
    numbers = json.loads((tmp_path / "b" / "results.json").read_text())
    assert numbers["opened_key_sha256"] == registered


def test_key_that_was_sealed_after_a_change_is_another_key(
    simulated, tmp_path, refusal, monkeypatch
):
    """Whoever knows the passphrase can seal another truth, but not under the registered hash."""
    folder = simulated()
    content = json.loads(folder.key.read_text())
    content["cases"]["c0001"]["truth"] = 1 - content["cases"]["c0001"]["truth"]
    folder.key.write_bytes(sealing.seal(json.dumps(content).encode(), PASSPHRASE))
    typed(monkeypatch, PASSPHRASE)
    words = ["analyse", *map(str, folder.answers), "--key", str(folder.key)]
    code, line = refusal(command.main, [*words, "--out", tmp_path / "a"])
    assert code == 65
    assert "give the key that was sealed before the reading" in line


@pytest.mark.parametrize("damage", ["salt", "content", "n"])
def test_damaged_seal_is_refused(tmp_path, damage):
    found = json.loads(sealing.seal(b"{}", PASSPHRASE))
    found[damage] = {"salt": "xy", "content": found["content"][:-8], "n": 2**40}[damage]
    (tmp_path / "key.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match=r"damaged key|does not open"):
        key.read(tmp_path / "key.json", lambda: PASSPHRASE)


def test_short_and_mistyped_passphrases_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="has 5 characters; give at least 12"):
        sealing.seal(b"{}", "short")
    answers = iter([PASSPHRASE, "something else"])
    monkeypatch.setattr(getpass, "getpass", lambda _: next(answers))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(ConfigError, match="passphrases differ"):
        sealing.ask_new()
