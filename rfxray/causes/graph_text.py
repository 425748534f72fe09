"""Causal graphs as text: DAGitty's (`dag { a -> b }`), DOT (`digraph { a -> b; }`) and GML.

DoWhy takes DOT and GML. Only directed edges between measured variables are read: a double-headed
edge is an unmeasured common cause, which no fitted model can hold.
"""

import re
from collections.abc import Callable, Iterator, Sequence

Edges = Sequence[tuple[str, str]]

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|^\s*#[^\n]*", re.DOTALL | re.MULTILINE)
_TOKEN = re.compile(
    r'"[^"]*"|<->|->|<-|--|@-@|[{}\[\]=;,]|-?[^\s"{}\[\]=;,<>-]+(?:-(?![->])\S*)?|\S'
)
_ARROWS = ("->", "<-", "<->", "--", "@-@")
_STRAY = ("<", ">", "-", '"')  # half an arrow, or a quote that is never closed


def parse(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The variables that a text names, and its edges (cause, effect).

    Raises:
      ValueError: If it has another form than these three, is cut off, or has an edge that is not
        directed.
    """
    text = _COMMENT.sub(" ", text)
    tokens = _TOKEN.findall(text)
    start = [token.lower() for token in tokens[:1]]
    if start == ["graph"] and tokens[1:2] == ["["]:
        return _gml(tokens)
    if start not in (["dag"], ["digraph"], ["strict"]) or "{" not in tokens:
        raise ValueError("a graph is JSON, dag { … }, digraph { … } or graph [ … ]")
    bare = _bare(tokens[tokens.index("{") + 1 :])
    if bare.count("}") != bare.count("{") + 1:
        raise ValueError("its braces or brackets do not match; the text may be cut off")
    return _arrows(bare)


def _bare(tokens: Sequence[str]) -> list[str]:
    """Names, braces and arrows: without attributes such as [pos="0,1"] and settings such as bb=…"""
    left: list[str] = []
    depth, skip = 0, False
    for token in tokens:
        if token in "[]":
            depth += 1 if token == "[" else -1
        elif depth:
            continue
        elif token in _STRAY:
            raise ValueError(f"{token} stands between names; write -> or <-, and close quotes")
        elif token == "=":
            if not left:
                raise ValueError("an = has no name before it")
            left.pop()
            skip = True
        elif skip:
            skip = False
        elif token not in (";", ","):
            left.append(token.strip('"'))
    return [token for token in left if token not in ("node", "edge", "graph")]


def _arrows(tokens: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    names: dict[str, None] = {}
    edges: list[tuple[str, str]] = []
    at = 0

    def group() -> list[str]:
        nonlocal at
        if at >= len(tokens) or tokens[at] in (*_ARROWS, "}"):
            raise ValueError("an arrow has no variable on one side")
        if tokens[at] != "{":
            at += 1
            return [tokens[at - 1]]
        end = tokens.index("}", at)
        inside, at = list(tokens[at + 1 : end]), end + 1
        return inside

    while at < len(tokens) and tokens[at] != "}":
        before = group()
        names |= dict.fromkeys(before)
        while at < len(tokens) and tokens[at] in _ARROWS:
            arrow = tokens[at]
            at += 1
            after = group()
            names |= dict.fromkeys(after)
            if arrow not in ("->", "<-"):
                raise ValueError(
                    f"{before[0]} {arrow} {after[0]} has no direction, or an unseen common cause; "
                    "only -> and <- can be fitted"
                )
            pairs = [(a, b) for a in before for b in after]
            edges += pairs if arrow == "->" else [(b, a) for a, b in pairs]
            before = after
    return list(names), edges


def _gml(tokens: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    if tokens.count("[") != tokens.count("]"):
        raise ValueError("its brackets do not match; the text may be cut off")
    reading = iter(tokens)
    tree = _pairs(reading)[0][1]
    labels: dict[str, str] = {}
    edges = []
    for key, value in tree:
        if key == "node":
            of = _fields(value)
            if (own := of.get("id", "")) in labels or not own:
                raise ValueError(f"each node needs an id of its own (got {own!r})")
            labels[own] = of.get("label", own)
        elif key == "edge":
            of = _fields(value)
            edges.append((of.get("source", ""), of.get("target", "")))
    if ("directed", "1") not in tree:
        raise ValueError("the GML graph is not directed; give directed 1")
    if lost := [end for edge in edges for end in edge if end not in labels]:
        raise ValueError(f"an edge names the node {lost[0]!r}, which is not there")
    return list(labels.values()), [(labels[a], labels[b]) for a, b in edges]


def _fields(value: object) -> dict[str, str]:
    if not isinstance(value, list):
        raise ValueError("nodes and edges of GML are lists in [ ]")
    return {key: of for key, of in value if isinstance(of, str)}


def _pairs(reading: Iterator[str]) -> list:
    found = []
    for key in reading:
        if key == "]":
            break
        value = next(reading, "")
        found.append((key, _pairs(reading) if value == "[" else value.strip('"')))
    return found


def _dagitty(names: Sequence[str], edges: Edges) -> str:
    lines = [*names, *(f"{cause} -> {effect}" for cause, effect in edges)]
    return "\n".join(["dag {", *lines, "}"]) + "\n"


def _dot(names: Sequence[str], edges: Edges) -> str:
    lines = [f"  {name};" for name in names]
    lines += [f"  {cause} -> {effect};" for cause, effect in edges]
    return "\n".join(["digraph {", *lines, "}"]) + "\n"


def _write_gml(names: Sequence[str], edges: Edges) -> str:
    number = {name: i for i, name in enumerate(names)}
    nodes = [f'  node [ id {i} label "{name}" ]' for name, i in number.items()]
    lines = [f"  edge [ source {number[a]} target {number[b]} ]" for a, b in edges]
    return "\n".join(["graph [", "  directed 1", *nodes, *lines, "]"]) + "\n"


FORMS: dict[str, Callable[[Sequence[str], Edges], str]] = {
    "dagitty": _dagitty,
    "dot": _dot,
    "gml": _write_gml,
}
