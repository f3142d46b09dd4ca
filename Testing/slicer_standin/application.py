"""`slicer.app`, the main window, and `slicer.modules`."""

import ctypes
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import slicer
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from Testing.slicer_standin import problems
from Testing.slicer_standin.standin import SceneUser, Standin, standin


@standin("qSlicerModuleManager")
class ModuleManager(Standin, QtCore.QObject):
    moduleAboutToBeUnloaded = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.modules: dict[str, Any] = {}

    def module(self, name: str) -> Any:
        return self.modules.get(name)


@standin("qSlicerScriptedLoadableModule")
class ScriptedModule(Standin, QtCore.QObject):
    """What the module's class gets as its parent."""

    remembered: ClassVar[dict[str, Any]] = {
        "title": "",
        "categories": [],
        "contributors": [],
        "helpText": "",
        "acknowledgementText": "",
        "icon": None,
        "hidden": False,
        "dependencies": [],
        "index": -1,
        "name": "",
        "path": "",
    }
    representation: Any = None
    make: Any = None

    def widgetRepresentation(self) -> Any:
        """The module's widget, which is made when it is first asked for."""
        if self.representation is None and self.make is not None:
            self.make()
        return self.representation

    def logic(self) -> None:
        """A scripted module has no logic in C++."""

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene


@standin("qSlicerScriptedLoadableModuleWidget")
class ScriptedModuleWidget(SceneUser):
    """The widget of a module; it calls the Python class's enter and exit."""

    python: Any = None
    _entered = False
    made: Any = None

    @property
    def isEntered(self) -> bool:
        return self._entered

    @property
    def moduleName(self) -> str:
        return type(self.python).__name__.removesuffix("Widget")

    def self(self) -> Any:
        return self.python

    def enter(self) -> None:
        self._entered = True
        if hasattr(self.python, "enter"):
            self.python.enter()

    def exit(self) -> None:
        self._entered = False
        if hasattr(self.python, "exit"):
            self.python.exit()

    def reload(self) -> None:
        self.made()


@standin("qSlicerModuleSelectorToolBar")
class ModuleSelector(Standin, QtWidgets.QToolBar):
    """What ``slicer.util.selectModule`` uses: the entered module is left, and the other entered if it is loaded."""

    def __init__(self, select: Callable[[str], None]) -> None:
        super().__init__()
        self._select, self._selected = select, ""

    @property
    def selectedModule(self) -> str:
        return self._selected

    def selectModule(self, name: str) -> None:
        self._selected = name
        self._select(name)


@standin("qSlicerAppMainWindow")
class MainWindow(Standin, QtWidgets.QMainWindow):
    def __init__(self, selector: ModuleSelector) -> None:
        super().__init__()
        self._selector = selector
        self.addToolBar(selector)
        self.views = QtWidgets.QWidget(self)
        QtWidgets.QHBoxLayout(self.views)
        self.setCentralWidget(self.views)
        self.panel = QtWidgets.QScrollArea()
        self.panel.setWidgetResizable(True)
        dock = QtWidgets.QDockWidget(self)
        dock.setObjectName("PanelDockWidget")
        dock.setWidget(self.panel)
        self.panel.setMinimumWidth(440)
        self.addDockWidget(QtCore.Qt.DockWidgetArea.LeftDockWidgetArea, dock)

    def moduleSelector(self) -> ModuleSelector:
        return self._selector


@standin("qSlicerApplication")
class Application(Standin, QtWidgets.QApplication):
    """One for the process; each desk puts its own scene, views and modules into it."""

    mrmlSceneChanged = Signal(object)
    startupCompleted = Signal()
    desk: Any = None

    def __init__(self) -> None:
        super().__init__(["Slicer"])
        self.setOrganizationName("slicer.org")
        self.setApplicationName("Slicer")
        self.setApplicationVersion("5.12.3")
        self._paused = 0
        self.setQuitOnLastWindowClosed(False)

    remembered: ClassVar[dict[str, Any]] = {
        "majorVersion": 5,
        "minorVersion": 12,
        "revision": "34000",
        "os": "linux",
        "platform": "linux-amd64",
        "slicerHome": "/opt/Slicer",
    }

    @property
    def temporaryPath(self) -> str:
        return str(self.desk.folder / "temporary")

    def testingEnabled(self) -> bool:
        return self.desk.testing

    def applicationLogic(self) -> Any:
        return self.desk.headless.application_logic

    def mrmlScene(self) -> Any:
        return self.desk.headless.scene

    def layoutManager(self) -> Any:
        return self.desk.layout_manager

    def moduleManager(self) -> Any:
        return self.desk.module_manager

    def settings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    userSettings = revisionUserSettings = settings

    def processEvents(self) -> None:
        QtWidgets.QApplication.processEvents()

    def pauseRender(self) -> None:
        self._paused += 1

    def resumeRender(self) -> None:
        if self._paused == 0:
            raise RuntimeError("slicer.app.resumeRender() without pauseRender()")
        self._paused -= 1

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    environment = startupEnvironment

    def openExtensionsManagerDialog(self) -> None:
        self.desk.opened_modules.append("ExtensionsManager")


_application: list[Application] = []


def the_application() -> Application:
    """Qt allows one for a process."""
    if not _application:
        _make_immortal(None, True, False)
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        QtCore.qInstallMessageHandler(problems.note_qt_message)
        _application.append(Application())
    return _application[0]


def _make_immortal(*constants: Any) -> None:
    """Keep PySide6 from killing Python's constants.

    It loses a reference to True with every signal of a bool that Python emits, and to None with every property that is
    none. From CPython 3.12 on they cannot die; before, the process would abort after a few hundred.
    """
    if sys.version_info < (3, 12):
        for constant in constants:
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40
