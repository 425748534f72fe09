"""What an intervention does, by a model of `rfxray causes fit`.

    rfxray causes ask --model runs/causes --do age=80 --versus age=40 --of cardiomegaly
    rfxray causes ask --model runs/causes --do age=80 --of cardiomegaly --given cardiomegaly=absent
    rfxray causes ask --model runs/causes --do age=80 --versus age=40 --of pleural_effusion \\
      --through cardiomegaly

Evidence has two places. --given is what was seen BEFORE the intervention, in the world as it was:
the patient keeps their own noise, and the answer is a counterfactual (abduction, action,
prediction). --given-after is what is seen AFTER the intervention, among its outcomes. Both can be
given. Only --given may name what is set. no_finding=absent says that one of 12 pathologies is
present.

Intervals are of 95%, by a bootstrap over patients. They are of the model's weights: that the graph
is right, and that no common cause is unseen, is assumed. The E-value says how strongly an unseen
cause would have to act on both to explain the difference away. Several --model, fitted to other
graphs, show how an effect depends on the graph.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from rfxray.causes import effects, folder, tables
from rfxray.causes.effects import Effect, Question
from rfxray.causes.mechanisms import StructuralModel
from rfxray.command_line import ArgumentParser, Progress, exit_on_error, local_path
from rfxray.errors import ConfigError

COMMAND = "rfxray.causes.ask"


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray causes ask",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def several(flag: str, text: str, required: bool = False) -> None:
        p.add_argument(
            flag,
            action="append",
            default=[],
            metavar="NAME=VALUE",
            required=required,
            help=f"{text}; repeatable",
        )

    p.add_argument(
        "--model",
        required=True,
        action="append",
        type=local_path,
        metavar="DIR",
        help="folder of rfxray causes fit; repeatable",
    )
    several("--do", "intervention, such as age=80", required=True)
    several("--versus", "intervention to compare with (default: none)")
    p.add_argument(
        "--of",
        required=True,
        metavar="NAME[=VALUE]",
        help="variable that is asked for: the probability that a finding is present, or of VALUE; "
        "the mean of a continuous one",
    )
    several("--given", "what was seen before the intervention (a counterfactual)")
    several("--given-after", "what is seen after the intervention, among its outcomes")
    p.add_argument(
        "--through",
        action="append",
        default=[],
        metavar="NAME",
        help="only what acts through this variable, while the rest stays as under --versus; "
        "repeatable",
    )
    p.add_argument(
        "--by",
        metavar="NAME",
        help="answer for each category of this variable, seen before the intervention "
        "(default: one answer)",
    )
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        for place in flags.model:
            run(place, flags, len(flags.model) > 1)


def run(place: Path, flags: argparse.Namespace, several: bool) -> None:
    """Asks one model, and prints its answers.

    Raises:
      ConfigError: For a question that this model cannot answer.
      DataError: If the model is damaged.
    """
    model, _ = folder.load(place)
    if several:
        print(f"{COMMAND}: {place.name}, graph {model.graph.name or 'without a name'}")
    for note in model.notes:
        print(f"{COMMAND}: note: {note}")
    questions = asked(model, flags)
    count = sum(1 for _ in model.replicas()) * len(questions)
    with Progress(COMMAND, count, unit="replicate") as progress:
        found = [effects.answer(model, each, progress.advance) for each in questions.values()]
    for (group, question), effect in zip(questions.items(), found, strict=True):
        for line in lines(model, question, effect):
            print(f"{COMMAND}: {group}{line}")


def asked(model: StructuralModel, flags: argparse.Namespace) -> dict[str, Question]:
    """The questions of the flags, by what they are called in the output."""
    of, equals, value = flags.of.partition("=")
    of = model.graph.node(of)
    wanted = None
    if equals:
        if model.variable(of).continuous:
            raise ConfigError(f"{of} is continuous; --of {of} asks for its mean")
        wanted = _encoded(model, of, value)
    one = Question(
        of=of,
        do=_values(model, flags.do),
        versus=_values(model, flags.versus),
        given=_values(model, flags.given, evidence=True),
        after=_values(model, flags.given_after, evidence=True),
        through=tuple(model.graph.node(name) for name in flags.through),
        value=wanted,
    )
    effects.refuse_unsupported(model, {**one.versus, **one.do})
    effects.refuse_unsupported(model, one.versus)
    if not flags.by:
        return {"": one}
    by = model.graph.node(flags.by)
    variable = model.variable(by)
    if variable.continuous or by in one.given:
        raise ConfigError(f"--by {by} must have categories and not stand in --given")
    seen = model.mechanisms[by].seen
    return {
        f"{by}={label}: ": Question(**{**vars(one), "given": {**one.given, by: float(k)}})
        for k, label in enumerate(variable.values)
        if seen[k]
    }


def lines(model: StructuralModel, question: Question, effect: Effect) -> list[str]:
    """The answer in words."""
    variable = model.variable(question.of)
    what = f"mean {question.of}"
    if not variable.continuous:
        value = len(variable.values) - 1 if question.value is None else int(question.value)
        what = f"P({question.of}={variable.values[value]})"
    versus = _said(model, question.versus) or "no intervention"
    acts = f" through {', '.join(question.through)}" if question.through else ""
    found = [
        f"{what} {effect.then:.4f}{_interval(effect.then_interval)} under "
        f"{_said(model, question.do)}{acts}, {effect.before:.4f} under {versus}",
        f"difference {effect.difference:+.4f}{_interval(effect.difference_interval)}",
    ]
    if effect.e_value is not None:
        end = ""
        if effect.e_value_interval is not None:
            end = f" ({effect.e_value_interval:.2f} for the end of the interval)"
        found.append(f"E-value {effect.e_value:.2f}{end}")
    if effect.error:
        found.append(f"computed to a standard error of {effect.error:.4f}")
    for setting in (question.do, question.versus):
        if setting and (rows := effects.expected_rows(model, setting, question.given)) < (
            effects.FEW
        ):
            found.append(
                f"warning: about {rows:.0f} rows of the table are near {_said(model, setting)} "
                f"and like the evidence (fewer than {effects.FEW}): the answer extrapolates"
            )
    found += _bounds(model, question)
    return found


def _bounds(model: StructuralModel, question: Question) -> list[str]:
    """What to know of variables without an order that change under the intervention."""
    found = []
    changed = [n for n in model.graph.descendants(question.do) if effects.unordered(n)]
    for name in changed:
        if not question.given:
            continue
        if name != question.of:
            found.append(
                f"{name} follows the intervention, and its categories have no order: the answer is "
                "that of the vocabulary's order"
            )
        elif name in question.given and effects.NO_FINDING not in question.given:
            value = len(model.variable(name).values) - 1.0
            value = value if question.value is None else question.value
            low, high = effects.frechet(model, question, value)
            found.append(f"between {low:.4f} and {high:.4f} over all orders of {name}")
    return found


def _values(
    model: StructuralModel, assignments: Sequence[str], evidence: bool = False
) -> dict[str, float]:
    found: dict[str, float] = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator or not value:
            raise ConfigError(f"{assignment!r} is not NAME=VALUE, such as age=80")
        # No Finding is not a variable, and can be seen all the same.
        seen = evidence and model.graph.variable(name).name == effects.NO_FINDING
        name = effects.NO_FINDING if seen else model.graph.node(name)
        if name in found:
            raise ConfigError(f"{name} is given twice")
        found[name] = _encoded(model, name, value)
    return found


def _encoded(model: StructuralModel, name: str, text: str) -> float:
    value, known = tables.encoded(model.graph, name, text)
    if not known:
        raise ConfigError(f"{name}={text} is not a value; leave it out if it is unknown")
    return value


def _said(model: StructuralModel, values: Mapping[str, float]) -> str:
    words = []
    for name, value in values.items():
        variable = model.variable(name)
        shown = f"{value:g}" if variable.continuous else variable.values[int(value)]
        words.append(f"{name}={shown}")
    return ", ".join(words)


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.4f}, {interval[1]:.4f}]"


if __name__ == "__main__":
    main()
