"""A scene without Slicer's application: for the command line and the tests, on the `slicer-core` package.

Inside Slicer nothing here is needed: the application has made the scene and its logics.
"""

import types
from dataclasses import dataclass, field
from typing import Any

import slicer

# The terminologies' logic gets no scene: a scene makes it look for term files that the wheel does not carry, and it
# prints six errors when it finds none. It parses and serialises terms without one.
_WITHOUT_SCENE = "Terminologies"

_MODULE_LOGICS = {
    "Volumes": "vtkSlicerVolumesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
}


@dataclass(frozen=True, slots=True)
class HeadlessScene:
    """A booted scene. Keep it as long as nodes are used: the scene and its logics live as long as this does.

    Attributes:
        scene: the ``vtkMRMLScene``; also ``slicer.mrmlScene`` from now on.
        application_logic: the ``vtkSlicerApplicationLogic``.
        module_logics: the logics of Slicer's modules by module name; also behind ``slicer.modules``.
    """

    scene: Any
    application_logic: Any
    module_logics: dict[str, Any] = field(default_factory=dict)


def boot_scene() -> HeadlessScene:
    """A new scene with the logics of Volumes, Segmentations, Markups, Terminologies and subject hierarchy.

    Makes it ``slicer.mrmlScene`` and fills ``slicer.modules``, because `slicer.util` looks there. Prints nothing.
    """
    scene = slicer.vtkMRMLScene()
    application_logic = slicer.vtkSlicerApplicationLogic()
    application_logic.SetMRMLScene(scene)
    slicer.mrmlScene = scene
    # Without its colour tables, every label map would print a warning.
    application_logic.GetColorLogic().SetMRMLScene(scene)
    application_logic.GetColorLogic().AddDefaultColorNodes()
    application_logic.SetModuleLogic("Colors", application_logic.GetColorLogic())
    logics = {name: _add_logic(name, application_logic, scene) for name in _MODULE_LOGICS}
    slicer.modules = types.SimpleNamespace(
        **{name.lower(): types.SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in logics.items()}
    )
    return HeadlessScene(scene, application_logic, logics)


def _add_logic(name: str, application_logic: Any, scene: Any) -> Any:
    logic = getattr(slicer, _MODULE_LOGICS[name])()
    logic.SetMRMLApplicationLogic(application_logic)
    application_logic.SetModuleLogic(name, logic)
    if name != _WITHOUT_SCENE:
        logic.SetMRMLScene(scene)
    return logic
