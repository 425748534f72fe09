"""The search for words that plain technical English avoids."""

from tests.words import found


def test_each_word_is_found_in_any_case():
    text = "It stands alone.\nTold anew\nfine\nall but for one, whose x is none of y"
    words = [(1, "alone"), (2, "told"), (2, "anew")]
    assert found("a.md", text) == [*words, (4, "but for"), (4, "whose"), (4, "is none of")]


def test_parts_of_other_words_are_not_found():
    assert found("a.py", "standalone = untold + renewal") == []


def test_allowed_line_is_not_found():
    assert found("a.py", "  stand_alone, alone", {"a.py: stand_alone, alone"}) == []
    assert found("b.py", "alone", {"a.py: alone"}) == [(1, "alone")]
