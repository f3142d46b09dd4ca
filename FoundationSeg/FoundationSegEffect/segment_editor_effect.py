"""The effect "Foundation prompt" of Slicer's Segment Editor: the panel's tools and session in another place."""

import importlib
from pathlib import Path
from typing import Any

import qt
import slicer
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

_ICON = Path(__file__).resolve().parents[1] / "Resources" / "Icons" / "effect.png"


class FoundationPromptEffect(AbstractScriptedSegmentEditorEffect):
    """The effect in one Segment Editor. The panel is built, and imported, once somebody chooses it."""

    def __init__(self, scriptedEffect: Any) -> None:
        scriptedEffect.name = "Foundation prompt"  # scripts and scenes name it so: not translated
        scriptedEffect.title = _("Foundation prompt")
        scriptedEffect.perSegment = False  # without a selected segment, a prompt makes one
        scriptedEffect.requireSegments = False
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self._options: Any = None

    def clone(self) -> Any:
        """Make the effect for another editor."""
        return make_effect()

    def icon(self) -> Any:
        """Return the icon of the button."""
        return qt.QIcon(str(_ICON))

    def helpText(self) -> str:
        """Say how it is used; the rest is folded behind the first line."""
        return "<html>{first}<br>. {rest}</html>".format(
            first=_("Segment by boxes, points, scribbles, outlines and words, with a foundation model."),
            rest=_(
                "A prompt goes to the selected segment, and makes one where none is selected. Changes keep to the "
                "editable area and intensity range below; locked segments of FoundationSeg keep their voxels. Undo and "
                "redo of the editor go through prompts, too. Choose and set up models in the module FoundationSeg, "
                "which shares prompts and history."
            ),
        )

    def activate(self) -> None:
        """Arm the tool on the editor's segment."""
        widget = slicer.util.getModuleWidget("FoundationSeg")
        if widget.panel is None:
            return
        widget.initializeParameterNode()
        if self._options is None or self._options.panel is not widget.panel:  # the module was reloaded
            from FoundationSegPanel.panel import EffectPanel

            self.cleanup()
            self._options = EffectPanel(widget.panel, self.scriptedEffect)
        self._options.start()

    def deactivate(self) -> None:
        """Leave the views to Slicer."""
        if self._options is not None:
            self._options.stop()
            if self._options.panel.effect is self._options:
                self._options.panel.lend(None)

    def createCursor(self, viewWidget: Any) -> Any:
        """Name the segment at the cursor."""
        return self._options.tools.cursor if self._options is not None else qt.QCursor()

    def cleanup(self) -> None:
        """Let go of everything: the editor is about to be destroyed."""
        self.deactivate()
        if self._options is not None:
            self._options.close()
        self._options = None


def make_effect() -> Any:
    """Make the effect, a `qSlicerSegmentEditorScriptedEffect`, as Slicer wants it.

    Slicer takes the class out of the package that is called as this file's folder, by a name made of the file's. Where
    it does not find it, it loads this file in the package's place.
    """
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    path = Path(__file__).resolve()
    setattr(importlib.import_module(path.parent.name), f"{path.stem}Effect", FoundationPromptEffect)
    effect = effects.qSlicerSegmentEditorScriptedEffect(None)
    effect.setPythonSource(path.as_posix())
    return effect
