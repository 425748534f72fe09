"""The table of utility: from results as the command writes them."""

from benchmarks import utility
from rfxray.evaluate.utility import figures


def row(training, of, value, group="", measure=figures.AUROC, low=None, finding=figures.MEAN):
    high = None if low is None else 2 * value - low
    fraction = 0.0 if training == figures.SYNTHETIC else 0.05
    numbers = {"value": value, "low": low, "high": high, "images": 9, "reason": None}
    return {
        "training": training,
        "fraction": fraction,
        "measure": measure,
        "finding": finding,
        "group": group,
        "of": of,
        "name": measure,
        "n_real": 9,
        "n_synthetic": 0,
        **numbers,
    }


def test_table_has_every_training_and_the_gaps_of_the_smallest_group():
    rows = [
        row(figures.SYNTHETIC, "value", 0.71234567),
        row(figures.REAL, "value", 0.8, low=0.75),
        row(figures.REAL, "value", 0.7, finding="pneumonia"),
        row(figures.THEN, "value", 0.9, low=0.85),
        row(figures.THEN, "gain", 0.1, low=0.05),
        row(figures.THEN, "share of the gain", 0.5, low=0.25),
        row(figures.AGAIN, "value", 0.6, "sex=F"),
        row(figures.AGAIN, "gap", -0.2, "sex=F", low=-0.3),
        row(figures.THEN, "gap", -0.1, "sex=F", low=-0.2),
        row(figures.THEN, "gap change", 0.1, "sex=F", low=0.05),
        row(figures.AGAIN, "gap", 0.3, "sex=M"),
    ]
    found = utility.compact(
        {
            "figures": rows,
            "kind": "rfxray.evaluate.utility",
            "groups": {"sex=M": 900, "sex=F": 100, "race=Black": 60},
            "fractions": [0.05],
            "sets": {"test": {"images": 1000}},
        }
    )
    assert "figures" not in found  # by which benchmarks.results would take it for a comparison
    assert len(found["trainings"]) == 10
    assert found["trainings"][0]["value"] == 0.71235
    text = utility.table(found)
    for line in (
        "| synthetic | – | 0.712 | – | – | – | – |",
        "| real | 0.05 | 0.800 (0.750 to 0.850) | – | – | 0.700 | – |",
        "| synthetic then real | 0.05 | 0.900 (0.850 to 0.950) | 0.100 (0.050 to 0.150) "
        "| 0.500 (0.250 to 0.750) | – | – |",
        "The smallest group, sex=F (100 of 1,000 images), less all others:",
        "| AUROC | 0.05 | -0.200 (-0.300 to -0.100) | -0.100 (-0.200 to 0.000) "
        "| 0.100 (0.050 to 0.150) |",
        "| missed | 0.05 | – | – | – |",
    ):
        assert line in text.splitlines()
