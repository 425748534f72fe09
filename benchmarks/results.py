"""Fills the tables of the pages in docs from the results that stand in `benchmarks/results`.

    python -m benchmarks.results                   regenerates the tables
    python -m benchmarks.results --add NAME=FILE   first copies FILE to benchmarks/results/NAME.json

FILE is a `results.json` of `rfxray evaluate fidelity` or `utility`, or what
`benchmarks.degradations`, `benchmarks.ssl_probe`, `benchmarks.causes`, `benchmarks.stress`,
`benchmarks.autoencoders` or (its part `propagated`) `benchmarks.editing` wrote, of this commit.
`<!-- table NAME -->` in a page begins a table, and `<!-- table NAME:blind -->` one of the faults
that a distance does not see. A table names the commit, device and seconds of its results. If the
code that a figure comes from has changed since, the table says that it is stale.
"""

import argparse
import ast
import hashlib
import io
import json
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    autoencoders,
    causes,
    degradations,
    editing,
    privacy,
    ssl_probe,
    stress,
    utility,
)
from rfxray import version
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.utility import folder
from rfxray.outputs import files

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(
    ROOT / "docs" / f"{name}.md"
    for name in ("results", "evaluation", "extractors", "causes", "latents", "sampling", "audit")
)
RESULTS = Path(__file__).with_name("results")
# What a figure comes from: extractors, bases, networks, and how a file becomes pixels.
CODE = (
    "rfxray/evaluate/extractors",
    "rfxray/evaluate/packaged",
    "rfxray/networks/convnets",
    "rfxray/networks/masked_vit.py",
    "rfxray/networks/vit.py",
    "rfxray/data/canonical.py",
    "rfxray/data/decoded.py",
    "rfxray/data/display.py",
    "rfxray/data/grey.py",
    "rfxray/data/radiograph.py",
)
# And what measures, by an entry that its results have, with what it imports of its own room.
OWN = {
    "figures": "rfxray/evaluate/fidelity.py",
    "studies": "benchmarks/degradations.py",
    "probes": "benchmarks/ssl_probe.py",
    "arms": "benchmarks/autoencoders.py",
}
MEASURES = "rfxray/evaluate"
# Of causal models, which look at no image, and of edits, by an entry that their results have.
_MODELS = ("rfxray/causes", "data_prep/phantom/causes.py", "data_prep/phantom/interacting.py")
_EDITS = ("rfxray/causes/leaning.py", "rfxray/causes/twinned.py", "rfxray/sampling/editing.py")
_PRIVACY = ("rfxray/evaluate/privacy", "rfxray/sampling/membership_losses.py")
_UTILITY = (
    "rfxray/evaluate/utility",
    "rfxray/commands/utility_runs.py",
    "rfxray/networks/classifier.py",
    "rfxray/objectives/classification.py",
    "configs/classifier.py",
)
_FOLLOW = ("rfxray/causes/abduction.py", "rfxray/causes/fitting.py", "rfxray/causes/mechanisms.py")
OTHERS = {
    "worlds": (*_MODELS, "benchmarks/causes.py"),
    "classifiers": (*_EDITS, "data_prep/phantom/causes.py", "benchmarks/stress.py"),
    "planted": (*_PRIVACY, "benchmarks/privacy.py"),
    "trainings": (*_UTILITY, "benchmarks/utility.py"),
    "propagated": (*_FOLLOW, "rfxray/sampling/editing.py", "benchmarks/editing.py"),
}
_NO_CODE = (".html", ".pyc")
_TABLE = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def code(found: Mapping[str, Any]) -> str:
    """SHA-256 of the source that results come from, hex."""
    digest = hashlib.sha256()
    whole: set[Path] = set()
    places = next((of for entry, of in OTHERS.items() if entry in found), CODE)
    for place in map(ROOT.joinpath, places):
        inside = (file for file in place.rglob("*") if file.is_file())
        whole.update(inside if place.is_dir() else [place])
    own = [ROOT / name for entry, name in OWN.items() if entry in found]
    for file in sorted(whole.union(_with_imports([*own, *whole]))):
        if file.suffix not in _NO_CODE:
            digest.update(f"{file.relative_to(ROOT).as_posix()}\n".encode() + _acts(file))
    return digest.hexdigest()


def _acts(file: Path) -> bytes:
    """What a file holds; of Python only what acts: no docstring, comment or line without code."""
    if file.suffix != ".py":
        return file.read_bytes()
    text = file.read_text()
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        scope = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if scope and ast.get_docstring(node, clean=False) is not None:
            first, last = node.body[0].lineno, node.body[0].end_lineno
            lines[first - 1 : last] = [""] * ((last or first) - first + 1)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip()).encode()


def _with_imports(begin: Sequence[Path]) -> set[Path]:
    """Modules of the measures that Python files import, at any depth, and the files."""
    found: set[Path] = set()
    left = [file for file in begin if file.suffix == ".py"]
    while left:
        found.add(file := left.pop())
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
            elif isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            else:
                continue
            for name in names:
                module = ROOT / f"{name.replace('.', '/')}.py"
                if module.parent == ROOT / MEASURES and module.is_file() and module not in found:
                    left.append(module)
    return found


def add(name: str, file: Path) -> None:
    """Takes over results of this commit.

    Raises:
      ConfigError: If they are of other code.
      DataError: If the file holds no results.
    """
    try:
        found = json.loads(file.read_text())
        measured = found["written_by"]["commit"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} holds no results ({error!r})") from error
    if measured != (now := version.commit()):
        raise ConfigError(f"{file} is of commit {measured}, this is {now}; measure again")
    if found.get("kind") == folder.KIND:
        found = utility.compact(found)
    if "figures" in found:  # a curve has many figures, which the report shows
        found["figures"] = [row for row in found["figures"] if row["kind"] != "curve"]
    text = json.dumps({**found, "code": code(found)}, indent=1, ensure_ascii=False) + "\n"
    files.write_whole(RESULTS / f"{name}.json", text)


def filled(
    pages: Sequence[str],
    results: Mapping[str, Mapping[str, Any]],
    now: Callable[[Mapping[str, Any]], str] = code,
) -> list[str]:
    """The pages with their tables.

    Args:
      pages: Texts with `<!-- table NAME -->` before each table and `<!-- end -->` after it.
      results: Results by name.
      now: Digest of the code that results come from.

    Raises:
      DataError: If the pages name results that are not there, or leave some out.
    """
    named = {match[1].partition(":")[0] for page in pages for match in _TABLE.findall(page)}
    if named != set(results):
        raise DataError(f"the pages have tables {sorted(named)}, and there are {sorted(results)}")

    def table(match: re.Match) -> str:
        name, _, form = match[2].partition(":")
        found = results[name]
        return f"{match[1]}{_how(found, now(found))}\n\n{_shown(found, form)}\n{match[3]}"

    return [_TABLE.sub(table, page) for page in pages]


def _shown(found: Mapping[str, Any], form: str) -> str:
    if form == "blind":
        return degradations.blind(found["studies"])
    if "worlds" in found:
        return causes.table(found)
    if "classifiers" in found:
        return stress.table(found)
    if "planted" in found:
        return privacy.table(found)
    if "trainings" in found:
        return utility.table(found)
    if "propagated" in found:
        return editing.table_of_propagated(found)
    if "studies" in found:
        return "\n\n".join(degradations.table(study) for study in found["studies"])
    if "arms" in found:
        return autoencoders.table(found)
    return ssl_probe.table(found) if "probes" in found else _fidelity(found)


def _how(found: Mapping[str, Any], now: str) -> str:
    """How it was measured, in lines of Markdown."""
    seconds = found["seconds"]
    total = sum(seconds.values()) if isinstance(seconds, Mapping) else seconds
    by = found["written_by"]
    text = f"`{found['command']}`: commit {by['commit']}, {found['device']}, {total:.0f} s."
    stale = "" if found["code"] == now else " **Stale: the code has changed since.**"
    return text + stale


def _fidelity(found: Mapping[str, Any]) -> str:
    """Each figure with its floors, a line for each synthetic set, extractor and measure."""
    head = (
        "| set | extractor | measure | N | figure | 95% interval | real floor | resolution floor |"
    )
    lines = [head, "|---" * 8 + "|"]
    rows = found["figures"]
    for row in rows:
        if row["kind"] != "figure" or row["value"] is None:
            continue
        same = {k: row[k] for k in ("name", "extractor", "synthetic", "protocol", "part")}
        floors = {each["kind"]: each for each in rows if all(each[k] == v for k, v in same.items())}
        cells = [_number(floors.get(kind)) for kind in ("real floor", "resolution floor")]
        interval = "–" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}"
        count = f"{row['n_real']:,} × {row['n_synthetic']:,}"
        lines.append(
            f"| {row['synthetic']} | {row['extractor']} | {row['name']} | {count} "
            f"| {_number(row)} | {interval} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _number(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None or row["value"] is None else f"{row['value']:.4g}"


def stored() -> dict[str, Any]:
    """The results that stand here, by name."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))}


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="results to take over; repeatable",
    )
    arguments = parser.parse_args(argv)
    with exit_on_error("benchmarks.results"):
        for given in arguments.add:
            name, equals, file = given.partition("=")
            if not equals or not name:
                raise ConfigError(f"--add {given} must be NAME=FILE")
            add(name, local_path(file))
        texts = filled([page.read_text(encoding="utf-8") for page in PAGES], stored())
        for page, text in zip(PAGES, texts, strict=True):
            files.write_whole(page, text)
        print(f"wrote {', '.join(page.name for page in PAGES)} in {ROOT / 'docs'}")


if __name__ == "__main__":
    main()
