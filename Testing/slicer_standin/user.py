"""A user of Slicer: opens the module, clicks, types, uses the mouse in slice views, answers dialogs, looks."""

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shiboken6
import slicer
from PySide6 import QtCore, QtWidgets

from FoundationSegLib.mrml.scene import boot_scene
from Testing.slicer_standin import (
    application,
    behaviours,
    dialogs,
    modules,
    problems,
    slicer_python,
    ui_loader,
    widgets_ctk,
    widgets_editor,
    widgets_nodes,
    widgets_segments,
    widgets_views,
)
from Testing.slicer_standin.hands import Hands, ViewMouse, compose
from Testing.slicer_standin.proxy import Wrapper, unwrap, wrap

# Importing them registers what they stand in for.
_REGISTERED = (ui_loader, widgets_ctk, widgets_nodes, widgets_segments, widgets_views)


class SlicerUser(Hands):
    """Somebody at one Slicer with an empty scene. The names, and what they are for, are in `README.md`."""

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
        app = application.the_application()
        app.desk = self
        modules.install()
        widgets_editor.install()
        self.effect_factory = widgets_editor.EffectFactory()
        self.headless = boot_scene()
        self.scene = self.headless.scene
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self.scene.AddNode(crosshair)
        self.module_manager = application.ModuleManager()
        slicer.app = wrap(app)
        slicer_python.install()
        slicer.util.delayDisplay = self._delay_display
        slicer.util.childWidgetVariables = child_widget_variables
        slicer.packaging.pip_install = self._pip_install
        slicer.packaging.pip_uninstall = self._pip_install
        self.main_window = self._open_main_window() if main_window else None
        self.layout_manager = widgets_views.LayoutManager(self.headless, self.main_window and self.main_window.views)
        self._loaded: dict[str, Any] = {}
        self._left = False
        self._hidden: list[Any] = []
        self._paths: list[str] = []
        self._sources = {name: module for name, module in sys.modules.items() if name.startswith("FoundationSegLib")}
        sys.excepthook = problems.note_uncaught

    def _open_main_window(self) -> QtWidgets.QMainWindow:
        window = application.MainWindow(application.ModuleSelector(self.select_module))
        window.setObjectName("qSlicerMainWindow")
        window.statusBar()
        window.resize(1400, 900)
        window.show()
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
        self.load_module(path)
        self._make_widget(path.stem)
        representation = self._loaded[path.stem][2]._q
        if entered:
            self._show(representation)
            representation.enter()
        self.process_events()
        return representation.python

    def complete_startup(self) -> None:
        """What Slicer tells once its modules are loaded."""
        slicer.app._q.startupCompleted.emit()

    def _make_widget(self, name: str) -> None:
        """Build a module's widget; other modules may want it before it is entered."""
        module = self._loaded[name][0]
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

    def _show(self, representation: QtWidgets.QWidget) -> None:
        """Put a module's widget where the one before was, which stays as it is."""
        if self.main_window is None:
            representation.resize(420, 860)
        elif self.main_window.panel.widget() is not representation:
            self._hidden.append(self.main_window.panel.takeWidget())
            self.main_window.panel.setWidget(representation)
        representation.show()

    def load_module(self, path: Path) -> Wrapper:
        """The module without its panel: what happens at Slicer's start."""
        name = path.stem
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
            self._paths.append(str(path.parent))
        spec = importlib.util.spec_from_file_location(name, path)
        source = importlib.util.module_from_spec(spec)
        sys.modules[name] = source
        spec.loader.exec_module(source)
        q = application.ScriptedModule()
        module = wrap(q)
        q.write_property("name", name)
        q.write_property("path", str(path))
        q.make = lambda: self._make_widget(name)
        self.module_manager.modules[name] = q
        setattr(slicer.modules, name.lower(), module)
        self._loaded[name] = [module, getattr(source, name)(module)]
        return module

    def select_module(self, name: str) -> None:
        """Go to another module, as by the main window's list: the one that is entered is left first."""
        self.opened_modules.append(name)
        for widget in [widget for other, loaded in self._loaded.items() if other != name for widget in loaded[2:]]:
            if widget._q.isEntered:
                widget._q.exit()
        if name in self._loaded and not self._loaded[name][2:]:
            self._make_widget(name)
        for widget in self._loaded.get(name, ())[2:]:
            if not widget._q.isEntered:
                self._show(widget._q)
                widget._q.enter()

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
        if hasattr(slicer.modules, f"{name}Widget"):
            delattr(slicer.modules, f"{name}Widget")
        self.module_manager.modules.pop(name)
        sys.modules.pop(name, None)

    # What a user does beside what `Hands` has

    def mouse(self, view: str) -> ViewMouse:
        """The mouse in a slice view."""
        return ViewMouse(self.slice_widget(view).rig, self.process_events)

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
        for window in QtWidgets.QApplication.topLevelWidgets():
            window.setUpdatesEnabled(False)  # painting takes a third of the time, and nobody looks; `grab` does it
        QtWidgets.QApplication.processEvents()
        behaviours.delete_now()

    def wait_until(self, condition: Callable[[], Any], seconds: float = 100.0) -> Any:
        """Let time pass until the condition holds, and return what it returned.

        Raises:
            AssertionError: it never did, or something went wrong meanwhile.
        """
        start = time.monotonic()
        while (waited := time.monotonic() - start) < seconds:
            self.process_events()
            if problems.noted:
                raise AssertionError(problems.as_text(problems.noted))
            found = condition()
            if found:
                return found
            time.sleep(min(max(waited / 10, 0.002), 0.02))
        raise AssertionError(f"not within {seconds} s")

    def slice_widget(self, view: str) -> widgets_views.SliceWidget:
        return self.layout_manager.sliceWidget(view)

    def show_volume(self, node: Any, *views: str) -> None:
        """Show a volume in slice views (all three, unless some are named)."""
        for view in views or self.layout_manager.sliceViewNames():
            self.slice_widget(view).rig.show(node)

    def screenshot(self, path: Path, widget: Any = None, views: tuple[str, ...] = ("Red", "Green", "Yellow")) -> Path:
        """The panel (or another widget) and the slice views beside it, as a PNG."""
        self.process_events()
        shown = unwrap(widget) if widget is not None else self._panel()
        pictures = [self.slice_widget(view).picture() for view in views]
        compose(shown, pictures).save(str(path))
        self.pictures.append(path)
        return path

    def _panel(self) -> QtWidgets.QWidget:
        opened = [widgets[2] for widgets in self._loaded.values() if len(widgets) > 2]
        return opened[-1]._q

    # The end

    def _forget_sources(self) -> None:
        """The tests get back what a reload replaced; without one, the next desk takes the panel's package as it is."""
        if any(sys.modules.get(name) is not module for name, module in self._sources.items()):
            for name in [name for name in sys.modules if name.startswith(("FoundationSegLib", "FoundationSegPanel"))]:
                del sys.modules[name]
            sys.modules.update(self._sources)
        for folder in self._paths:
            if folder in sys.path:  # a test may have put the path back
                sys.path.remove(folder)
            for name, module in list(sys.modules.items()):
                is_own = str(getattr(module, "__file__", None) or "").startswith(folder + os.sep)
                if is_own and not name.startswith("FoundationSegPanel"):
                    del sys.modules[name]

    def take_problems(self) -> list[BaseException]:
        """What went wrong since the desk was opened; for a test that expects it: it does not fail for it any more."""
        found = list(problems.noted)
        problems.noted.clear()
        return found

    def leave(self) -> list[BaseException]:
        """Close everything; returns what went wrong since the desk was opened. A second time it does nothing."""
        if self._left:
            return []
        self._left = True
        QtCore.QSettings().sync()
        for name in list(self._loaded):
            self.close_module(name)
        self.process_events()
        self.scene.Clear(0)  # what the product still observes now is found out
        found = self.take_problems()
        found += [AssertionError(f"announced, but it never came up: {answer}") for answer in dialogs.not_shown()]
        dialogs.forget()
        behaviours.forget_pending()
        slicer.app._q._paused = 0  # what would have drawn the views again was among them
        behaviours.opened_urls.clear()
        self.layout_manager.widgets.clear()
        for widget in QtWidgets.QApplication.topLevelWidgets():
            if shiboken6.isValid(widget):
                shiboken6.delete(widget)
        self.process_events()
        problems.noted.clear()
        self._forget_sources()
        sys.excepthook = sys.__excepthook__
        slicer.util.delayDisplay = _SLICERS_DELAY_DISPLAY
        slicer.util.childWidgetVariables = SLICERS_CHILD_WIDGET_VARIABLES
        slicer.app.disconnect("startupCompleted()")
        widgets_editor.uninstall()
        slicer_python.uninstall()
        modules.uninstall()
        del slicer.app
        return found


_SLICERS_DELAY_DISPLAY = slicer.util.delayDisplay
SLICERS_CHILD_WIDGET_VARIABLES = slicer.util.childWidgetVariables


def child_widget_variables(widget: Wrapper) -> Any:
    """As Slicer's own, which looks at every object through several proxies: a fifth of the time of a panel."""
    ui, parents = type("", (), {})(), [unwrap(widget)]
    while parents:
        q = parents.pop()
        parents += q.children()
        shown = wrap(q) if q.objectName() else None
        if isinstance(shown, Wrapper):
            setattr(ui, q.objectName(), shown)
    return ui
