"""The count of what one box passes can be made."""

import re

from Testing.benchmarks.click_path import CASES, click_path


def test_both_cases_are_counted():
    lines = click_path()
    assert len(lines) == len(CASES)
    for name, line in zip(CASES, lines, strict=True):
        files, functions, calls = map(
            int, re.fullmatch(r".*: (\d+) files, (\d+) functions, (\d+) calls", line).groups()
        )
        assert line.startswith(name) and 0 < files < functions < calls
