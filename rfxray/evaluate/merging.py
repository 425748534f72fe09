"""Several comparisons in one table: one extractor, path and measure for each column."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfxray import version
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate import report, results
from rfxray.outputs import page

KIND = "rfxray.evaluate.merge"


def merged(runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tables, one for each protocol, extractor by content, and resize path.

    Args:
      runs: Results by name of the run.

    Returns:
      Tables: what they are of, the names of the measures, and rows with `run`, `set`, the reals,
      and `figures`, by measure and then by kind (figure, real floor, resolution floor).

    Raises:
      DataError: If there are no figures.
    """
    tables: dict[tuple, dict[str, Any]] = {}
    for run, found in runs.items():
        for row in found["figures"]:
            if row["kind"] not in ("figure", *report.FLOORS) or row["part"]:
                continue
            name, protocol = row["extractor"], row["protocol"]
            of = found["extractors"][name]
            path = of["resize_path"] if protocol == "corrected" else found["published"][name]
            basis = (of["basis"] or {}).get("hash", "") if row["name"] == "FD64" else ""
            key = (protocol, name, of["hash"], path)
            table = tables.setdefault(key, _table(*key))
            measure = f"{row['name']}, basis {basis[:12]}" if basis else row["name"]
            if measure not in table["measures"]:
                table["measures"].append(measure)
            real = found["sets"]["real"]
            place = (run, row["synthetic"])
            line = table["rows"].setdefault(
                place,
                {
                    "run": run,
                    "set": row["synthetic"],
                    "real": f"{real['name']} ({real['fingerprint'][:8]})",
                    "figures": {},
                },
            )
            line["figures"].setdefault(measure, {})[row["kind"]] = dict(row)
    if not tables:
        raise DataError("these results have no figures; give the --out of rfxray evaluate fidelity")
    return [{**table, "rows": list(table["rows"].values())} for table in tables.values()]


def _table(protocol: str, name: str, content: str, path: str) -> dict[str, Any]:
    about = {"protocol": protocol, "extractor": name, "hash": content, "resize_path": path}
    return {**about, "measures": [], "rows": {}}


def names(paths: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with a number if two folders have the same."""
    found: list[str] = []
    for path in paths:
        base = (path if path.is_dir() else path.parent).resolve().name
        name, number = base, 2
        while name in found:
            name, number = f"{base} {number}", number + 1
        found.append(name)
    return found


def markdown(tables: Sequence[Mapping[str, Any]]) -> str:
    """The tables as Markdown: value, interval and N of each figure, its floors in rows below."""
    lines = []
    for table in tables:
        title = f"{table['extractor']} {table['hash'][:12]}, {table['protocol']}"
        lines += [f"**{title}**; {table['resize_path']}", ""]
        lines.append(f"| set | reals | {' | '.join(table['measures'])} |")
        lines.append("|---" * (2 + len(table["measures"])) + "|")
        for row in table["rows"]:
            kinds = {kind for figures in row["figures"].values() for kind in figures}
            for kind in (each for each in ("figure", *report.FLOORS) if each in kinds):
                of = _plain(f"{row['run']}, {row['set']}") if kind == "figure" else kind
                cells = [
                    _cell(row["figures"].get(measure, {}).get(kind))
                    for measure in table["measures"]
                ]
                lines.append(f"| {of} | {_plain(row['real'])} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _plain(name: str) -> str:
    """A name of a folder as the text of one cell."""
    return " ".join(name.replace("|", "\\|").split())


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return report.value(row)
    between = f" ({report.interval(row)})" if report.interval(row) else ""
    return f"{report.value(row)}{between}, N {report.numbers(row)}"


def html(tables: Sequence[Mapping[str, Any]], runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables as one page, and how each run was made."""
    return page.render(
        Path(__file__).with_name("merged.html"),
        title="Fidelity of several runs",
        tables=tables,
        runs=runs,
        kinds=("figure", *report.FLOORS),
        value=report.value,
        interval=report.interval,
        numbers=report.numbers,
    )


def as_json(
    tables: Sequence[Mapping[str, Any]], runs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The tables, and the command and versions of each run."""
    made = {
        name: {key: found[key] for key in ("command", "written_by", "device", "seed", "seconds")}
        for name, found in runs.items()
    }
    return {"kind": KIND, "written_by": version.versions(), "runs": made, "tables": list(tables)}


def read(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Results by name of the run; see `results.read`.

    Raises:
      ConfigError: If one is given twice.
    """
    places = [(path / results.NAME if path.is_dir() else path).resolve() for path in paths]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise ConfigError(f"{twice} is given twice; give each result once")
    return {name: results.read(path) for name, path in zip(names(paths), paths, strict=True)}
