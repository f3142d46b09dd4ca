"""Fixtures for tests of the panel, which runs for real on PySide6 off screen (`Testing/slicer_standin/README.md`)."""

import os
import sys

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


@pytest.fixture
def make_desk(tmp_path, opengl):
    from Testing.slicer_standin.problems import as_text
    from Testing.slicer_standin.user import SlicerUser

    made = []

    def make(**options):
        made.append(SlicerUser(tmp_path / f"desk{len(made)}", **options))
        return made[-1]

    yield make
    problems = [problem for desk in reversed(made) for problem in desk.leave()]
    assert not problems, as_text(problems)


@pytest.fixture
def desk(make_desk):
    return make_desk()


@pytest.fixture
def qt(desk):
    """The module `qt` that the desk's Slicer has."""
    return sys.modules["qt"]


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

    return PanelDesk(desk, monkeypatch)
