import shlex

from data_prep.sources.hints import not_understood
from data_prep.tables.columns import parse_map


def test_line_names_cells_and_the_flags_that_would_read_them():
    counted = {"view": {"portable": 12, "odd": 3}, "findings": {"Pneumothroax": 1, "x=y": 1}}
    view, findings = not_understood(counted, own=True)
    assert view == (
        "view: 'portable' × 12, 'odd' × 3 not understood, taken as unknown; if it fits: "
        "--map view:portable=AP --map view:odd=VALUE (VALUE is PA, AP, lateral or unknown)"
    )
    assert "--map findings:Pneumothroax=pneumothorax --map findings:x=y=VALUE" in findings
    assert "'other' for one without an attribute" in findings
    (edema,) = not_understood({"edema": {"+/-": 1}}, own=True)
    assert edema.endswith(
        "--map edema:+/-=uncertain (VALUE is present, absent, uncertain or unknown)"
    )
    published, _ = not_understood(counted, own=False)
    assert published == "view: 'portable' × 12, 'odd' × 3 not understood, taken as unknown"


def test_flags_can_be_pasted_into_a_shell():
    (line,) = not_understood({"age": {"> 89": 2}}, own=True)
    flags = shlex.split(line.partition("if it fits: ")[2].partition(" (")[0])
    assert parse_map(flags[1::2]) == {("age", "> 89"): "90"}


def test_many_or_long_cells_are_shortened():
    cells = {f"cell {i}": 1 for i in range(7)}
    (line,) = not_understood({"race": {"word " * 100: 9, **cells}}, own=True)
    assert "and 3 more not understood" in line
    assert "word " * 20 not in line
    assert line.count("--map") == 4
