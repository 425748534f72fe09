"""The files that a reader study exchanges: answers of one reader, and the key to all of them.

**Answers** are CSV, UTF-8, with a header and one line for each row; several files of one study are
read together. No column says what is real.

| column | content |
|---|---|
| study | name of the study, the same in every file and in the key |
| reader | name of the reader, the same in all rows of a file |
| item | place in the order of this reader, 1, 2, … through all phases |
| case | name of the image in the key; of the pair, when two are shown side by side |
| modality | how images were shown, one word such as `single` or `pairs` |
| score | `single`: 1 (surely real) to 5 (surely synthetic); `pairs`: confidence 1 to 5, or empty |
| side | `pairs`: `left` or `right`, the image that the reader takes for synthetic; else empty |
| seconds | time from the display to the answer |
| repeat | 0 for the first showing of a case to this reader, 1 for the second, … |
| phase | see below |
| previous_sha256 | SHA-256 (hex) of the line above, the header for the first, without line end |

Phases are `about` (a fact of the file: `case` names it, `score` holds it; `key_sha256` is one, and
`experience_years` another), `diagnosis` (`score` is free text), `training` (with feedback, not
analysed), `reading` (what is analysed), and `end`, the last row of every file, so that a removed
line shows. A question that was left open is a row with an empty score, or no row.

**The key** is JSON, UTF-8. Its SHA-256 stands in the protocol and in every file of answers
(`key_sha256`), and `nonce` makes that a seal: without it a key of few cases could be guessed.

    {"study": "lung-1", "modality": "single", "nonce": "64 hex digits",
     "cases": {"c017": {"truth": 1, "patient": "p4", "view": "AP", "finding": "Edema"}, …},
     "sides": {"reader-1": {"12": "left", …}, …}}

`truth` is 1 for a synthetic image and 0 for a real one. `patient` clusters images of one patient;
without it each case is a cluster. All other fields of a case are strata, by which results are
listed. `sides` is for pairs only: for each reader and item, the side that showed the synthetic
image; their cases have no `truth`.
"""

COLUMNS = (
    "study",
    "reader",
    "item",
    "case",
    "modality",
    "score",
    "side",
    "seconds",
    "repeat",
    "phase",
    "previous_sha256",
)
PHASES = ("about", "diagnosis", "training", "reading", "end")
SIDES = ("left", "right")
SCORES = (1, 2, 3, 4, 5)
