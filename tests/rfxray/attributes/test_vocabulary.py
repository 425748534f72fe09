import math

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import example, given

from rfxray.attributes import conditioning, vocabulary
from rfxray.errors import ConfigError

K = vocabulary.NUM_ATTRIBUTES


def values_of(attribute):
    if attribute.continuous:
        return st.floats(attribute.low, attribute.high, width=32)
    return st.sampled_from(attribute.values)


described = st.fixed_dictionaries(
    {}, optional={a.name: values_of(a) for a in vocabulary.ATTRIBUTES}
)
ALL_ABSENT = dict.fromkeys(vocabulary.PATHOLOGY_NAMES, "absent")


def contradicts(values) -> bool:
    found = [values.get(name) for name in vocabulary.PATHOLOGY_NAMES]
    if values.get("no_finding") == "present":
        return "present" in found
    return values.get("no_finding") == "absent" and found == ["absent"] * 12


def implied(values) -> dict[str, str]:
    """What No Finding and the pathologies say of each other in values that do not contradict."""
    found = [values.get(name) for name in vocabulary.PATHOLOGY_NAMES]
    if values.get("no_finding") == "present" or found == ["absent"] * 12:
        return {**ALL_ABSENT, "no_finding": "present"}
    return {"no_finding": "absent"} if "present" in found else {}


def test_vocabulary_has_the_documented_names_in_order():
    assert K == 19
    assert vocabulary.NAMES[:5] == ("view", "sex", "race", "age", "source")
    assert len(vocabulary.PATHOLOGY_NAMES) == 12
    assert vocabulary.NAMES[5:] == (*vocabulary.PATHOLOGY_NAMES, "support_devices", "no_finding")
    assert [a.name for a in vocabulary.ATTRIBUTES if a.continuous] == ["age"]


@given(described)
@example({**ALL_ABSENT, "no_finding": "absent"})
@example({**ALL_ABSENT, "no_finding": "present"})
@example({"no_finding": "present", "edema": "present"})
def test_decode_inverts_encode_and_contradictions_are_rejected(values):
    if contradicts(values):
        with pytest.raises(ConfigError, match="no_finding"):
            vocabulary.encode(values)
        return
    attributes = vocabulary.encode(values)
    assert (attributes.values.dtype, attributes.known.dtype) == (np.float32, bool)
    assert attributes.values.shape == attributes.known.shape == (K,)
    assert vocabulary.decode(attributes) == {**values, **implied(values)}
    assert not attributes.values[~attributes.known].any()


@given(described.filter(lambda values: not contradicts(values)))
def test_parse_reads_command_line_assignments(values):
    texts = [f"{name.replace('_', '-').upper()}={value}" for name, value in values.items()]
    for a, b in zip(
        vocabulary.encode(vocabulary.parse(texts)), vocabulary.encode(values), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value", [None, "unknown", " Unknown "])
def test_unknown_encodes_like_a_missing_attribute(value):
    for a, b in zip(vocabulary.encode({"race": value}), vocabulary.encode({}), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "spelled", "value"),
    [
        ("sex", ["Female", "FEMALE ", "woman", "f", "F"], "F"),
        ("view", ["pa", "Postero-Anterior", "Chest PA erect"], "PA"),
        ("race", ["Caucasian", "white_or_caucasian"], "White"),
        ("source", ["NIH"], "nih"),
        ("cardiomegaly", ["1", "1.0", "1,0", "+", "yes", "True", "x", 1, 1.0, True], "present"),
        ("no_finding", ["0", "0.0", "no", "negative", 0, np.float32(0), np.False_], "absent"),
        ("edema", ["-1", "-1.0", "−1.0", "uncertain", -1, -1.0], None),
        ("age", ["63", "63.0", "63,0", "063Y", "63 years", 63, np.int64(63)], 63.0),
        ("age", ["018M", "18 months", 1.5], pytest.approx(1.5, abs=1e-3)),
        ("age", ["010W", "70 days", "070D"], pytest.approx(70 / 365.25)),
    ],
)
def test_values_are_read_as_tables_spell_them(name, spelled, value):
    for text in spelled:
        assert vocabulary.decode_value(name, *vocabulary.encode_value(name, text)) == value, text


def test_parsed_values_are_written_in_one_spelling():
    asked = ["sex=Female", "age=063Y", "cardiomegaly=1.0", "edema=-1", "view=ap supine"]
    assert vocabulary.parse(asked) == {
        "sex": "F",
        "age": "63",
        "cardiomegaly": "present",
        "edema": "unknown",
        "view": "AP",
    }


@pytest.mark.parametrize(
    ("texts", "parts"),
    [
        (["veiw=PA"], ["veiw", "view"]),
        (["pleural_efusion=present"], ["pleural_effusion"]),
        (["sex=Z"], ["sex", "'Z'", "F, M"]),
        (["sex=femal"], ["did you mean F?"]),
        (["sex=1"], ["sex", "'1'"]),
        (["view=uncertain"], ["view", "'uncertain'"]),
        (["source=1"], ["source"]),
        (["edema=2"], ["edema", "'2'"]),
        (["edema=nan"], ["edema", "'nan'"]),
        (["age=121Y"], ["age=121Y"]),
        (["age=>89"], ["age=>89"]),
        (["age=inf"], ["age=inf"]),
        (["view=latral"], ["lateral?"]),
        (["age=121"], ["age=121", "years", "120"]),
        (["age=-1"], ["age=-1"]),
        (["age=nan"], ["age=nan"]),
        (["age=old"], ["age=old"]),
        (["view"], ["NAME=VALUE"]),
        (["view="], ["NAME=VALUE"]),
        (["=PA"], ["no attribute"]),
        (["age=1", "Age=1"], ["age", "twice"]),
        (["no_finding=present", "edema=present"], ["edema=present", "contradicts"]),
        (
            [*(f"{n}=absent" for n in vocabulary.PATHOLOGY_NAMES), "no_finding=absent"],
            ["contradicts"],
        ),
    ],
)
def test_wrong_assignment_is_rejected_in_one_line(texts, parts):
    with pytest.raises(ConfigError) as caught:
        vocabulary.parse(texts)
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line


@given(st.lists(st.sampled_from(["present", "absent", None]), min_size=12, max_size=12))
@example(["absent"] * 12)
@example(["absent"] * 11 + [None])
def test_no_finding_is_derived_from_the_twelve_pathologies(found):
    values = dict(zip(vocabulary.PATHOLOGY_NAMES, found, strict=True))
    numbers, known = vocabulary.stack([vocabulary.encode(values)] * 2)
    known[:, vocabulary.INDEX["no_finding"]] = False
    attributes = vocabulary.Attributes(numbers, known)
    before = attributes.values.copy(), attributes.known.copy()
    derived = vocabulary.derive_no_finding(attributes).rows(1)
    derived = vocabulary.decode(derived).get("no_finding")
    expected = "absent" if "present" in found else None
    if found == ["absent"] * 12:
        expected = "present"
    assert derived == expected
    np.testing.assert_array_equal(attributes.values, before[0])  # the argument is not changed
    np.testing.assert_array_equal(attributes.known, before[1])


def test_arrays_are_requested_as_words_are():
    rows = [{"no_finding": "present", "view": "PA"}, {"edema": "present"}, ALL_ABSENT, {"age": 63}]
    worded = vocabulary.stack([vocabulary.encode(row) for row in rows])
    numbers, known = np.full((4, K), 1.0, np.float32), np.zeros((4, K), bool)  # unknown: no 0
    for i, row in enumerate(rows):
        for name, value in row.items():
            at = i, vocabulary.INDEX[name]
            numbers[at], known[at] = vocabulary.encode_value(name, value)
    found = vocabulary.requested(vocabulary.Attributes(numbers, known))
    np.testing.assert_array_equal(found.values, worded.values)
    np.testing.assert_array_equal(found.known, worded.known)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"view": 7}, ["view is 7", "2 (lateral)"]),
        ({"view": 0.5}, ["view is 0.5"]),
        ({"age": np.nan}, ["age is nan", "120 years"]),
        ({"no_finding": 1, "fracture": 1}, ["no_finding=present", "fracture=present"]),
        ({"no_finding": 0} | dict.fromkeys(vocabulary.PATHOLOGY_NAMES, 0), ["contradicts"]),
    ],
)
def test_arrays_that_say_nothing_or_two_things_are_refused(row, parts):
    numbers, known = np.zeros((3, K), np.float32), np.zeros((3, K), bool)
    for name, number in row.items():
        numbers[2, vocabulary.INDEX[name]], known[2, vocabulary.INDEX[name]] = number, True
    with pytest.raises(ConfigError) as caught:
        vocabulary.requested(vocabulary.Attributes(numbers, known))
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts)


def test_arrays_of_another_shape_or_type_are_refused():
    numbers, known = np.zeros((3, K), np.float32), np.zeros((3, K), bool)
    for values, which in ((numbers[0], known[0]), (numbers, known[:2]), (numbers[:, 1:],) * 2):
        with pytest.raises(ConfigError, match=r"\[n, 19\]"):
            vocabulary.requested(vocabulary.Attributes(values, which))
    with pytest.raises(ConfigError, match="must be bool"):
        vocabulary.requested(vocabulary.Attributes(numbers, known.astype(int)))


def test_rows_selects_examples_of_a_stack():
    asked = [{"view": "PA"}, {}, {"age": 63}]
    table = vocabulary.stack(list(map(vocabulary.encode, asked)))
    assert table.values.shape == table.known.shape == (3, K)
    assert vocabulary.decode(table.rows(2)) == {"age": 63.0}
    for index in (slice(1, None), np.array([1, 2]), [1, 2]):
        some = table.rows(index)
        assert [vocabulary.decode(some.rows(i)) for i in range(2)] == [{}, {"age": 63.0}]


def test_all_known_marks_every_attribute_known():
    values = np.zeros((2, K), np.float32)
    assert vocabulary.all_known(values).known.all()
    assert len(vocabulary.decode(vocabulary.all_known(values).rows(0))) == K


# ---------------------------------------------------------------------------------------------
# Embedding rows


def test_every_value_of_every_attribute_has_its_own_row():
    rows = {}
    nothing = np.asarray(conditioning.embedding_rows(vocabulary.encode({})))
    for i, attribute in enumerate(vocabulary.ATTRIBUTES):
        rows[attribute.name, None] = int(nothing[i])
        for value in attribute.values or (50.0,):
            known = np.asarray(
                conditioning.embedding_rows(vocabulary.encode({attribute.name: value}))
            )
            rows[attribute.name, value] = int(known[i])
            others = np.arange(K) != i
            for name in implied({attribute.name: value}):
                others[vocabulary.INDEX[name]] = False
            np.testing.assert_array_equal(known[others], nothing[others])
    assert sorted(rows.values()) == list(range(conditioning.NUM_ROWS))


@given(st.lists(st.floats(0, 3, width=32), min_size=K, max_size=K))
def test_unknown_attributes_use_the_null_row(numbers):
    rows = conditioning.embedding_rows(
        vocabulary.Attributes(np.asarray(numbers, np.float32), np.zeros(K, bool))
    )
    np.testing.assert_array_equal(rows, conditioning.embedding_rows(vocabulary.encode({})))


def test_all_ages_share_one_row():
    young, old = (
        np.asarray(conditioning.embedding_rows(vocabulary.encode({"age": a}))) for a in (0, 120)
    )
    np.testing.assert_array_equal(young, old)


# ---------------------------------------------------------------------------------------------
# Dropout

N = 100_000
ALL_NULL, EACH = 0.1, 0.2


def dropped(keys, known, **shares):
    """Attributes still known after dropout, [n, 19] bool."""
    values = np.ones(known.shape, np.float32)
    left = conditioning.drop(keys, vocabulary.Attributes(values, known), **shares)
    np.testing.assert_array_equal(left.values, values)
    return np.asarray(left.known)


@pytest.fixture(scope="module")
def kept():
    """Which of 19 known attributes survive in each of N examples, bool [N, 19]."""
    keys = jax.random.split(jax.random.key(0), N)
    return dropped(keys, np.ones((N, K), bool))


def assert_share(hits, p: float):
    """Within 5 sigma of the binomial: fails by chance once in 1.7 million."""
    n = len(hits)
    assert abs(np.mean(hits) - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_shares_of_examples_with_all_dropped_and_none_dropped(kept):
    # u ~ U(0, 1) makes the number of kept attributes uniform on 0 … K: ∫ uᴷ du = 1 / (K + 1).
    extreme = EACH / (K + 1)
    assert_share(~kept.any(1), ALL_NULL + extreme)
    assert_share(kept.all(1), 1 - ALL_NULL - EACH + extreme)


@pytest.mark.parametrize("number", range(1, K))
def test_every_number_of_kept_attributes_is_equally_likely(kept, number):
    assert_share(kept.sum(1) == number, EACH / (K + 1))


def test_every_attribute_is_kept_equally_often(kept):
    partly = kept.any(1) & ~kept.all(1)
    for i in range(K):
        # E[1 − u] = 1/2, minus the cases in which all were kept.
        assert_share(partly & kept[:, i], EACH * (1 / 2 - 1 / (K + 1)))


def test_attributes_of_one_example_share_their_drop_rate(kept):
    partly = kept.any(1) & ~kept.all(1)
    # E[(1 − u)²] = 1/3, while independent attributes would give 1/4.
    assert_share(partly & kept[:, 0] & kept[:, K - 1], EACH * (1 / 3 - 1 / (K + 1)))


def test_dropout_shares_can_be_set():
    keys = jax.random.split(jax.random.key(1), 1000)
    everything = np.ones((1000, K), bool)
    assert dropped(keys, everything, all_null=0.0, each=0.0).all()
    assert not dropped(keys, everything, all_null=1.0, each=0.0).any()


@given(st.integers(0, 2**32 - 1), st.permutations(range(16)))
def test_dropout_is_keyed_by_example_and_reveals_nothing(seed, order):
    order = np.array(order)
    keys = jax.random.split(jax.random.key(seed), 16)
    known = np.random.default_rng(seed).random((16, K)) < 0.5
    left = dropped(keys, known)
    assert not (left & ~known).any()
    np.testing.assert_array_equal(dropped(keys[order], known[order]), left[order])
