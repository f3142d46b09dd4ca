"""The image, how its values are read, the line that names the choices, and work that a crash has left."""

import time
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.intensity import check_policy
from FoundationSegLib.mrml.volumes import belongs_to

from .parameters import PanelState
from .slices import is_shown
from .widgets import ChoiceBox, Part, Report, slot

if TYPE_CHECKING:
    from FoundationSegLib.mrml.scene_recovery import LostSession

_CUSTOM = "custom"


class ImagePart(Part):
    """The image and its intensity policy."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        policies = (
            ("auto", _("Automatic")),
            ("ct-soft-tissue", _("CT soft tissue, W400 L40")),
            ("ct-lung", _("CT lung, W1500 L-600")),
            ("ct-bone", _("CT bone, W1800 L400")),
            ("percentile", _("Percentiles (0.5 to 99.5)")),
            ("display", _("As displayed")),
            ("raw", _("All values")),
            (_CUSTOM, _("Width, level:")),
        )
        self._intensity = ChoiceBox(ui.intensityBox, self._policy_chosen, policies)
        self._is_custom = False
        self._connect(ui.windowEdit, self._window_edited, "editingFinished()")
        # The parameter node wrapper's own connection offers nodes of the parameter's class alone: no colour images.
        self._connect(ui.volumeSelector, self._volume_chosen, "currentNodeChanged(vtkMRMLNode*)")
        self._connect(ui.volumeSelector, self._volume_activated, "nodeActivated(vtkMRMLNode*)")

    def show(self) -> None:
        """Show the parameter node's choice."""
        ui, policy, volume = self._ui, self._parameters.intensity, self._parameters.volume
        if ui.volumeSelector.currentNode() is not volume:
            ui.volumeSelector.setCurrentNode(volume)
        rule = {
            "": _("Automatic"),
            "ct-soft-tissue": _("Automatic: CT soft tissue, W400 L40"),
            "percentile": _("Automatic: percentiles (0.5 to 99.5)"),
            "colour": _("Automatic: colours as they are"),
        }[self._controller.automatic_intensity()]
        if ui.intensityBox.itemText(0) != rule:
            ui.intensityBox.setItemText(0, rule)
        is_window = "," in policy
        self._intensity.show(_CUSTOM if is_window or self._is_custom else policy)
        ui.windowEdit.setVisible(is_window or self._is_custom)
        if is_window and not ui.windowEdit.hasFocus():
            ui.windowEdit.setText(policy)

    @slot
    def _policy_chosen(self, policy: str) -> None:
        self._is_custom = policy == _CUSTOM
        if not self._is_custom:
            self._parameters.intensity = policy
        self.show()

    def _window_edited(self) -> None:
        text = self._ui.windowEdit.text.replace(" ", "")
        if text and text != self._parameters.intensity:
            try:
                check_policy(text)
            except InputError as error:
                raise InputError(_("write the window as width,level, for example 350,50")) from error
            self._parameters.intensity = text

    def _volume_chosen(self) -> None:
        node = self._ui.volumeSelector.currentNode()
        if self._parameters is not None and node is not self._parameters.volume:
            self._parameters.volume = node

    def _volume_activated(self) -> None:
        """Show the image that the user has chosen in the slice views, if none of them shows it."""
        node = self._ui.volumeSelector.currentNode()
        if self._parameters is None or node is None or slicer.app.layoutManager() is None or is_shown(node):
            return
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        self._controller.on_update("segments")  # the hint said that no view shows it


class InputsPart(Part):
    """The line that names image, segmentation, model and intensity, and the frame below it, where they are chosen.

    The frame closes by itself once image and model can be used, unless the user opened it, and opens where one cannot.
    """

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self._is_ready: bool | None = None
        self._is_pinned = False
        self._connect(ui.inputsButton, self._toggled, "toggled(bool)")
        self._connect(ui.inputsButton, self._clicked, "clicked(bool)")

    def show(self) -> None:
        """Show the choices in a line, and open or close the frame where the image or the model has become usable."""
        ui, is_ready = self._ui, self._parameters.volume is not None and self._state.is_model_ready
        if is_ready != self._is_ready:
            self._is_ready = is_ready
            ui.inputsButton.setChecked(not is_ready or self._is_pinned)
        texts = [text for text in self._texts() if text]
        width = max(120, ui.inputsButton.width - 44)
        ui.inputsButton.setText(ui.inputsButton.fontMetrics().elidedText(" · ".join(texts), qt.Qt.ElideRight, width))
        ui.inputsButton.setToolTip("\n".join([*texts, _("Click to change.")]))

    def _texts(self) -> tuple[str, ...]:
        parameters, card = self._parameters, self._state.card
        intensity = self._ui.intensityBox.currentText.split(": ")[-1]  # without "Automatic"
        return (
            parameters.volume.GetName() if parameters.volume is not None else _("No image"),
            card.title if card is not None else _("No model"),
            parameters.intensity if "," in parameters.intensity else intensity,
            parameters.segmentation.GetName() if parameters.segmentation is not None else _("new segmentation"),
        )

    def _clicked(self, is_open: bool) -> None:
        self._is_pinned = is_open

    def _toggled(self, is_open: bool) -> None:
        self._ui.inputsFrame.setVisible(is_open)
        self._ui.inputsButton.setArrowType(qt.Qt.DownArrow if is_open else qt.Qt.RightArrow)


class RecoveryPart(Part):
    """The offer at the top of the panel, once the image that lost work belongs to is chosen."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self._searched_node: Any = None
        self._lost: LostSession | None = None
        self._connect(ui.restoreButton, self._restore)
        self._connect(ui.forgetButton, self._forget)

    def show(self) -> None:
        """Search for lost work on the chosen image, once for each image."""
        node = self._parameters.volume
        if node is not self._searched_node:
            self._searched_node, self._lost = node, None
            if node is not None:
                from FoundationSegLib.mrml.scene_recovery import find_lost_sessions

                self._lost = next((lost for lost in find_lost_sessions() if lost.is_of(node)), None)
        self._ui.recoveryFrame.setVisible(self._lost is not None)
        if self._lost is not None:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self._lost.recovery.saved))
            text = _("Slicer ended unexpectedly on {when}. Work on this image was kept: {names}.")
            self._ui.recoveryLabel.setText(text.format(when=when, names=", ".join(self._lost.segments)))

    def _restore(self) -> None:
        lost, parameters = self._lost, self._parameters
        if lost is None:
            return
        self._controller.leave()
        volume, chosen = parameters.volume, parameters.segmentation
        node = lost.restore(volume, chosen if chosen is not None and belongs_to(chosen, volume) else None)
        self._drop()
        parameters.segmentation = node
        self._controller.on_update("choices")

    def _forget(self) -> None:
        self._drop()
        self.show()

    def _drop(self) -> None:
        lost, self._lost = self._lost, None
        if lost is not None:
            lost.discard()
