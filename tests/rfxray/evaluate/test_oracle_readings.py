"""What an oracle reads is scored by value, with intervals or reasons."""

import numpy as np
import pytest

from rfxray.attributes import vocabulary
from rfxray.evaluate import oracle_readings
from rfxray.evaluate.classifier import READ


def test_readings_are_scored_by_value_and_rare_ones_have_a_reason():
    drawn = vocabulary.stack(
        [
            vocabulary.encode(
                {"view": "PA", "age": 40.0 + i, "edema": "present" if i < 3 else "absent"}
            )
            for i in range(40)
        ]
    )
    read = {a.name: np.array(drawn.values[:, vocabulary.INDEX[a.name]]) for a in READ}
    read["age"] = read["age"] + np.linspace(1, 3, 40)
    read["edema"][1] = 1 - read["edema"][1]
    figures = {f.name: f for f in oracle_readings.figures(read, drawn, np.arange(40), 40)}
    assert figures["error of age, years"].value == pytest.approx(2)
    assert figures["view=PA read right"].value == 1
    assert 0.8 < figures["view=PA read right"].low < 1
    rare = figures["edema=present read right"]
    assert rare.value == pytest.approx(2 / 3)
    assert rare.n_synthetic == 3
    assert "needs 10 patients" in rare.reason
    assert not any("sex" in name for name in figures)  # never known
