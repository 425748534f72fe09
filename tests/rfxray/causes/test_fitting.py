import numpy as np
import pytest
from scipy.special import expit

from data_prep import phantom
from data_prep.phantom import causes, interacting
from rfxray.attributes.vocabulary import INDEX, Attributes, all_known
from rfxray.causes import design, fitting, newton, tables
from rfxray.causes.graph import read_graph
from rfxray.errors import DataError
from tests.rfxray.causes.conftest import MANY, part


def test_the_logistic_form_recovers_the_mechanisms_of_the_phantom(fitted, population):
    values = population.values.astype(float)
    for child, parents in fitted.graph.parents.items():
        if parents:
            true = expit(causes.logit(child, population.values))
            assert np.abs(fitted.probability(child, values) - true).mean() < 0.02
            assert fitted.mechanisms[child].rows == len(MANY)


def test_the_flow_finds_a_u_shape_and_an_interaction_that_the_logistic_model_cannot(second):
    graph, table, _, _ = second(20_000)
    _, _, values, heart = second(5000, seed=1)
    graph = part(graph, "age", "sex", "fracture", "pneumonia", "pneumothorax")
    wide = np.concatenate([values.astype(float), heart[:, None]], 1)
    found = {}
    for form in fitting.FORMS:
        model = fitting.fit(graph, table, form)
        for name in ("pneumonia", "pneumothorax"):
            true = expit(interacting.logit(name, values, heart))
            found[form, name] = np.abs(model.probability(name, wide) - true).mean()
    for name in ("pneumonia", "pneumothorax"):
        assert found["flow", name] < 0.015
        assert found["logistic", name] > 3 * found["flow", name]


def test_the_flow_of_a_continuous_child_is_calibrated_in_every_group(second):
    graph, table, _, _ = second(20_000)
    _, other, values, heart = second(8000, seed=1)
    model = fitting.fit(part(graph, "age", "sex", "heart_size"), table)
    u, density = model.mechanisms["heart_size"].spline(other.values).height(heart)
    for group in (np.ones(8000, bool), values[:, 3] < 30, values[:, 3] > 75):
        steps = np.arange(1, group.sum() + 1) / group.sum()
        # 1.63 / √n by chance in 1%; the mechanism has its own error, of 20,000 rows
        assert np.abs(np.sort(u[group]) - steps).max() < 2.5 / group.sum() ** 0.5
    assert (density > 0).all()


def test_rows_with_unknown_causes_are_left_out_variable_by_variable(recorded):
    graph = read_graph()
    model = fitting.fit(graph, tables.of_attributes(recorded), "logistic")
    known = recorded.known
    for child, parents in graph.parents.items():
        columns = [INDEX[name] for name in (child, *parents)]
        assert model.mechanisms[child].rows == known[:, columns].all(1).sum()
    assert model.mechanisms["edema"].rows < 0.5 * model.mechanisms["fracture"].rows


def test_unknown_values_do_not_matter(recorded):
    """What stands where nothing is known is not read."""
    table = tables.of_attributes(recorded)
    graph = part(read_graph(), "sex", "race", "cardiomegaly")
    noisy = Attributes(np.where(recorded.known, recorded.values, 1), recorded.known)
    models = [fitting.fit(graph, t, "logistic") for t in (table, tables.of_attributes(noisy))]
    for name in graph.parents:
        ours, other = (model.mechanisms[name].weights for model in models)
        np.testing.assert_array_equal(ours, other)


def test_a_variable_that_no_row_knows_is_left_out_with_a_line(population):
    known = population.known.copy()
    known[:, INDEX["pleural_effusion"]] = False
    model = fitting.fit(
        read_graph(), tables.of_attributes(Attributes(population.values, known)), "logistic"
    )
    assert "pleural_effusion" not in model.graph.parents
    assert "cardiomegaly" in model.graph.parents["atelectasis"]
    assert "pleural_effusion is unknown in every row" in model.notes[0]
    assert "support_devices, atelectasis then share a cause" in model.notes[0]


@pytest.mark.parametrize(
    ("hide", "constant", "part_of_line"),
    [
        ((), ("edema",), "what edema depends on: it never varies"),
        (("edema", "age"), (), "no row knows edema together with its causes"),
        (tuple(INDEX), (), "no variable of the graph together with a cause"),
    ],
)
def test_a_table_that_shows_nothing_is_refused(population, hide, constant, part_of_line):
    values, known = population.values[:500].copy(), population.known[:500].copy()
    for name in constant:
        values[:, INDEX[name]] = 0
    if len(hide) == 2:
        known[::2, INDEX[hide[0]]], known[1::2, INDEX[hide[1]]] = False, False
    for name in hide if len(hide) > 2 else ():
        known[:, INDEX[name]] = False
    graph = part(read_graph(), "age", "sex", "race", "edema")
    with pytest.raises(DataError, match=part_of_line):
        fitting.fit(graph, tables.of_attributes(Attributes(values, known)), "logistic")


def test_an_interaction_that_is_not_there_is_pulled_to_nothing():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (4, 2)).astype(float)
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    columns = np.c_[np.ones(4), x, x[:, :1] * x[:, 1:]]
    total = np.full(4, 20_000)
    groups = np.arange(4)
    plain = np.round(total * expit(-1 + x @ [1.0, -0.5]))
    weights, _ = newton.fit(columns, plain, total, groups)
    np.testing.assert_allclose(weights, [-1, 1, -0.5, 0], atol=0.01)
    crossed = np.round(total * expit(-1 + x @ [1.0, -0.5] + 0.8 * x[:, 0] * x[:, 1]))
    weights, _ = newton.fit(columns, crossed, total, groups)
    np.testing.assert_allclose(weights, [-1, 1, -0.5, 0.8], atol=0.02)


def test_an_effect_that_is_never_contradicted_stays_finite():
    columns, groups = np.array([[1.0, 0.0], [1.0, 1.0]]), np.arange(2)
    weights, _ = newton.fit(columns, np.array([0, 30]), np.array([30, 30]), groups)
    assert np.isfinite(weights).all()
    assert 0.8 < expit(weights.sum()) < 1


def test_replicates_spread_like_refits_of_other_populations():
    """Rows of a patient count as one: repeating each row 4 times changes no spread."""
    graph = part(read_graph(), "sex", "race", "cardiomegaly")
    once = phantom.draw_attributes(0, np.arange(2000))
    estimates = []
    for seed in range(1, 31):
        other = tables.of_attributes(all_known(phantom.draw_attributes(seed, np.arange(2000))))
        estimates.append(
            fitting.fit(graph, other, "logistic").mechanisms["cardiomegaly"].weights[0]
        )
    spread = np.std(estimates, axis=0, ddof=1)
    for times in (1, 4):
        table = tables.of_attributes(all_known(np.repeat(once, times, 0)))
        patients = np.repeat(np.arange(2000), times)
        table = tables.Table(table.values, table.known, patients, table.keys)
        mechanism = fitting.fit(graph, table, "logistic", 200).mechanisms["cardiomegaly"]
        found = mechanism.replicates[:, 0].std(0)
        # The spread of 30 refits is itself known to 13%.
        np.testing.assert_allclose(found, spread, rtol=0.5)


def test_ages_in_whole_years_come_back_as_they_were(population):
    values = np.floor(population.values)
    model = fitting.fit(
        part(read_graph(), "age", "sex", "fracture"),
        tables.of_attributes(all_known(values)),
        "logistic",
    )
    age = model.mechanisms["age"]
    assert age.unit == 1
    rows = values.astype(float)
    low, high = age.interval(rows)
    assert (high > low).all()
    for share in (1e-6, 0.5, 1 - 1e-6):
        u = low + share * (high - low)
        np.testing.assert_array_equal(age.value(rows, u), rows[:, INDEX["age"]])


def test_columns_of_a_design_bend_and_interact():
    ages = design.Cause(0, 0, (0.0, 20.0, 40.0, 60.0, 80.0))
    sex, race = design.Cause(1, 2), design.Cause(2, 4)
    flexible, plain = design.flexible([ages, sex, race]), design.linear([ages, sex, race])
    values = np.array([[30.0, 1, 2], [90.0, 0, 0]])
    assert plain.columns(values).tolist() == [[1, -2, 1, 0, 1, 0], [1, 4, 0, 0, 0, 0]]
    assert flexible.columns(values).shape == (2, len(flexible.groups()))
    assert flexible.columns(values).shape[1] == (1 + 4) * 2 * 4
    far = flexible.columns(np.array([[a, 0.0, 0.0] for a in (90, 100, 110)]))
    np.testing.assert_allclose(np.diff(far, 2, axis=0), 0, atol=1e-9)  # linear beyond the knots


@pytest.mark.drill
@pytest.mark.parametrize("world", ["additive", "interacting"])
def test_at_100_000_rows_probabilities_are_within_their_standard_errors(second, world):
    """Population mean of total variation, and cells of causes in fifths of age."""
    n = 100_000
    if world == "additive":
        graph, values = read_graph(), phantom.draw_attributes(0, np.arange(n))
        table, heart = tables.of_attributes(all_known(values)), None
    else:
        graph, table, values, heart = second(n)
    beyond, cells, farthest = 0, 0, 0.0
    model = fitting.fit(graph, table)
    for name, mechanism in model.mechanisms.items():
        if not mechanism.parents or mechanism.continuous:
            continue
        logit = (
            causes.logit(name, values) if heart is None else interacting.logit(name, values, heart)
        )
        true, found = expit(logit), model.probability(name, table.values)
        assert np.abs(found - true).mean() <= 0.01
        code = np.zeros(n, int)
        for parent in mechanism.parents:
            own = table.values[:, graph.index[parent]]
            if graph.variable(parent).continuous:
                own = np.searchsorted(np.quantile(own, [0.2, 0.4, 0.6, 0.8]), own)
            code = code * 5 + own.astype(int)
        for cell in np.unique(code):
            rows = code == cell
            error = (true[rows] * (1 - true[rows])).sum() ** 0.5
            z = abs((found[rows] - true[rows]).sum()) / error
            cells, beyond, farthest = cells + 1, beyond + (z > 3), max(farthest, z)
    assert beyond <= 0.01 * cells
    assert farthest <= 4.5
