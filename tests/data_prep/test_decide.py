from data_prep.decide import tie_patients


def test_patients_are_linked_transitively_but_not_to_themselves():
    pairs = [("n/e", "n/f"), ("n/b", "n/c"), ("n/c", "n/e"), ("n/a", "n/a"), ("m/y", "m/x")]
    assert tie_patients(pairs) == [["m/x", "m/y"], ["n/b", "n/c", "n/e", "n/f"]]


def test_copy_within_one_patient_links_no_patients():
    assert tie_patients([("n/a", "n/a")]) == []
