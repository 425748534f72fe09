import json

import numpy as np
import pytest

from data_prep.phantom import dataset
from rfxray.causes import folder, tables
from rfxray.causes.graph import read_graph
from rfxray.commands import causes, causes_ask, causes_fit

SMALL = {"parents": {"cardiomegaly": ["age", "sex"], "pleural_effusion": ["cardiomegaly"]}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a table, a graph and a model."""
    place = tmp_path_factory.mktemp("causes")
    dataset.write_table(place / "table.csv", "additive", 3000, 0)
    (place / "graph.json").write_text(json.dumps(SMALL))
    fit(place, "model")
    return place


def fit(place, out, data="table.csv", graph="graph.json"):
    flags = ["--data", str(place / data), "--graph", str(place / graph), "--out", str(place / out)]
    causes.main(["fit", *flags])


def ask(place, *flags, model="model"):
    causes.main(["ask", "--model", str(place / model), *flags])


def test_a_fit_writes_a_folder_that_is_read_back(place):
    model, record = folder.load(place / "model")
    assert set(model.mechanisms) == {"age", "sex", "cardiomegaly", "pleural_effusion"}
    assert record["table"]["rows"] == 3000
    assert record["held_out"]["cardiomegaly"]["rows"] > 200
    assert {path.name for path in (place / "model").iterdir()} == {
        *(folder.GRAPH, folder.PAGE, folder.RECORD, folder.TENSORS),
    }
    page = (place / "model" / "page.html").read_text()
    for text in ("cardiomegaly", "unseen trait acts on two variables", "age: 40 → 75", "<svg"):
        assert text in page


def test_the_same_table_and_graph_give_the_same_files_without_a_patient(place):
    fit(place, "again")
    for path in sorted((place / "model").iterdir()):
        content = path.read_bytes()
        assert (place / "again" / path.name).read_bytes() == content
        assert b"p0000" not in content
        assert str(place).encode() not in content


def test_a_damaged_model_is_detected(place, refusal):
    broken = place / "broken"
    broken.mkdir()
    for path in (place / "model").iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    content = bytearray((broken / folder.TENSORS).read_bytes())
    content[-5] ^= 1
    (broken / folder.TENSORS).write_bytes(content)
    flags = ["--model", str(broken), "--do", "age=80", "--of", "cardiomegaly"]
    code, line = refusal(causes_ask.main, flags)
    assert (code, "is not the file that causes.json names" in line) == (65, True)


def test_a_question_is_answered_with_intervals_and_an_e_value(place, capsys):
    ask(place, "--do", "age=80", "--versus", "age=40", "--of", "pleural_effusion")
    first, second, third = capsys.readouterr().out.splitlines()
    assert "P(pleural_effusion=present) 0." in first
    assert "under age=80" in first
    assert "under age=40" in first
    assert "difference +0." in second
    assert "E-value 1." in third
    ask(place, "--do", "age=80", "--of", "pleural_effusion", "--through", "cardiomegaly")
    assert "age=80 through cardiomegaly" in capsys.readouterr().out


def test_groups_evidence_and_several_models(place, capsys):
    flags = ["--do", "age=80", "--of", "cardiomegaly", "--given", "cardiomegaly=absent"]
    ask(place, *flags, "--by", "sex", "--model", str(place / "model"))
    printed = capsys.readouterr().out
    assert printed.count("sex=F: P(") == printed.count("sex=M: P(") == 2
    assert printed.count("graph without a name") == 2
    assert "0.0000 under no intervention" in printed
    assert "E-value" not in printed  # the evidence says what is compared with


def test_evidence_like_few_rows_is_warned_of(place, capsys):
    ask(place, "--do", "age=94", "--given", "sex=M", "--of", "cardiomegaly")
    assert "warning: about" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--do", "age=150", "--of", "edema"], "no variable edema"),
        (["--do", "age=150", "--of", "cardiomegaly"], "age=150 is not a number of years"),
        (["--do", "age=119", "--of", "cardiomegaly"], "outside of what the table shows"),
        (["--do", "age", "--of", "cardiomegaly"], "not NAME=VALUE"),
        (["--do", "age=1", "--do", "age=2", "--of", "cardiomegaly"], "given twice"),
        (["--do", "age=unknown", "--of", "cardiomegaly"], "is not a value"),
        (["--do", "age=60", "--of", "age=50"], "asks for its mean"),
        (["--do", "age=60", "--of", "cardiomegaly="], "no value ''"),
        (["--do", "age=60", "--of", "cardiomegaly", "--by", "age"], "must have categories"),
        (["--do", "sex=M", "--of", "cardiomegaly", "--given-after", "sex=F"], "sex is set"),
    ],
)
def test_bad_questions_exit_with_one_line(place, refusal, flags, part):
    code, line = refusal(causes_ask.main, ["--model", str(place / "model"), *flags])
    assert code == 78
    assert part in line


@pytest.mark.parametrize(
    ("table", "graph", "code", "part"),
    [
        ("age,edema\n", SMALL, 65, "has no rows"),
        ("a,b\n1,2\n", SMALL, 65, "no column that is named"),
        ("age,cardiomegaly\n50\n", SMALL, 65, "line 2: 1 cells under 2 columns"),
        ("age,cardiomegaly\n50,maybe?!\n", SMALL, 65, "line 2: cardiomegaly has no value"),
        ("age,edema\n50,present\n", SMALL, 65, "1 patients, too few"),
        ("age,edema\n" + "50,present\n" * 50, SMALL, 65, "no variable of the graph together with"),
        ("age,edema\n50,present\n", {"parents": {"edema": ["edema"]}}, 78, "cycle"),
        ("age,edema,age\n50,present,60\n", SMALL, 65, "two columns age"),
        ("key,age\na,50\na,60\n", SMALL, 65, "line 3: its key 'a' is that of line 2"),
        ("age;sex\n50;M\n", SMALL, 65, "header: 'age;sex'); separate columns by commas"),
        ("Age,age\n50,60\n", SMALL, 65, "two columns age"),
        ("sex\n" + "M\nF\n" * 50, SMALL, 65, "columns of both"),
        ("age,sex,cardiomegaly\n" + "50,M,absent\n60,M,present\n" * 50, SMALL, 65, "out of the"),
        ("\udcff", SMALL, 65, "give a CSV in UTF-8"),
        ("age,edema\n50,\0\n", SMALL, 65, "line 2: edema has no value"),
        (None, SMALL, 65, "cannot be read"),
    ],
)
def test_bad_tables_exit_with_one_line(tmp_path, refusal, table, graph, code, part):
    if table is not None:
        (tmp_path / "table.csv").write_bytes(table.encode(errors="surrogateescape"))
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    flags = ["--data", str(tmp_path / "table.csv"), "--graph", str(tmp_path / "graph.json")]
    found, line = refusal(causes_fit.main, [*flags, "--out", str(tmp_path / "out")])
    assert (found, part in line) == (code, True), line
    assert not (tmp_path / "out").exists()


def test_a_folder_with_content_is_not_overwritten(place, refusal):
    flags = ["--data", str(place / "table.csv"), "--out", str(place / "model")]
    code, line = refusal(causes_fit.main, flags)
    assert (code, "is not empty" in line) == (78, True)


def test_a_table_and_a_data_set_of_the_same_phantoms_are_the_same_rows(place, tiny_data):
    graph = read_graph()
    of_data = tables.read(tiny_data, graph)
    assert len(of_data) == len(np.unique(of_data.keys))
    assert of_data.known[:, graph.index["source"]].all()


def test_a_table_of_other_programs_is_read(tmp_path):
    (tmp_path / "table.CSV").write_text('"Age","SEX","Pleural Effusion"\n50,Male,1\n\nNA,nan,\n')
    table, graph = tables.read(tmp_path / "table.CSV", read_graph()), read_graph()
    columns = [graph.index[name] for name in ("age", "sex", "pleural_effusion")]
    assert table.values[:, columns].tolist() == [[50, 1, 1], [0, 0, 0]]
    assert table.known[:, columns].tolist() == [[True] * 3, [False] * 3]


def test_a_file_that_is_no_table_is_called_so(place, refusal):
    code, line = refusal(causes_fit.main, ["--data", str(place / "graph.json"), "--out", "out"])
    assert (code, "is not a data set; a table is a CSV file" in line) == (65, True)


def test_rows_without_a_patient_are_of_patients_of_their_own(tmp_path):
    (tmp_path / "table.csv").write_text("patient,age\na,50\n,60\na,70\n ,80\n")
    patients = tables.read(tmp_path / "table.csv", read_graph()).patients
    assert patients[0] == patients[2]
    assert len(set(patients)) == 3


def test_a_graph_is_printed_in_other_forms(place, capsys):
    causes.main(["graph", "--graph", str(place / "graph.json"), "--as", "dagitty"])
    assert "cardiomegaly -> pleural_effusion" in capsys.readouterr().out


def test_every_action_has_help(capsys):
    for action in causes.ACTIONS:
        with pytest.raises(SystemExit):
            causes.main([action, "--help"])
    assert "BEFORE the intervention" in capsys.readouterr().out
