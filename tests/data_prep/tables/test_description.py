from pathlib import Path

import pytest

from data_prep.tables.description import Given, describe
from rfxray.errors import ConfigError

TABLE = Given("metadata", Path("table.csv"))
IMAGE = Given("column", "image=file")


def test_flags_describe_a_table():
    given = [Given("findings", "Labels"), IMAGE, TABLE, Given("map", "findings:big=cardiomegaly")]
    described = describe("nih", [*given, Given("closed-list", "Edema, Mass")])
    assert described.metadata == Path("table.csv")
    assert described.columns == {"image": "file", "findings": "Labels"}
    assert described.mapped == {("findings", "big"): "cardiomegaly"}
    assert described.source == "nih"
    assert described.closed == ("Edema", "Mass")
    assert "table.csv" not in str(described.options)
    assert described.options != describe("nih", given).options


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([IMAGE], "mine needs its table: --metadata FILE.csv"),
        ([TABLE, TABLE], "--metadata is given twice for mine"),
        ([TABLE, Given("findings", "a"), Given("findings", "b")], "--findings is given twice"),
        ([TABLE, Given("closed-list", "seen")], "name it: --findings HEADER"),
        ([TABLE, Given("map", "findings:a=edema")], "name it: --findings HEADER"),
        ([TABLE, Given("map", "view:a=AP")], "name it: --column view=HEADER"),
        ([TABLE, Given("set-source", "unknown")], "always known"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        describe("mine", given)
