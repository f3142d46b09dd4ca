"""The image: how its values are read, the line of choices, its frames in time, and work that a crash has left."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.errors import Cancelled, InputError
from FoundationSegLib.imaging.intensity import check_policy
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.volumes import belongs_to, browser_of
from FoundationSegLib.requests.segmentation import Prediction
from FoundationSegLib.session.segments import export_prompts
from FoundationSegLib.worker.protocol import Answered, Event, Failed

from .parameters import PanelState
from .slices import is_shown
from .widgets import ChoiceBox, Part, Report, slot

if TYPE_CHECKING:
    from FoundationSegLib.api_nodes import SegmentedSequence, SequenceRun
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


class TimePart(Part):
    """The button that follows the prompts of the frame that is shown through all frames of a sequence, and back.

    Args:
        ui, state, report: see :class:`~.widgets.Part`.
        tell: shows the user a text, and a button with its action.
    """

    def __init__(
        self, ui: Any, state: PanelState, report: Report, tell: Callable[[str, str, Callable[[], object]], None]
    ) -> None:
        super().__init__(ui, state, report)
        self._tell = tell
        self._run: SequenceRun | None = None
        self._frame: Volume | None = None
        self._connect(ui.timeButton, self._start)

    def show(self) -> None:
        """Offer it where a sequence browser shows the image in frames."""
        node, button = self._parameters.volume, self._ui.timeButton
        browser = browser_of(node) if node is not None else None
        button.setVisible(browser is not None and browser.GetNumberOfItems() > 1)
        button.setEnabled(not self._controller.is_busy)

    def _start(self) -> None:
        from FoundationSegLib.api_nodes import SequenceRun

        self._state.prepare()
        controller, prompts = self._controller, export_prompts(self._controller.open())
        if not prompts.segments:
            raise InputError(_("Give a segment a prompt in this frame first: it is followed to the others."))
        if controller.options.choice is None:
            raise InputError(_("choose a model first"))
        volume_node, node = controller.volume_node, controller.segmentation_node
        earlier = node if browser_of(node) is browser_of(volume_node) else None
        self._run = SequenceRun(volume_node, prompts, controller.options.choice, earlier)
        self._ask(None)

    def _ask(self, answer: Prediction | None) -> None:
        """Ask about the next frame; after the last, write all of them."""
        controller, run = self._controller, self._run
        following = run.next_request(answer)
        if following is not None:
            self._frame = following[0]
            controller.client.send_volume(self._frame)
            controller.submit(following[1], self._take)
            controller.report = run.report
            return
        self._run, before, selected = None, controller.segmentation_node, controller.selected_node_segment
        name = selected.GetName() if selected is not None else ""
        result = run.write()
        self._choose(result.segmentation_node, name)

        def undo() -> None:
            result.undo()
            self._choose(before, name)

        self._tell(_time_text(result), _("Undo"), undo)

    @slot
    def _take(self, event: Event) -> None:
        if not isinstance(event, Answered | Failed):
            self._controller.report = self._run.report  # in frames, and not in the slices of this one
            return
        session = self._controller.session
        if session is None or session.volume.key != self._frame.key:
            self._controller.client.remove_volume(self._frame.key)
        if isinstance(event, Answered):
            self._ask(event.answer)
        else:
            self._run = None
            if not isinstance(event.error, Cancelled):
                self.report(event.error)

    def _choose(self, node: Any, name: str) -> None:
        """Work on a segmentation, and on its segment of that name, from now on."""
        self._parameters.segmentation = node
        self._parameters.segmentId = node.GetSegmentation().GetSegmentIdBySegmentName(name)


def _time_text(result: "SegmentedSequence") -> str:
    """Say how many frames there are, and how much each segment changes and blinks."""
    rows = []
    for name, row in result.consistency.items():
        sizes, unit = (row["volumes_ml"], _("ml")) if "volumes_ml" in row else (row["pixels"], _("pixels"))
        text = _("{name}: {least:.4g} to {most:.4g} {unit}, flicker {share:.1f} %")
        share = 100 * row["flicker"]
        rows.append(text.format(name=name, least=min(sizes), most=max(sizes), unit=unit, share=share))
    count = len(next(iter(next(iter(result.consistency.values())).values())))
    text = _("Followed through {count} frames. {segments}. A chart of the volumes is in the scene.")
    if result.corrected:
        text += " " + _("{count} corrected frames stayed as they were.").format(count=len(result.corrected))
    return text.format(count=count, segments="; ".join(rows))
