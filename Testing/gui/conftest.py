"""Fixtures for tests of the panel, which runs for real on PySide6 off screen.

The product's `import qt, ctk, slicer` gets a strict stand-in of PythonQt: proxies in front of PySide6, which refuse
what Slicer's inventory does not list. Scene, nodes, logics, slice views and their mouse events are Slicer's own, from
`slicer-core`. A test has a desk with one Slicer on it:

    def test_segments(desk, tmp_path):
        widget = desk.open_module(MODULE)                      # FoundationSeg.py -> its Python widget, set up, entered
        desk.show_volume(node, "Red")                          # or all three views
        desk.choose(widget.ui.volumeSelector, node)            # a node, or an entry of a combo box by its text
        desk.click(widget.ui.boxButton)                        # a button or an action, if a user could click it
        desk.mouse("Red").drag((10, 5, 2), (40, 30, 2))        # in RAS; two numbers are pixels; ctrl=True, shift=True
        desk.wait_until(lambda: widget.isIdle(), seconds=20)   # events go on meanwhile; returns what it returned
        desk.press_key("Red", "Ctrl+Z")                        # while a view or a widget has the focus
        desk.answer_dialogs(press("Ok", containing="remove"))  # before the click that opens the dialog
        desk.screenshot(tmp_path / "one.png")                  # the panel, and what the slice views show

- `make_desk(main_window=False, testing=True)` makes one without a main window or in Slicer's testing mode;
  `make_desk(settings_of=first)`, after `first.leave()`, starts Slicer again with the settings it had.
- `desk.select_module("SegmentEditor")` leaves the module as the list of modules does, `"FoundationSeg"` enters it
  again, `desk.close_module("FoundationSeg")` is Slicer's end of it; a desk closes what is still open.
- Answers come from `Testing.gui.dialogs`: `press(button)`, `use(function)` for a dialog of ours, `choose_file(path)`,
  `enter(value)`, `pick(entry of a menu)`. `desk.dialogs` lists what came up, `delayDisplay` included.
- `desk.pip = function` stands in for `slicer.packaging.pip_install`; without it an installation fails the test.
- `desk.scene`, `desk.headless`, `desk.slice_widget("Red")`, `desk.opened_urls`, `desk.opened_modules`,
  `desk.folder`, `desk.type(field, text)`; `desk.take_problems()` for a test that expects one.

A test fails in the end if a slot, a timer, an observer or a virtual function raised (Slicer would only print it), if Qt
warned, if a dialog came up that was not announced or an announced one did not, and if the product asked for something
that exists in Slicer but that the stand-in does not model (`NotModelled`, also when it is caught): model it then, with
the behaviour seen in Slicer, and add it to `manners.py`, which runs in Slicer too. The variable `SLICER_PYTHON_SOURCE`
(the folder `Base/Python` of Slicer's source) puts Slicer's own `ScriptedLoadableModule`, `parameterNodeWrapper`, `i18n`
and `packaging` in place of the small ones in `slicer_packages`.

What this cannot prove: the order of signals that nobody looked up in Slicer, ownership and lifetimes in C++, painting
of Slicer's own widgets, real key and mouse events from a window system.
"""

import os

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
try:
    from PySide6 import QtUiTools, QtWidgets  # noqa: F401
except ImportError as error:
    _missing = f"PySide6 cannot be used: {error}"
else:
    _missing = None


class _Unusable(pytest.Module):
    """A test file that is not even imported."""

    def collect(self):
        pytest.skip(_missing, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return _Unusable.from_parent(parent, path=module_path) if _missing else None


@pytest.fixture(scope="session")
def opengl():
    from FoundationSegLib.errors import OutputError
    from FoundationSegLib.mrml.rendering.stage import open_window

    try:
        open_window(64, 64)
    except OutputError as error:
        pytest.skip(str(error))


@pytest.fixture
def make_desk(tmp_path, opengl):
    from Testing.gui.desk import Desk
    from Testing.gui.problems import as_text

    made = []

    def make(**options):
        made.append(Desk(tmp_path / f"desk{len(made)}", **options))
        return made[-1]

    yield make
    problems = [problem for desk in reversed(made) for problem in desk.leave()]
    assert not problems, as_text(problems)


@pytest.fixture
def desk(make_desk):
    return make_desk()


@pytest.fixture
def rig(desk, tmp_path):
    """A computer for the dialogs about models: `model_rig.ModelRig`."""
    from Testing.gui.model_rig import model_rig

    with model_rig(desk, tmp_path / "rig") as rig:
        yield rig


@pytest.fixture
def at_panel(desk, monkeypatch):
    """The panel of the module with a fast fake model, on an image that all three views show."""
    from Testing.gui.panel_desk import PanelDesk

    opened = PanelDesk(desk, monkeypatch)
    yield opened
    opened.forget()
