"""What a file of answers and a key must be, and the one line that says what is wrong with them."""

import dataclasses
import json

import pytest

from rfxray.errors import ConfigError, DataError
from rfxray.readers import answers, key, published, reading


def test_file_of_answers_reads_back_as_it_was_written(simulated):
    folder = simulated()
    file = answers.read(folder.answers[0])
    assert (file.study, file.reader) == ("study", "reader-1")
    assert file.about == {"key_sha256": key.read(folder.key).sha256, "experience_years": "2"}
    assert len(file.answers) == 48
    assert [row.item for row in file.answers] == list(range(1, 49))
    assert sum(row.repeat for row in file.answers) == 8
    again = [dataclasses.replace(row, score=f"{row.score:g}") for row in file.answers]
    folder.root.joinpath("again.csv").write_text(answers.text(again))
    assert answers.read(folder.root / "again.csv").answers == tuple(
        dataclasses.replace(row, line=row.line - 2) for row in file.answers
    )


def edit_score(lines):
    cells = lines[10].split(",")
    cells[5] = "5" if cells[5] != "5" else "1"
    lines[10] = ",".join(cells)


def swap_lines(lines):
    lines[8], lines[9] = lines[9], lines[8]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit_score, "line 11 or 12 was edited after the reading"),
        (swap_lines, "was edited after the reading"),
        (lambda lines: lines.pop(20), "was edited after the reading"),
        (lambda lines: lines.insert(20, lines[20]), "was edited after the reading"),
        (lambda lines: lines.pop(), "has no line of phase end"),
        (lambda lines: lines.__delitem__(slice(10, None)), "has no line of phase end"),
        (lambda lines: lines.pop(0), "is not a file of answers"),
        (lambda lines: lines.__setitem__(5, "a,b"), "line 6 has 2 values"),
        (lambda lines: lines.__setitem__(5, '"'), "line 6 is not a line of CSV"),
        (lambda lines: lines.clear(), "is not a file of answers"),
    ],
)
def test_file_that_was_edited_is_refused(simulated, change, words):
    folder = simulated()
    path = folder.answers[0]
    lines = path.read_text().split("\n")[:-1]
    change(lines)
    path.write_text("\n".join(lines) + "\n" * bool(lines))
    with pytest.raises(DataError, match=words):
        folder.read()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("score", "6", "score must be 1, 2, 3, 4, 5 or empty"),
        ("score", "2.5", "score must be 1, 2, 3, 4, 5 or empty"),
        ("score", "inf", "score must be a number"),
        ("score", "five", "score must be a number"),
        ("side", "top", "side must be left, right or empty"),
        ("phase", "lunch", "phase must be one of"),
        ("seconds", "fast", "seconds must be a number"),
        ("repeat", -1, "repeat must be a whole number"),
        ("item", None, "item must be a whole number"),
        ("case", "c9999", "case 'c9999' is not in the key"),
        ("modality", "pairs", "modality is 'pairs'"),
        ("reader", "someone", "must have one reader"),
        ("study", "another", "must have one study"),
    ],
)
def test_value_that_no_page_exports_is_refused(simulated, field, value, words):
    folder = simulated()

    def change(rows):
        rows[3] = dataclasses.replace(rows[3], **{field: value})
        return rows

    folder.rewrite(1, change)
    with pytest.raises(DataError, match=words):
        folder.read()


def test_reader_in_two_files_is_refused(simulated):
    folder = simulated()
    copy = folder.root / "answers-copy.csv"
    copy.write_bytes(folder.answers[0].read_bytes())
    with pytest.raises(DataError, match="reader reader-1 is in two files"):
        folder.read()


def test_case_that_is_answered_twice_is_refused(simulated):
    folder = simulated()
    folder.rewrite(1, lambda rows: [*rows, dataclasses.replace(rows[0], item=99)])
    with pytest.raises(DataError, match=r"answered case .* already"):
        folder.read()


def test_file_of_another_study_and_key_is_refused(simulated):
    folder, other = simulated(), simulated(name="other")
    with pytest.raises(DataError, match="is of study 'study', the key of 'other'"):
        folder.read(key_path=other.key)


def test_key_that_was_changed_after_the_reading_is_refused(simulated):
    folder = simulated()
    opened = json.loads(folder.key.read_text())
    first = next(iter(opened["cases"].values()))
    first["truth"] = 1 - first["truth"]
    folder.key.write_text(json.dumps(opened))
    with pytest.raises(DataError, match="give the key that was sealed before the reading"):
        folder.read()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "is not a key"),
        ("{", "is not a key"),
        ('{"study": "s", "modality": "single"}', "is not a key"),
        ('{"study": "s", "modality": "video", "cases": {}}', "modality must be single or pairs"),
        ('{"study": "s", "modality": "single", "cases": {"a": {}}}', "truth of case a"),
        ('{"study": "s", "modality": "single", "cases": {"a": {"truth": 2}}}', "must be 0 or 1"),
        (
            '{"study": "s", "modality": "pairs", "cases": {}, "sides": {"r": {"1": "top"}}}',
            "must be left or right",
        ),
    ],
)
def test_damaged_key_is_refused(tmp_path, content, words):
    (tmp_path / "key.json").write_text(content)
    with pytest.raises(DataError, match=words):
        key.read(tmp_path / "key.json")


HEADER = "who,what,grade,sick,kind\n"
MAP = ["reader=who", "case=what", "score=grade", "truth=sick", "kind=kind"]


def test_published_table_is_read_by_its_own_header(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\ufeff" + HEADER + 'a,1,3.5,0,"x, y"\na,2,NA,1,z\nb,1,,0,"x, y"\nb,2,4,1,z\n')
    study = reading.read([path], None, MAP, None)
    assert study.readers == ("a", "b")
    assert study.strata == {"kind": ("x, y", "z")}
    assert study.scores.tolist()[0][0][0] == 3.5
    assert study.left_out == {"questions left open": 2}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("who,what,grade\n", "has no column 'sick'"),
        ("who;what;grade;sick\n", "export it with commas between columns"),
        ("who\twhat\tgrade\tsick\n", "export it with commas between columns"),
        (HEADER, "has no answers"),
        (HEADER + "a,1,3,2,x\n", "line 2: truth must be 0 or 1"),
        (HEADER + "a,1,3,,x\n", "line 2: truth must be 0 or 1"),
        (HEADER + "a,1,3,0\n", "line 2 has 4 values"),
        (HEADER + "a,1,three,0,x\n", "line 2: score must be a number"),
        (HEADER + ",1,3,0,x\n", "line 2: reader is empty"),
        (HEADER + "a,1,3,0,x\nb,1,3,1,x\n", "truth of case 1 differs between line 2 and 3"),
        (HEADER + "a,1,3,0,x\nb,1,3,0,y\n", "strata of case 1 differs"),
        (HEADER + "a,1,3,0,x\na,1,3,0,x\na,2,3,1,x\n", "line 3: reader a answered case 1 already"),
        (HEADER + "a,1,3,0,x\n", "all cases are real"),
    ],
)
def test_damaged_table_is_refused(tmp_path, content, words):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        reading.read([path], None, MAP, None)


def test_time_below_zero_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("who,what,grade,sick,kind,t\na,1,3,0,x,-5\n")
    with pytest.raises(DataError, match="line 2: seconds must be 0 or more, empty or NA"):
        reading.read([path], None, [*MAP, "seconds=t"], None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reader"], "must be NAME=COLUMN"),
        (["reader=a", "reader=b"], "each name once"),
        (["reader=a", "case=b", "score=c"], "lacks truth"),
    ],
)
def test_wrong_mapping_is_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        published.mapping(words)


def test_imrmc_file_reads_back(tmp_path):
    rows = [("r1", "a", "m", 2.0), ("r1", "b", "m", 4.5), ("r2", "a", "m", 1.0)]
    path = tmp_path / "study.imrmc"
    path.write_text(published.imrmc_text("some", rows, {"a": False, "b": True}))
    assert "N0: 1\nN1: 1\nNM: 1" in path.read_text()
    study = reading.read([path], None, None, None)
    assert study.scores[0, 0].tolist() == [2.0, 4.5]
    assert study.truth.tolist() == [False, True]
    path.write_text("BEGIN DATA:\nr1,a,m,2\n")
    with pytest.raises(DataError, match="case a has no truth"):
        reading.read([path], None, None, None)


def test_table_without_truth_is_refused(simulated):
    folder = simulated()
    with pytest.raises(DataError, match="has no truth: give --key"):
        reading.read(folder.answers[:1], None, None, None)
    with pytest.raises(ConfigError, match="3 files need --key"):
        reading.read(folder.answers, None, None, None)
    with pytest.raises(ConfigError, match="--key does not read --middle"):
        reading.read(folder.answers, folder.key, None, 3.0)
    with pytest.raises(ConfigError, match="is not a file"):
        reading.read([folder.root / "gone.csv"], folder.key, None, None)
