"""Which variable acts on which: a directed graph without cycles, from a file and to a file.

The variables are the attributes, except No Finding, which is derived; a file in our own form may
declare more, such as a measured heart size. `graph_text.py` reads and writes the texts of DAGitty,
DOT and GML.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, Attribute, lookup
from rfxray.causes import graph_text
from rfxray.config import json_text
from rfxray.errors import ConfigError

GRAPH = Path(vocabulary.__file__).with_name("graph.json")

# What no finding, no view and no measurement can act on
_FIXED = ("sex", "race", "age")
_ACT_ON_FIXED = (*_FIXED, "source")


@dataclasses.dataclass(frozen=True)
class Graph:
    """Which variable acts on which.

    Attributes:
      name: Name of the graph.
      parents: Parents of each variable of the graph, in causal order; of a root there are none.
      measures: Continuous variables beside the attributes.
    """

    name: str
    parents: dict[str, tuple[str, ...]]
    measures: tuple[Attribute, ...] = ()

    @property
    def variables(self) -> tuple[Attribute, ...]:
        """The columns of a table for this graph: the 19 attributes, then the measures."""
        return ATTRIBUTES + self.measures

    @property
    def index(self) -> dict[str, int]:
        """Column of each variable by its name."""
        return {variable.name: i for i, variable in enumerate(self.variables)}

    def variable(self, name: str) -> Attribute:
        """The variable of that name.

        Raises:
          ConfigError: If the graph knows no such variable.
        """
        return _variable(name, self.measures)

    def node(self, name: str) -> str:
        """The name of a variable that is in the graph, as it is written there.

        Raises:
          ConfigError: If it is not in the graph.
        """
        found = self.variable(name).name
        if found == "no_finding":
            raise ConfigError(
                "no_finding follows from the 12 pathologies and is no variable of a causal graph; "
                "name one of them"
            )
        if found not in self.parents:
            raise ConfigError(
                f"the graph has no variable {found}; it has {', '.join(self.parents)}"
            )
        return found

    def descendants(self, names: Iterable[str]) -> tuple[str, ...]:
        """What an intervention on `names` can change, in causal order; not those themselves."""
        start = set(names)
        reached = set(start)
        for child, parents in self.parents.items():
            if reached & set(parents):
                reached.add(child)
        return tuple(child for child in self.parents if child in reached - start)

    def ancestors(self, names: Iterable[str]) -> tuple[str, ...]:
        """What acts on `names`, directly or not, with those themselves, in causal order."""
        reached = set(names)
        for child, parents in reversed(self.parents.items()):
            if child in reached:
                reached.update(parents)
        return tuple(name for name in self.parents if name in reached)

    def edges(self) -> list[tuple[str, str]]:
        """Every edge (cause, effect), by the causal order of the effect."""
        return [(parent, child) for child, parents in self.parents.items() for parent in parents]

    def without(self, name: str) -> "Graph":
        """The graph when a variable is not looked at: its causes act on its effects directly."""
        left = {
            child: tuple(
                dict.fromkeys(
                    each
                    for parent in parents
                    for each in (self.parents[name] if parent == name else (parent,))
                )
            )
            for child, parents in self.parents.items()
            if child != name
        }
        return dataclasses.replace(self, parents=left)


def read_graph(path: str | Path = GRAPH) -> Graph:
    """A graph from a file: ours in JSON, or text of DAGitty, DOT or GML.

    Ours is `{"name": …, "parents": {child: [parent, …]}}`; with `"variables": {"heart_size":
    {"low": 0.2, "high": 1, "unit": ""}}` it declares continuous variables beside the attributes.

    Raises:
      ConfigError: If it does not parse, names something that is not a variable, has No Finding
        (derived) as a child or a parent, lets a finding or a view act on age, sex or race, or has a
        cycle.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("{"):
            tree = json_text.parse(text)
            name = str(tree.get("name", ""))
            declared = _of(tree.get("variables", {}), dict, "variables must be an object")
            measures = tuple(_measure(*item) for item in declared.items())
            parents = _of(tree.get("parents"), dict, "parents must be an object")
            pairs = [(p, c) for c, ps in parents.items() for p in _names(ps)]
            named = list(parents)
        else:
            name, measures = Path(path).stem, ()
            named, pairs = graph_text.parse(text)
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8; save it as that") from None
    except OSError as error:
        raise ConfigError(f"the graph {path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not a causal graph of attributes: {error}") from error
    try:
        named = [_variable(each, measures).name for each in named]
        pairs = [tuple(_variable(each, measures).name for each in pair) for pair in pairs]
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    found: dict[str, list[str]] = {each: [] for each in named}
    for parent, child in pairs:
        found.setdefault(parent, [])
        if parent in found.setdefault(child, []):
            raise ConfigError(f"{path}: the edge {parent} → {child} is there twice")
        found[child].append(parent)
    if not any(found.values()):
        raise ConfigError(f"{path}: the graph has no edge")
    for child, parents in found.items():
        _refuse_impossible(path, child, parents)
    return Graph(name, _ordered(path, found), measures)


def written(graph: Graph, form: str) -> str:
    """A graph as text in a form of `graph_text.FORMS` or as `json`, which `read_graph` reads."""
    if form != "json":
        return graph_text.FORMS[form](list(graph.parents), graph.edges())
    measures = {
        each.name: {"low": each.low, "high": each.high} | ({"unit": each.unit} if each.unit else {})
        for each in graph.measures
    }
    tree: dict[str, object] = {"name": graph.name}
    tree |= {"variables": measures} if measures else {}
    parents = {child: list(of) for child, of in graph.parents.items()}
    return json.dumps({**tree, "parents": parents}, indent=1) + "\n"


def _of(value: object, kind: type, words: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(words)
    return value


def _names(parents: object) -> list[str]:
    words = "parents must be a list of names"
    return [_of(each, str, words) for each in _of(parents, list, words)]


def _measure(name: str, what: object) -> Attribute:
    words = f"{name} must have numbers low < high, with a finite difference"
    of = _of(what, dict, words)
    low, high = (json_text.finite(of.get(key)) for key in ("low", "high"))
    if low is None or high is None or not 0 < high - low < math.inf:
        raise ValueError(words)
    if name in vocabulary.INDEX or not name.isidentifier():
        raise ValueError(f"{name!r} cannot be the name of a variable beside the attributes")
    return Attribute(name, name, low=low, high=high, unit=str(of.get("unit", "")))


def _variable(name: str, measures: Iterable[Attribute]) -> Attribute:
    for each in measures:
        if each.name == name:
            return each
    return lookup(name)


def _refuse_impossible(path: str | Path, child: str, parents: list[str]) -> None:
    if (parents and child == "no_finding") or "no_finding" in parents:
        raise ConfigError(
            f"{path}: no_finding is derived, so it has no parents and no children (got {child}: "
            f"{', '.join(parents)})"
        )
    wrong = [parent for parent in parents if parent not in _ACT_ON_FIXED]
    if child in _FIXED and wrong:
        kind = "a finding" if wrong[0] in FINDING_NAMES else wrong[0]
        raise ConfigError(
            f"{path}: {kind} cannot act on {child} (got {wrong[0]} → {child}); only "
            f"{', '.join(_ACT_ON_FIXED)} may"
        )


def _ordered(path: str | Path, given: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """The variables in causal order: roots first, each child as early as its parents allow."""
    given = {child: parents for child, parents in given.items() if child != "no_finding"}
    left = {child: parents for child, parents in given.items() if parents}
    ordered: dict[str, tuple[str, ...]] = {child: () for child in given if child not in left}
    while left:
        ready = [child for child, parents in left.items() if all(p in ordered for p in parents)]
        if not ready:
            around = _cycle(left)
            raise ConfigError(f"{path}: the graph has a cycle: {' → '.join(around)}")
        for child in ready:
            ordered[child] = tuple(left.pop(child))
    return ordered


def _cycle(left: Mapping[str, list[str]]) -> list[str]:
    at = next(iter(left))
    path = [at]
    while True:
        at = next(parent for parent in left[at] if parent in left)
        if at in path:
            return [at, *reversed(path[path.index(at) :])]
        path.append(at)
