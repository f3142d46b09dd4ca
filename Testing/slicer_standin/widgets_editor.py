"""Slicer's Segment Editor and its scripted effects, after their C++, on the real logic with its real undo."""

import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import slicer
import vtk
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from Testing.slicer_standin.methods import behaves
from Testing.slicer_standin.modules import shown_class
from Testing.slicer_standin.problems import note
from Testing.slicer_standin.proxy import wrap
from Testing.slicer_standin.standin import Observed, SceneUser, Standin, standin


class AbstractScriptedSegmentEditorEffect:
    """The base class of effects in Python; of Slicer's own, the part that takes no view."""

    def __init__(self, scriptedEffect: Any) -> None:
        self.scriptedEffect = scriptedEffect

    def register(self) -> None:
        slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)

    def cleanup(self) -> None:
        pass


@standin("qSlicerSegmentEditorScriptedEffect")
class ScriptedEffect(Standin, QtCore.QObject):
    """It hands the editor's calls on to a Python class (qSlicerSegmentEditorScriptedEffect.cxx)."""

    remembered: ClassVar[dict[str, Any]] = {
        "name": "UnnamedScriptedEffect",
        "title": "",
        "perSegment": True,
        "requireSegments": True,
        "showEffectCursorInSliceView": True,
        "showEffectCursorInThreeDView": False,
    }

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._python: Any = None
        self._node: Any = None
        self.editor: Any = None
        self._frame = QtWidgets.QFrame()
        QtWidgets.QFormLayout(self._frame)

    def setPythonSource(self, path: str) -> bool:
        folder, stem = Path(path).parent.name, Path(path).stem
        class_name = stem if stem.endswith("Effect") else f"{stem}Effect"
        effect_class = getattr(sys.modules.get(folder), class_name, None)
        if effect_class is None:
            raise AssertionError(f"Slicer would load {path} in the place of the package {folder}")
        self._python = effect_class(wrap(self))
        setattr(slicer, folder, self._python)
        return True

    def self(self) -> Any:
        return self._python

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the Python class, if it has it; what it raises is printed in Slicer, and noted here."""
        try:
            return getattr(self._python, name, lambda *_: None)(*arguments)
        except Exception as error:
            note(error)
            return None

    def parameterSetNode(self) -> Any:
        return self._node

    def setParameterSetNode(self, node: Any) -> None:
        self._node = node

    def optionsFrame(self) -> QtWidgets.QFrame:
        return self._frame

    def addOptionsWidget(self, widget: QtWidgets.QWidget) -> None:
        widget.setParent(self._frame)
        self._frame.layout().addRow(widget)
        widget.show()

    def activate(self) -> None:
        self._frame.setVisible(True)
        self.call("updateGUIFromMRML")
        self.call("activate")

    def deactivate(self) -> None:
        self._frame.setVisible(False)
        self.call("deactivate")

    def cleanup(self) -> None:
        self.call("cleanup")

    def saveStateForUndo(self) -> None:
        self.editor.logic.SaveStateForUndo()

    def confirmCurrentSegmentVisible(self) -> int:
        """0 not confirmed, 1 without a dialog, 2 with one."""
        node, segment_id = self._node.GetSegmentationNode(), self._node.GetSelectedSegmentID() or ""
        display = node and node.GetDisplayNode()
        if not segment_id or display is None or (display.GetVisibility() and display.GetSegmentVisibility(segment_id)):
            return 1
        text = "The currently selected segment is hidden. Would you like to make it visible?"
        yes, no, cancel = 0x4000, 0x10000, 0x400000
        buttons, title = yes | no | cancel, "Operate on invisible segment?"
        answer = shown_class("qt", "QMessageBox").question(None, title, text, buttons)
        if answer == yes:
            display.SetVisibility(True)
            display.SetSegmentVisibility(segment_id, True)
        return 0 if answer == cancel else 2


@standin("qSlicerSegmentEditorEffectFactory")
class EffectFactory(Standin, QtCore.QObject):
    """The effects that were registered, one of each name; each editor has copies of its own."""

    effectRegistered = Signal(str)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.effects: list[ScriptedEffect] = []

    def registerEffect(self, effect: ScriptedEffect) -> bool:
        name = effect.read_property("name")
        if any(known.read_property("name") == name for known in self.effects):
            return False
        self.effects.append(effect)
        self.effectRegistered.emit(name)
        return True


@behaves("qSlicerSegmentEditorEffectFactory", "instance")
def instance(_: None) -> Any:
    """The one factory of Slicer; here of the desk."""
    return wrap(slicer.app._q.desk.effect_factory)


@standin("qMRMLSegmentEditorWidget")
class SegmentEditorWidget(SceneUser):
    """The part that chooses nodes and effects and undoes (qMRMLSegmentEditorWidget.cxx)."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._node: Any = None
        self._segmentation: Any = None
        self._active: ScriptedEffect | None = None
        self.effects: list[ScriptedEffect] = []
        self._node_observed = Observed()
        self.destroyed.connect(self._node_observed.stop)
        self._options = QtWidgets.QGroupBox(self)
        QtWidgets.QVBoxLayout(self._options)
        QtWidgets.QVBoxLayout(self).addWidget(self._options)
        self.updateEffectList()

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        self.logic.SetMRMLScene(scene)

    def updateEffectList(self) -> None:
        names = [effect.read_property("name") for effect in self.effects]
        for registered in slicer.app._q.desk.effect_factory.effects:
            if registered.read_property("name") in names:
                continue
            effect = registered.call("clone")._q
            self.effects.append(effect)
            effect.editor = self
            effect.setParameterSetNode(self._node)
            effect.call("setMRMLDefaults")
            effect.call("setupOptionsFrame")
            effect.optionsFrame().setVisible(False)
            self._options.layout().addWidget(effect.optionsFrame())

    def effectByName(self, name: str) -> ScriptedEffect | None:
        return next((effect for effect in self.effects if effect.read_property("name") == name), None)

    def setActiveEffect(self, effect: ScriptedEffect | None) -> None:
        if self._node is not None:
            self._node.SetActiveEffectName(effect.read_property("name") if effect is not None else "")

    def setActiveEffectByName(self, name: str) -> None:
        self.setActiveEffect(self.effectByName(name))

    def mrmlSegmentEditorNode(self) -> Any:
        return self._node

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        if node is self._node:
            return
        self._node_observed.stop()
        self._node = node
        self.logic.SetSegmentEditorNode(node)
        if node is not None:
            self._node_observed.add(node, vtk.vtkCommand.ModifiedEvent, lambda *_: self.updateWidgetFromMRML())
            for effect in self.effects:
                effect.setParameterSetNode(node)
                effect.call("setMRMLDefaults")
            self.updateWidgetFromMRML()

    def segmentationNode(self) -> Any:
        return self._node and self._node.GetSegmentationNode()

    def setSegmentationNode(self, node: Any) -> None:
        if self.segmentationNode() is not node:
            self.logic.SetSegmentationNode(node)
            self.setActiveEffect(None)

    def setSourceVolumeNode(self, node: Any) -> None:
        if self._node is not None:
            self._node.SetAndObserveSourceVolumeNode(node)

    def setMaximumNumberOfUndoStates(self, count: int) -> None:
        self.logic.SetMaximumNumberOfUndoStates(count)

    def undo(self) -> None:
        self.logic.Undo()

    def redo(self) -> None:
        self.logic.Redo()

    def removeViewObservations(self) -> None:
        """Effects get no events of views here."""

    def updateWidgetFromMRML(self) -> None:
        if self._node is None or self._scene is None or self._scene.IsClosing() or self._scene.IsBatchProcessing():
            return
        segmentation = self._node.GetSegmentationNode()
        if segmentation is not self._segmentation:
            self._segmentation = segmentation
            if segmentation is not None:
                role = segmentation.GetReferenceImageGeometryReferenceRole()
                if segmentation.GetNodeReference(role) is not None:
                    self._node.SetAndObserveSourceVolumeNode(segmentation.GetNodeReference(role))
                segmentation.CreateDefaultDisplayNodes()
                if segmentation.GetSegmentation().GetNumberOfSegments():
                    self._node.SetSelectedSegmentID(segmentation.GetSegmentation().GetNthSegmentID(0))
        chosen = self._node.GetSelectedSegmentID()
        if chosen and (segmentation is None or segmentation.GetSegmentation().GetSegmentIndex(chosen) < 0):
            self._node.SetSelectedSegmentID(None)
        self._options.setEnabled(self._node.GetSourceVolumeNode() is not None)
        effect = self.effectByName(self._node.GetActiveEffectName() or "")
        before, self._active = self._active, effect
        if effect is before:
            return
        if before is not None:
            before.deactivate()
        if effect is not None:
            effect.activate()
        self._options.setVisible(effect is not None)
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames():
            cursor = effect.call("createCursor", manager.sliceWidget(name)) if effect is not None else None
            arrow = QtCore.Qt.CursorShape.ArrowCursor
            manager.sliceWidget(name)._q.view.setCursor(cursor._q if cursor is not None else arrow)


def install() -> None:
    """Make the modules importable that effects use."""
    for name, content in (
        ("SegmentEditorEffects", {"AbstractScriptedSegmentEditorEffect": AbstractScriptedSegmentEditorEffect}),
        ("qSlicerSegmentationsEditorEffectsPythonQt", {}),
    ):
        module = types.ModuleType(name)
        module.__dict__.update(content)
        module.__getattr__ = lambda member: shown_class("slicer", member)
        sys.modules[name] = module


def uninstall() -> None:
    """Nothing of it is left."""
    for name in ("SegmentEditorEffects", "qSlicerSegmentationsEditorEffectsPythonQt"):
        sys.modules.pop(name, None)
