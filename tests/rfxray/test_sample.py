from pathlib import Path

import pytest

from rfxray import edit, sample
from rfxray.sampling.requests import Requests
from rfxray.sampling.sampler import Settings
from rfxray.sampling.tables import Table

NEEDED = ["--checkpoint", "run", "--out", "out"]


def request(*flags: str) -> sample.SampleRequest:
    words = [*NEEDED, *flags]
    return sample.request_of(sample.parser().parse_args(words), words)


def test_the_flags_become_one_typed_request():
    asked = request("--set", "view=PA", "--steps", "8", "--interval", "0.1,0.9", "--n", "3")
    assert (asked.checkpoint, asked.out) == (Path("run"), Path("out"))
    assert asked.settings == Settings(guidance=2.0, steps=8, interval=(0.1, 0.9))
    assert isinstance(asked.asks, Requests)
    assert asked.plan.n == 3
    assert asked.words == [*NEEDED, *asked.words[4:]]


def test_a_grid_is_a_table_of_every_cell():
    asked = request("--grid", "sex=F,M", "--grid", "age=20,50,80", "--n", "2")
    assert isinstance(asked.asks, Table)
    assert asked.asks.images == 12
    assert asked.asks.indices().tolist() == [0] * 6 + [1] * 6


def test_the_weak_network_and_foreign_kinds_are_parsed():
    asked = request("--autoguide", "0.10@1000", "--allow-kind", "a.b:c", "--allow-kind", "d:e")
    assert asked.weak == (0.1, 1000)
    assert asked.allow_kinds == ["a.b:c", "d:e"]
    assert request("--autoguide", "0.10").weak == (0.1, None)


@pytest.mark.parametrize("command", [sample, edit])
def test_every_flag_says_what_it_is_and_its_default(command):
    for action in command.parser()._actions:
        if action.dest == "help":
            continue
        assert action.help, action.option_strings
        assert action.required or "default" in action.help, action.option_strings


@pytest.mark.parametrize("command", [sample, edit])
def test_help_can_be_printed(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.parser().parse_args(["--help"])
    assert stopped.value.code == 0
    assert "--allow-kind" in capsys.readouterr().out
