"""The table of reasons in docs/data.md lists every reason that the code can write to dropped.csv.

Reasons are text in the code: an argument of `Refused` and of the functions that make a `Dropped`,
or what is kept under a name such as `reason`. The syntax trees of the modules have them.
"""

import ast
import re
from pathlib import Path

import data_prep
from rfxray.data.plan import STAGES

ROOT = Path(data_prep.__file__).parents[1]
DOCS = ROOT / "docs" / "data.md"
HEADING = "## Reasons in dropped.csv"
REASON_OF = {"Refused": 0, "drop": 1, "dropped": 2, "Dropped": 4}  # position of the argument
NAMES = {"reason", "why", "others", "reasons"}  # of keywords, variables and mappings
RETURNED_BY = {"verdict", "_cause"}


def modules():
    for package in ("data_prep", "rfxray/data"):
        for path in sorted((ROOT / package).rglob("*.py")):
            # Phantoms have no files, and stored.py reads those of an edit.
            if not {"phantom", "audit", "stored.py"} & set(path.relative_to(ROOT).parts):
                yield ast.parse(path.read_text(encoding="utf-8"))


def texts(node, constants):
    """The texts that an expression may be, with … for what is put into them."""
    match node:
        case ast.Constant(str(text)):
            yield text
        case ast.JoinedStr(values):
            yield "".join(v.value if isinstance(v, ast.Constant) else "…" for v in values)
        case ast.IfExp(_, one, other):
            yield from texts(one, constants)
            yield from texts(other, constants)
        case ast.Name(name) | ast.Attribute(_, name):
            yield from constants.get(name, ())
        case ast.Subscript(ast.Name(name), _):
            yield from constants.get(name, ())
        case ast.BoolOp(_, items) | ast.Call(
            ast.Attribute(ast.Name("dict"), "fromkeys"), [_, *items]
        ):
            for item in items:
                yield from texts(item, constants)
        case ast.Tuple([reason, *_]) | ast.DictComp(_, reason):  # reason and detail; by row
            yield from texts(reason, constants)


def literals(node):
    """The texts of a constant of a module, or of its items."""
    for item in node.elts if isinstance(node, ast.Tuple) else [node]:
        if isinstance(item, ast.Starred) and isinstance(item.value, ast.GeneratorExp):
            item = item.value.elt
        yield from texts(item, {})


def name_of(node):
    match node:
        case ast.Name(name) | ast.Attribute(_, name) | ast.Subscript(ast.Name(name)):
            return name
    return ""


def expressions(tree):
    """The expressions of a module that become a reason."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(function, arguments, keywords) if name_of(function) != "append":
                at = REASON_OF.get(name_of(function))
                yield from arguments[at : at + 1] if at is not None else ()
                yield from (keyword.value for keyword in keywords if keyword.arg in NAMES)
            case ast.Assign([target], value) if name_of(target) in NAMES:
                yield value
            case ast.AugAssign(target, _, value) if name_of(target) in NAMES:
                yield value
            case ast.Dict([ast.Constant("key"), ast.Constant("reason"), *_], [_, reason, *_]):
                yield reason
            case ast.Call(ast.Attribute(ast.Name("lost"), "append"), [ast.Tuple([_, reason, *_])]):
                yield reason
            case ast.FunctionDef(name) if name in RETURNED_BY:
                yield from (n.value for n in ast.walk(node) if isinstance(n, ast.Return))
            case ast.Return(ast.Tuple([ast.Constant(""), reason])):
                yield reason


def reasons_in_code():
    trees = list(modules())
    constants = {}
    for tree in trees:
        for node in tree.body:
            match node:
                case ast.Assign([ast.Name(name)], value) if name.isupper():
                    constants[name] = [*literals(value)]
    found = {t for tree in trees for e in expressions(tree) for t in texts(e, constants)}
    whole = {text for text in found if text and not text.startswith((" ", "…"))}
    return {text.partition(": ")[0] for text in whole} - {"upright"}  # which is a pose, too


def reasons_in_docs():
    """(stage, reason) of every row of the table; a cell may have several of either."""
    section = DOCS.read_text(encoding="utf-8").split(HEADING)[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \| (`[^|]*) \| (.+) \|$", section, re.MULTILINE)
    for stages, reasons, action in rows:
        assert len(action) > 10, reasons
        for stage in re.findall("`(.+?)`", stages):
            yield from ((stage, reason) for reason in re.findall("`(.+?)`", reasons))


def test_scan_sees_the_forms_in_which_reasons_are_written():
    """One of each form; if code is rewritten so that none is left, drop the line here."""
    assert reasons_in_code() >= {
        "an empty file",  # Refused("…")
        "several frames",  # Refused(f"…: {…}")
        "projection EXCLUDE",  # builder.drop(…, "…")
        "a row of too few or too many cells",  # a constant
        "the key of an earlier row",  # lost.append((row, "…"))
        "the decoder crashed",  # returned
        "rotated",  # an item of a constant
        "its patient is in …",  # reasons[key] = f"…"
        "changed while it was read",  # {"reason": reason or "…"}
    }


def test_docs_list_every_reason_and_no_other():
    listed = list(reasons_in_docs())
    assert {stage for stage, _ in listed} == set(STAGES)
    assert len(listed) == len(set(listed))
    assert {reason for _, reason in listed} == reasons_in_code()
