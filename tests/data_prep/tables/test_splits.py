from collections import Counter

import pytest

from data_prep.tables.splits import check_fractions, hashed_split
from rfxray.errors import ConfigError


def test_patients_keep_their_hashed_split():
    # Fixed values: any change would move patients between splits of existing data sets
    assert [hashed_split(f"hannover/{i}", 0.3, 0.2) for i in range(8)] == [
        "train",
        "validation",
        "test",
        "train",
        "test",
        "test",
        "train",
        "validation",
    ]


def test_fractions_are_met_and_splits_are_nested():
    patients = [f"set/{i}" for i in range(20_000)]
    counts = Counter(hashed_split(patient, 0.1, 0.05) for patient in patients)
    assert abs(counts["validation"] / 20_000 - 0.1) < 0.01
    assert abs(counts["test"] / 20_000 - 0.05) < 0.01
    for patient in patients[:2000]:  # a smaller test split is a subset of a larger one
        if hashed_split(patient, 0.1, 0.05) == "test":
            assert hashed_split(patient, 0.1, 0.2) == "test"
    assert {hashed_split(patient, 0.0, 0.0) for patient in patients} == {"train"}


@pytest.mark.parametrize(("validation", "test"), [(1.0, 0.0), (0.6, 0.4), (-0.1, 0), (0.1, 2)])
def test_fractions_that_leave_no_training_data_are_refused(validation, test):
    with pytest.raises(ConfigError, match="a sum below 1"):
        check_fractions(validation, test)
