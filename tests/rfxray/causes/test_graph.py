import json

import pytest

from data_prep.phantom import causes, descendants
from rfxray.causes import graph_text
from rfxray.causes.graph import read_graph, written
from rfxray.errors import ConfigError

# RadiT (arXiv 2606.19460), the expert graph, edge by edge
PAPER = {
    "age": "cardiomegaly edema pleural_other pneumonia fracture pneumothorax",
    "sex": "cardiomegaly edema pleural_other pneumonia fracture pneumothorax",
    "race": "cardiomegaly edema",
    "fracture": "pneumothorax",
    "cardiomegaly": "enlarged_cardiomediastinum pleural_effusion",
    "edema": "lung_opacity",
    "pleural_other": "lung_opacity pleural_effusion",
    "pneumonia": "consolidation pleural_effusion",
    "consolidation": "lung_opacity",
    "pneumothorax": "support_devices atelectasis",
    "pleural_effusion": "support_devices atelectasis",
    "atelectasis": "lung_opacity",
    "lung_opacity": "lung_lesion",
}


def test_default_graph_is_that_of_the_paper_edge_by_edge():
    listed = {(cause, effect) for cause, effects in PAPER.items() for effect in effects.split()}
    assert set(read_graph().edges()) == listed
    assert len(listed) == 29


def test_default_graph_is_that_of_the_phantom():
    graph = read_graph()
    assert {child: set(parents) for child, parents in graph.parents.items() if parents} == {
        child: set(parents) for child, parents in causes.EDGES.items()
    }
    for name in ("age", "fracture", "pleural_effusion", "lung_lesion"):
        follows = set(descendants(name)) - {"no_finding"}
        assert set(graph.descendants([name])) == follows


@pytest.mark.parametrize("form", ["json", *graph_text.FORMS])
def test_a_graph_comes_back_from_every_form_of_text(tmp_path, form):
    graph = read_graph()
    file = tmp_path / "graph"
    file.write_text(written(graph, form))
    back = read_graph(file)
    assert set(back.edges()) == set(graph.edges())
    assert set(back.parents) == set(graph.parents)


@pytest.mark.parametrize(
    "text",
    [
        'dag { bb="0,0,1,1"\n age [exposure,pos="0,1"]\n edema [outcome]\n'
        " age -> { edema fracture }\n edema <- sex\n }",
        "digraph { rankdir=LR; node [shape=box]; age -> edema [label=x]; age -> fracture;"
        "\n // why\n sex -> edema }",
        'digraph { "age" -> {"Edema"; "fracture"}; sex -> edema; }',
        "dag{age->edema<-sex age->fracture}",
        'graph [ directed 1 node [ id 7 label "age" ] node [ id 1 label "sex" ] node [ id 2 label'
        ' "edema" ] node [ id 3 label "fracture" ] edge [ source 7 target 2 ] edge [ source 1 '
        "target 2 ] edge [ source 7 target 3 ] ]",
        'graph [ directed 1 node [ id -2 label "age" graphics [ x -1.5 ] ] node [ id 1 label "sex"'
        ' ] node [ id 2 label "edema" ] node [ id 3 label "fracture" ] edge [ source -2 target 2 '
        "value -0.3 ] edge [ source 1 target 2 ] edge [ source -2 target 3 ] ]",
    ],
)
def test_texts_of_other_programs_are_read(tmp_path, text):
    file = tmp_path / "graph.txt"
    file.write_text(text)
    edges = {("age", "edema"), ("sex", "edema"), ("age", "fracture")}
    assert set(read_graph(file).edges()) == edges


def test_a_variable_beside_the_attributes_is_declared(tmp_path):
    file = tmp_path / "graph.json"
    measure = {"heart_size": {"low": 0.2, "high": 1}}
    tree = {"variables": measure, "parents": {"heart_size": ["age"], "edema": ["heart_size"]}}
    file.write_text(json.dumps(tree))
    graph = read_graph(file)
    assert graph.index["heart_size"] == 19
    assert graph.descendants(["age"]) == ("heart_size", "edema")
    file.write_text(written(graph, "json"))
    assert read_graph(file) == graph
    measure["heart_size"]["unit"] = "cm"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(tree).encode())  # as some editors save it
    file.write_text(written(read_graph(file), "json"))
    assert read_graph(file).variable("heart_size").unit == "cm"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not a causal graph"),
        ("[]", "not a causal graph"),
        ('{"parents": {"edema": "age"}}', "list of names"),
        ('{"parents": {"edemma": ["age"]}}', "'edemma'"),
        ('{"parents": {"edema": ["ag"]}}', "'ag'"),
        ('{"parents": {"edema": ["age", "Age"]}}', "twice"),
        ('{"parents": {"edema": []}}', "no edge"),
        ('{"parents": {"age": ["edema"]}}', "a finding cannot act on age"),
        ('{"parents": {"sex": ["view"]}}', "view cannot act on sex"),
        ('{"parents": {"no_finding": ["edema"]}}', "no_finding is derived"),
        ('{"parents": {"edema": ["no_finding"]}}', "no_finding is derived"),
        ('{"parents": {"edema": ["fracture"], "fracture": ["edema"]}}', "cycle: edema → fracture"),
        ('{"variables": {"size": {"low": 2, "high": 1}}, "parents": {"edema": ["size"]}}', "low <"),
        ('{"variables": {"size": {"low": 0, "high": 1e999}}, "parents": {}}', "numbers low < high"),
        (
            '{"variables": {"size": {"low": 0, "high": 1' + 400 * "0" + '}}, "parents": {}}',
            "numbers low < high",
        ),
        ('{"variables": {"size": 5}, "parents": {}}', "numbers low < high"),
        ('{"variables": [], "parents": {}}', "variables must be an object"),
        ('{"parents": "age"}', "parents must be an object"),
        ("{}", "parents must be an object"),
        ('{"parents": {"edema": [["age"]]}}', "list of names"),
        ('{"parents": {"edema": ["age"], "edema": ["sex"]}}', "edema is there twice"),
        ('{"parents": ' + "[" * 100_000, "not a causal graph"),
        ('{"parents": {"edema": ["smoking"]}}', "graph.json: no attribute 'smoking'"),
        ("dag { age <-> edema }", "unseen common cause"),
        ("dag { age -- edema }", "no direction"),
        ("dag { age -> }", "no variable on one side"),
        ("digraph { u -> edema; u -> fracture }", "'u'"),
        ("graph [ node [ id 0 label age ] ]", "not directed"),
        ("graph [ directed 1 node 5 ]", "lists in"),
        ("digraph { age -> edema", "cut off"),
        ("digraph { age -> { edema ", "cut off"),
        ("digraph { age -> edema [label=x }", "cut off"),
        ('dag { "age -> edema }', "close quotes"),
        ("dag { sex -> edema; age => edema }", "> stands between names"),
        ("digraph { = -> edema }", "no name before"),
        ("graph [ directed 1 node [ id 0 label age ]", "cut off"),
        ("graph [ directed 1 node [ id 0 label age ] node [ id 0 label sex ] ]", "an id of"),
        ("graph [ directed 1 node [ id [ a 1 ] label age ] ]", "an id of"),
        ("graph [ directed 1 node [ id 0 label age ] edge [ source 0 target 7 ] ]", "the node '7'"),
    ],
)
def test_invalid_graph_is_rejected(tmp_path, text, part):
    file = tmp_path / "graph.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=part):
        read_graph(file)


def test_a_graph_of_another_encoding_is_rejected(tmp_path):
    file = tmp_path / "graph.json"
    file.write_text('{"parents": {"edema": ["age"]}}', encoding="utf-16")
    with pytest.raises(ConfigError, match=r"graph\.json is not text in UTF-8"):
        read_graph(file)


def test_view_and_source_may_have_causes_if_a_graph_says_so(tmp_path):
    file = tmp_path / "graph.json"
    file.write_text('{"parents": {"view": ["support_devices", "source"], "source": ["race"]}}')
    assert read_graph(file).parents["view"] == ("support_devices", "source")


def test_a_variable_that_is_not_looked_at_hands_its_causes_to_its_effects():
    graph = read_graph().without("pleural_effusion")
    assert graph.parents["atelectasis"] == (
        *("pneumothorax", "cardiomegaly", "pleural_other", "pneumonia"),
    )
