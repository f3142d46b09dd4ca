"""The stand-in behaves as Slicer does where that was looked up, and refuses where Slicer keeps silent."""

from pathlib import Path

import pytest
import slicer

from Testing.slicer_standin import node_stories  # noqa: F401 - it adds its own
from Testing.slicer_standin.manners import LINES, STRICTER, names, outcome
from Testing.slicer_standin.problems import NotModelled
from Testing.slicer_standin.stories import STORIES, slots_get_the_arguments_they_can_take
from Testing.slicer_standin.user import SLICERS_CHILD_WIDGET_VARIABLES

UI = Path(__file__).resolve().parents[2] / "FoundationSeg" / "Resources" / "UI" / "FoundationSeg.ui"


@pytest.mark.parametrize("topic", LINES)
def test_line_by_line(desk, topic):
    known = names()
    for line, wanted in LINES[topic]:
        assert outcome(line, known) == wanted, line


@pytest.mark.parametrize("story, wanted", STORIES, ids=[story.__name__ for story, _ in STORIES])
def test_what_widgets_tell(desk, story, wanted):
    for number, (found, expected) in enumerate(zip(story(), wanted, strict=True)):
        assert found == expected, f"step {number}"
    missing = [problem for problem in desk.take_problems() if "missing 1 required positional argument" in str(problem)]
    assert len(missing) == (1 if story is slots_get_the_arguments_they_can_take else 0)


@pytest.mark.parametrize("before, line, _", STRICTER, ids=[line for _, line, _ in STRICTER])
def test_complains_where_slicer_keeps_silent(desk, before, line, _):
    known = names()
    exec(before, known)
    assert outcome(line, known) in (ValueError, TypeError, AttributeError)


def test_what_exists_but_is_not_modelled_fails_the_test_even_if_it_is_caught(desk):
    editor = slicer.qMRMLSegmentEditorWidget()
    with pytest.raises(NotModelled, match="installKeyboardShortcuts"):
        editor.installKeyboardShortcuts()
    with pytest.raises(AttributeError):
        _ = editor.noSuchThing
    assert [type(problem) for problem in desk.take_problems()] == [NotModelled]


def test_a_form_of_a_signal_that_went_with_qt6_is_not_modelled(desk, qt):
    with pytest.raises(NotModelled, match="Qt 6"):
        qt.QComboBox().connect("currentIndexChanged(QString)", print)
    assert desk.take_problems()


def test_named_widgets_are_those_that_slicer_finds(desk):
    widget = slicer.util.loadUI(str(UI))
    named = vars(slicer.util.childWidgetVariables(widget))
    assert len(named) > 100 and named == vars(SLICERS_CHILD_WIDGET_VARIABLES(widget))


def test_the_same_object_has_the_same_proxy(desk, qt):
    import gc

    gc.freeze()  # only what comes now is looked at
    window = qt.QWidget()
    rows = qt.QVBoxLayout(window)
    rows.addWidget(qt.QPushButton("kept by its parent"))
    gc.collect()
    button = rows.itemAt(0).widget()
    assert button is window.children()[1] and button.text == "kept by its parent"


def test_a_widget_without_a_parent_goes_with_its_name(desk, qt):
    import gc
    import weakref

    gc.freeze()
    button = qt.QPushButton()
    gone = weakref.ref(button._q)
    del button
    gc.collect()
    assert gone() is None
