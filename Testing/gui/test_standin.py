"""The stand-in behaves as Slicer does where that was looked up, and refuses where Slicer keeps silent."""

import pytest

from Testing.gui.manners import LINES, names, outcome
from Testing.gui.stories import STORIES


@pytest.mark.parametrize("topic", LINES)
def test_line_by_line(desk, topic):
    known = names()
    for line, wanted in LINES[topic]:
        assert outcome(line, known) == wanted, line


@pytest.mark.parametrize("story, wanted", STORIES, ids=[story.__name__ for story, _ in STORIES])
def test_what_widgets_tell(desk, story, wanted):
    for number, (found, expected) in enumerate(zip(story(), wanted, strict=True)):
        assert found == expected, f"step {number}"
