"""Slice views: real slice logics, nodes, displayable managers, windows and interactors behind Slicer's widgets."""

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Signal

from FoundationSegLib.mrml.rendering.panels import image_actor
from FoundationSegLib.mrml.rendering.stage import draw
from Testing.mrml.slice_rig import SliceRig
from Testing.slicer_standin.standin import SceneUser, Standin, standin

_ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
_MANAGERS = (
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
)
VIEW_SIZE = (400, 300)


@standin("ctkVTKAbstractView")
class AbstractView(Standin, QtWidgets.QWidget):
    """A view; it draws when it is asked to, not on a clock."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.rig: Any = None
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)

    def interactor(self) -> Any:
        return self.rig.interactor

    def interactorStyle(self) -> Any:
        return self.rig.interactor.GetInteractorStyle()

    def scheduleRender(self) -> None:
        self.rig.renders += 1

    def forceRender(self) -> None:
        self.rig.renders += 1
        self.rig.window.Render()


@standin("qMRMLSliceView")
class SliceView(AbstractView):
    def setViewCursor(self, cursor: QtGui.QCursor) -> None:
        self.setCursor(cursor)

    def unsetViewCursor(self) -> None:
        self.unsetCursor()

    def mrmlSliceNode(self) -> Any:
        return self.rig.slice_node


@standin("qMRMLSliceWidget")
class SliceWidget(SceneUser):
    """The widget of one view, made by the layout manager."""

    def __init__(self, parent: Any = None, rig: Any = None) -> None:
        super().__init__(parent)
        self.rig = rig
        self._image: Any = None
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self.view = SliceView(self)
        self.view.setObjectName("SliceView")
        self.view.rig = rig
        column.addWidget(self.view)
        self.resize(*VIEW_SIZE)

    def sliceView(self) -> SliceView:
        return self.view

    def sliceLogic(self) -> Any:
        return self.rig.logic

    def mrmlSliceNode(self) -> Any:
        return self.rig.slice_node

    def interactorStyle(self) -> Any:
        return self.rig.interactor.GetInteractorStyle()

    def fitSliceToBackground(self) -> None:
        self.rig.logic.FitSliceToBackground()

    @property
    def sliceViewName(self) -> str:
        return self.rig.slice_node.GetLayoutName()

    def picture(self) -> QtGui.QImage:
        """What the view shows now, drawn by VTK."""
        rig = self.rig
        connection = rig.logic.GetImageDataConnection()
        if self._image is None and connection is not None:
            self._image = image_actor(rig.logic)
            rig.renderer.AddViewProp(self._image)
        if self._image is not None:
            self._image.SetVisibility(connection is not None)
        rig.logic.UpdatePipeline()
        pixels = draw(rig.window).copy()
        height, width = pixels.shape[:2]
        return QtGui.QImage(pixels.tobytes(), width, height, width * 3, QtGui.QImage.Format.Format_RGB888).copy()


@standin("qSlicerLayoutManager")
class LayoutManager(Standin, QtCore.QObject):
    """The three slice views of the conventional layout, each made when it is first asked for."""

    layoutChanged = Signal(int)

    def __init__(self, headless: Any, place: QtWidgets.QWidget | None) -> None:
        super().__init__()
        self._headless, self._layout = headless, 2
        self.widgets: dict[str, SliceWidget] = {}
        self._viewport = QtWidgets.QWidget(place)
        QtWidgets.QHBoxLayout(self._viewport)
        if place is not None:
            place.layout().addWidget(self._viewport)
        self._viewport.show()

    def sliceViewNames(self) -> list[str]:
        return list(_ORIENTATIONS)

    def sliceWidget(self, name: str) -> SliceWidget | None:
        if name not in _ORIENTATIONS:
            return None
        if name not in self.widgets:
            rig = SliceRig(self._headless, VIEW_SIZE, name, managers=_MANAGERS)
            rig.slice_node.SetOrientation(_ORIENTATIONS[name])
            self.widgets[name] = SliceWidget(rig=rig)
            self.widgets[name].setObjectName(f"qMRMLSliceWidget{name}")
            self._viewport.layout().addWidget(self.widgets[name])
        return self.widgets[name]

    def viewport(self, name: str = "") -> QtWidgets.QWidget:
        """The area of all views."""
        return self._viewport

    def mrmlSliceLogics(self) -> Any:
        for name in _ORIENTATIONS:
            self.sliceWidget(name)
        return self._headless.application_logic.GetSliceLogics()

    def mrmlScene(self) -> Any:
        return self._headless.scene

    @property
    def layout(self) -> int:
        return self._layout

    @layout.setter
    def layout(self, value: int) -> None:
        self.setLayout(value)

    def setLayout(self, value: int) -> None:
        if value != self._layout:
            self._layout = value
            self.layoutChanged.emit(value)

    @property
    def threeDViewCount(self) -> int:
        return 0

    def resetSliceViews(self) -> None:
        for widget in self.widgets.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        """There are none."""
