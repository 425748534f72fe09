"""The search for words that plain technical English does without."""

from tests.words import found


def test_each_word_is_found_whatever_its_case():
    text = "It stands alone.\nTold anew\nfine\nall but for one, whose x is none of y"
    words = [(1, "alone"), (2, "told"), (2, "anew")]
    assert found("a.md", text) == [*words, (4, "but for"), (4, "whose"), (4, "is none of")]


def test_parts_of_other_words_are_not_found():
    assert found("a.py", "standalone = untold + renewal") == []


def test_a_line_that_is_allowed_is_not_found():
    assert found("a.py", "  stand_alone, alone", {"a.py: stand_alone, alone"}) == []
    assert found("b.py", "alone", {"a.py: alone"}) == [(1, "alone")]
