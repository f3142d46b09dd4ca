"""A user at a desk: opens the module, clicks, types, uses the mouse in slice views, answers dialogs, looks."""

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from FoundationSegLib.mrml.headless import boot_scene
from Testing.gui import (
    application,
    behaviours,
    dialogs,
    modules,
    problems,
    slicer_python,
    ui_loader,
    widgets_ctk,
    widgets_nodes,
    widgets_segments,
    widgets_values,
    widgets_views,
)
from Testing.gui.mouse import ViewMouse
from Testing.gui.proxy import Wrapper, unwrap, wrap
from Testing.gui.screenshots import compose

_REGISTERED = (ui_loader, widgets_ctk, widgets_nodes, widgets_segments, widgets_values, widgets_views)
_application: list[application.Application] = []


def the_application() -> application.Application:
    """Qt allows one for a process."""
    if not _application:
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        QtCore.qInstallMessageHandler(problems.note_qt_message)
        _application.append(application.Application())
    return _application[0]


class Desk:
    """One Slicer with an empty scene. Its names, and what they are for, are in `Testing/gui/conftest.py`."""

    def __init__(self, folder: Path, main_window: bool = True, testing: bool = False) -> None:
        self.folder, self.testing = folder, testing
        self.opened_modules: list[str] = []
        self.pip: Callable[..., Any] | None = None
        self.pictures: list[Path] = []
        for name in ("temporary", "cache", "settings"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        QtCore.QSettings.setPath(
            QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, str(folder / "settings")
        )
        QtCore.QSettings().clear()
        app = the_application()
        app.desk = self
        modules.install()
        self.headless = boot_scene()
        self.scene = self.headless.scene
        self.layout_manager = widgets_views.LayoutManager(self.headless)
        self.module_manager = application.ModuleManager()
        slicer.app = wrap(app)
        slicer_python.install()
        slicer.util.delayDisplay = self._delay_display
        slicer.packaging.pip_install = self._pip_install
        slicer.packaging.pip_uninstall = self._pip_install
        self.main_window = self._open_main_window() if main_window else None
        self._loaded: dict[str, Any] = {}
        sys.excepthook = problems.note_uncaught

    def _open_main_window(self) -> QtWidgets.QMainWindow:
        window = application.MainWindow()
        window.setObjectName("qSlicerMainWindow")
        window.statusBar()
        window.resize(1200, 900)
        return window

    def _delay_display(self, message: str, autoCloseMsec: int = 1000, parent: Any = None, **_: Any) -> None:
        dialogs.shown.append(dialogs.Shown("delayDisplay", "", message))
        self.process_events()

    def _pip_install(self, *arguments: Any, **keywords: Any) -> Any:
        if self.pip is None:
            raise problems.UnexpectedDialog(f"pip was to run, and the test does not say what it does: {arguments}")
        return self.pip(*arguments, **keywords)

    # The module

    def open_module(self, path: Path, entered: bool = True) -> Any:
        """Load a scripted module's file as Slicer does, build its panel, and enter it; returns the Python widget."""
        module = self.load_module(path)
        name = path.stem
        representation = application.ScriptedModuleWidget()
        representation.setObjectName(f"{name}ModuleWidget")
        QtWidgets.QVBoxLayout(representation)
        parent = wrap(representation)
        self._loaded[name].append(parent)
        module._q.representation = representation

        def make() -> None:
            widget = getattr(sys.modules[name], f"{name}Widget")(parent)
            representation.python = widget
            setattr(slicer.modules, f"{name}Widget", widget)
            widget.setup()

        representation.made = make
        make()
        representation.setMRMLScene(self.scene)
        representation.resize(420, 860)
        representation.show()
        if entered:
            representation.enter()
        self.process_events()
        return representation.python

    def load_module(self, path: Path) -> Wrapper:
        """The module without its panel: what happens at Slicer's start."""
        name = path.stem
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(name, path)
        source = importlib.util.module_from_spec(spec)
        sys.modules[name] = source
        spec.loader.exec_module(source)
        q = application.ScriptedModule()
        module = wrap(q)
        q.write_property("name", name)
        q.write_property("path", str(path))
        self.module_manager.modules[name] = q
        setattr(slicer.modules, name.lower(), module)
        self._loaded[name] = [module, getattr(source, name)(module)]
        return module

    def close_module(self, name: str) -> None:
        """What Slicer does when it ends, or before it loads the module anew."""
        _module, _python, *widgets = self._loaded.pop(name)
        for widget in widgets:
            if widget._q.isEntered:
                widget._q.exit()
            self.module_manager.moduleAboutToBeUnloaded.emit(name)
            widget._q.setMRMLScene(None)
            widget.delete()
        delattr(slicer.modules, name.lower())
        for attribute in (f"{name}Widget",):
            if hasattr(slicer.modules, attribute):
                delattr(slicer.modules, attribute)
        self.module_manager.modules.pop(name)
        sys.modules.pop(name, None)

    # What a user does

    def click(self, button: Any) -> None:
        """Click a button or trigger an action, if the user can: it is shown and enabled."""
        self._usable(button)
        button.trigger() if button.inherits("QAction") else button.click()
        self.process_events()

    def choose(self, combo: Any, what: Any) -> None:
        """Choose an entry of a combo box by its text, or a node in a node selector."""
        self._usable(combo)
        if combo.inherits("qMRMLNodeComboBox"):
            combo.setCurrentNode(what)
        else:
            index = combo.findText(what)
            if index < 0:
                texts = [combo.itemText(n) for n in range(combo.count)]
                raise AssertionError(f"no entry {what!r} among {texts}")
            combo.setCurrentIndex(index)
            combo.activated(index)
        self.process_events()

    def type(self, field: Any, text: str, enter: bool = False) -> None:
        """Type a text into a line edit or a spin box, key by key, instead of what is there."""
        from PySide6.QtTest import QTest

        self._usable(field)
        q = unwrap(field)
        q.selectAll()
        QTest.keyClicks(q, text)
        if enter:
            QTest.keyClick(q, QtCore.Qt.Key.Key_Return)
        self.process_events()

    def press_key(self, widget: Any, keys: str) -> None:
        """Press a key, like "Ctrl+Z", while a widget has the focus."""
        from PySide6.QtTest import QTest

        q = unwrap(widget)
        q.window().activateWindow()
        q.setFocus()
        self.process_events()
        combination = QtGui.QKeySequence(keys)[0]
        QTest.keyClick(q, combination.key(), combination.keyboardModifiers())
        self.process_events()

    def mouse(self, view: str) -> ViewMouse:
        """The mouse in a slice view."""
        return ViewMouse(self.slice_widget(view).rig, self.process_events)

    def _usable(self, widget: Any) -> None:
        q = unwrap(widget)
        shown = q.isVisible() if isinstance(q, (QtWidgets.QWidget, QtGui.QAction)) else True
        if not (q.isEnabled() and shown):
            raise AssertionError(f"a user cannot use {widget!r}: enabled {q.isEnabled()}, shown {shown}")

    # Dialogs

    def answer_dialogs(self, *answers: dialogs.Answer) -> None:
        """What the user will do with the dialogs that come up next."""
        dialogs.announce(*answers)

    @property
    def dialogs(self) -> list[dialogs.Shown]:
        """The dialogs that came up so far."""
        return dialogs.shown

    @property
    def opened_urls(self) -> list[str]:
        """What the product asked the desktop to open."""
        return behaviours.opened_urls

    # Time, and what is to be seen

    def process_events(self) -> None:
        QtWidgets.QApplication.processEvents()
        QtWidgets.QApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)

    def wait_until(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Let time pass until the condition holds, and return what it returned.

        Raises:
            AssertionError: it never did, or something went wrong meanwhile.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.process_events()
            if problems.noted:
                raise AssertionError(problems.as_text(problems.noted))
            found = condition()
            if found:
                return found
            time.sleep(0.002)
        raise AssertionError(f"not within {seconds} s")

    def slice_widget(self, view: str) -> widgets_views.SliceWidget:
        return self.layout_manager.sliceWidget(view)

    def show_volume(self, node: Any, *views: str) -> None:
        """Show a volume in slice views (all three, unless some are named)."""
        for view in views or self.layout_manager.sliceViewNames():
            self.slice_widget(view).rig.show(node)

    def screenshot(self, path: Path, widget: Any = None, views: tuple[str, ...] = ("Red", "Green", "Yellow")) -> Path:
        """The panel (or another widget) and the slice views beside it, as a PNG."""
        shown = unwrap(widget) if widget is not None else self._panel()
        pictures = [self.slice_widget(view).picture() for view in views]
        compose(shown, pictures).save(str(path))
        self.pictures.append(path)
        return path

    def _panel(self) -> QtWidgets.QWidget:
        opened = [widgets[2] for widgets in self._loaded.values() if len(widgets) > 2]
        return opened[-1]._q

    # The end

    def leave(self) -> list[BaseException]:
        """Close everything; returns what went wrong since the desk was opened."""
        for name in list(self._loaded):
            self.close_module(name)
        self.process_events()
        found = list(problems.noted)
        found += [AssertionError(f"announced, but it never came up: {answer}") for answer in dialogs.not_shown()]
        problems.noted.clear()
        dialogs.forget()
        behaviours.forget_pending()
        behaviours.opened_urls.clear()
        for widget in self.layout_manager.widgets.values():
            widget.close()
        self.layout_manager.widgets.clear()
        if self.main_window is not None:
            self.main_window.close()
            self.main_window.deleteLater()
        self.process_events()
        sys.excepthook = sys.__excepthook__
        slicer.util.delayDisplay = _SLICERS_DELAY_DISPLAY
        slicer_python.uninstall()
        modules.uninstall()
        del slicer.app
        return found


_SLICERS_DELAY_DISPLAY = slicer.util.delayDisplay
