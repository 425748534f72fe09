"""With CI=true a skipped test fails, unless tests/may_skip.txt lists it with the reason.

A suite that skips what it cannot run looks the same as one that runs everything.
"""

import os
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("may_skip.txt")


def allowed() -> dict[str, str]:
    """The reason for each prefix of a node id that may skip."""
    lines = [line.split(maxsplit=1) for line in LIST.read_text().splitlines()]
    return {line[0]: line[1] for line in lines if line and not line[0].startswith("#")}


def _judge(report) -> None:
    may_skip = any(report.nodeid.startswith(prefix) for prefix in allowed())
    if report.skipped and not hasattr(report, "wasxfail") and not may_skip:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = (
            f"{why}\n{report.nodeid} may not skip: tests/may_skip.txt has no line for it"
        )


if os.environ.get("CI") == "true":

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(item, call):
        report = yield
        _judge(report)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(collector):
        report = yield
        _judge(report)
        return report
