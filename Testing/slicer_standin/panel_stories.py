"""Stories of a panel that is read from a file, and of a parameter node that its widgets follow."""

import enum
import pathlib
from pathlib import Path
from typing import Annotated, Any

from Testing.slicer_standin.stories import Ear, add_volume, story

UI = Path(__file__).with_name("story.ui")


class Device(enum.Enum):
    AUTO = 1
    CPU = 2


def _wrapper_class() -> type:
    from slicer import vtkMRMLScalarVolumeNode
    from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper

    @parameterNodeWrapper
    class Parameters:
        volume: vtkMRMLScalarVolumeNode
        level: Annotated[float, WithinRange(0, 10), Default(2.5)]
        invert: bool = False
        policy: Annotated[str, Choice(["auto", "ct", "raw"]), Default("ct")]
        device: Device = Device.CPU
        count: Annotated[int, WithinRange(0, 9)] = 4
        words: str = "liver"
        folder: pathlib.Path

    return Parameters


def _load() -> tuple[Any, Any]:
    import slicer

    slicer.mrmlScene.Clear(0)
    panel = slicer.util.loadUI(str(UI))
    return panel, slicer.util.childWidgetVariables(panel)


@story(
    [
        ["apply", "check", "count", "device", "folder", "label", "policy", "section", "segments", "slider"],
        ("qMRMLWidget", "qMRMLNodeComboBox", "QDoubleSpinBox", "QPushButton"),
        (("vtkMRMLScalarVolumeNode",), True, False, True),
        (True, "Advanced", True),
        [False, False, True, False, False, True],
        (0.5, 8193, 9, False, 7),
        (None, True, True),
        (True, [("toggled", True)]),
        (False, True),
    ]
)
def a_panel_from_a_file() -> list[Any]:
    import slicer

    panel, ui = _load()
    own = ("apply", "check", "count", "device", "folder", "label", "policy", "section", "segments", "slider")
    found: list[Any] = [[name for name in own if hasattr(ui, name)]]
    found.append(tuple(one.className() for one in (panel, ui.volumeSelector, ui.slider, ui.apply)))
    selector = ui.volumeSelector
    found.append((selector.nodeTypes, selector.noneEnabled, selector.addEnabled, "The volume" in selector.toolTip))
    found.append((ui.section.collapsed, ui.section.text, ui.slider.isVisibleTo(panel)))
    sizes = (ui.slider.singleStep, int(ui.folder.filters), ui.count.maximum)
    found.append((*sizes, ui.segments.opacityColumnVisible, ui.apply.sizePolicy.horizontalPolicy()))
    before = selector.mrmlScene()
    panel.setMRMLScene(slicer.mrmlScene)
    found.append((before, selector.mrmlScene() is slicer.mrmlScene, ui.segments.mrmlScene() is slicer.mrmlScene))
    ear = Ear(ui.check, "toggled(bool)")
    ui.apply.checked = True
    found.append((ui.check.checked, ear.take()))
    panel.show()
    shown = [ui.slider.isVisibleTo(panel)]
    for change in (
        lambda: setattr(ui.slider, "visible", True),
        lambda: setattr(ui.section, "collapsed", False),
        lambda: ui.slider.setVisible(False),
        lambda: (setattr(ui.section, "collapsed", True), setattr(ui.section, "collapsed", False)),
        lambda: (setattr(ui.section, "collapsed", True), ui.slider.show(), setattr(ui.section, "collapsed", False)),
    ):
        change()
        shown.append(ui.slider.isVisibleTo(panel))
    found.insert(4, shown)
    panel.close()
    found.append((ui.apply.parent() is ui.section, ui.apply.parent() is panel))
    panel.setMRMLScene(None)
    return found


@story(
    [
        (None, 2.5, False, "ct", "CPU", 4, "liver", "."),
        ("", 2.5, False, "ct", "CPU", 4, "liver", "."),
        (0.0, 10.0, ["auto", "ct", "raw"], ["AUTO", "CPU"]),
        ("CT", 7.0, True, "raw", "AUTO", 9, "kidney", "/tmp"),
        ("CT", 7.0, True, "raw", "AUTO", 9, "kidney", "/tmp"),
        ["7.0", "True", "raw", "AUTO", "9", "kidney", "/tmp"],
        (None, 1.5, True, "auto", "CPU", 9, "spleen", "/tmp"),
        ("", 1.5, True, "auto", "CPU", 9, "spleen", "/tmp"),
        [ValueError, ValueError, ValueError],
        ("kidney", "spleen"),
    ]
)
def parameters_and_widgets_follow_each_other() -> list[Any]:
    import slicer

    parameters_class = _wrapper_class()
    panel, ui = _load()
    volume = add_volume("CT")
    panel.setMRMLScene(slicer.mrmlScene)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    parameters = parameters_class(node)
    found: list[Any] = []

    def in_node() -> None:
        chosen = None if parameters.volume is None else parameters.volume.GetName()
        rest = (parameters.level, parameters.invert, parameters.policy, parameters.device.name, parameters.count)
        found.append((chosen, *rest, parameters.words, str(parameters.folder)))

    def in_widgets() -> None:
        chosen = "" if ui.volumeSelector.currentNode() is None else ui.volumeSelector.currentNode().GetName()
        choices = (ui.policy.currentText, ui.device.currentText)
        found.append(
            (chosen, ui.slider.value, ui.check.checked, *choices, ui.count.value, ui.words.text, ui.folder.currentPath)
        )

    in_node()
    tag = parameters.connectGui(ui)
    in_widgets()
    entries = [[box.itemText(n) for n in range(box.count)] for box in (ui.policy, ui.device)]
    found.append((ui.slider.minimum, ui.slider.maximum, *entries))
    ui.volumeSelector.setCurrentNode(volume)
    ui.slider.value = 7
    ui.check.checked = True
    ui.policy.currentText = "raw"
    ui.device.setCurrentIndex(0)
    ui.count.value = 12
    ui.words.text = "kidney"
    ui.folder.currentPath = "/tmp"
    in_node()
    in_widgets()
    found.append(
        [node.GetParameter(name) for name in ("level", "invert", "policy", "device", "count", "words", "folder")]
    )
    parameters.volume, parameters.level, parameters.policy = None, 1.5, "auto"
    parameters.device, parameters.words = Device.CPU, "spleen"
    in_node()
    in_widgets()
    errors = []
    for name, value in (("level", 11.0), ("policy", "other"), ("count", 10)):
        try:
            setattr(parameters, name, value)
        except Exception as error:
            errors.append(type(error))
    found.append(errors)
    parameters.disconnectGui(tag)
    ui.words.text = "kidney"
    found.append((ui.words.text, parameters.words))
    panel.setMRMLScene(None)
    return found
