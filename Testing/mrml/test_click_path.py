import re

from Testing.benchmarks.click_path import CASES, click_path


def test_both_cases_are_within_their_bars():
    lines = click_path()
    assert len(lines) == len(CASES)
    for (name, (_, most)), line in zip(CASES.items(), lines, strict=True):
        counts = re.match(r".*: (\d+) files, (\d+) functions, (\d+) calls", line).groups()
        assert line.startswith(name) and all(int(count) <= bar for count, bar in zip(counts, most, strict=True)), line
