"""The panel: brings its parts together, follows the parameter node and the controller, and shows what has changed."""

from collections.abc import Callable
from html import escape
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from FoundationSegLib.controller import SegmentationController, Update
from FoundationSegLib.errors import FoundationSegError
from FoundationSegLib.mrml.prompt_markups import remove_orphans
from FoundationSegLib.mrml.scene import Observers

from .advanced_part import AdvancedPart
from .answer_part import AnswerPart, ProgressPart
from .classify_part import ClassifyPart
from .image_part import ImagePart, InputsPart, RecoveryPart, TimePart
from .keys import KeyAction, Keys
from .learning_part import LearningPart
from .model_part import ModelPart
from .parameters import PanelState, Parameters
from .scores_part import MonitoringPart
from .segments_part import PromptsPart, SegmentsPart, TemplatesPart
from .slices import draw_view_under_mouse, is_shown
from .tools_part import ToolsPart, TourPart
from .widgets import UI_FOLDER, Later, connect, draw_views_next, is_image, slot

_LOADING_MS = 300  # until an image that was added is shown, too
_TICK_MS = 8  # a click is answered in 30 ms at best; a tick without news takes microseconds


class Panel:
    """The tabs "Segment" and "Findings".

    Args:
        ui: the widgets of ``FoundationSeg.ui`` by their names.
        logic: the module's logic: models and the worker.
        icon: returns the path of an icon of the module by its name.
    """

    def __init__(self, ui: Any, logic: Any, icon: Callable[[str], str]) -> None:
        self.is_entered = False
        self.icon = icon
        self.effect: EffectPanel | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(_TICK_MS)
        self._timer.connect("timeout()", self._tick)
        self._soon = qt.QTimer()  # scene events come in swarms; all of one turn of the event loop are shown together
        self._soon.setSingleShot(True)
        self._soon.connect("timeout()", self._show_due)
        self._are_segments_due = False
        self._observers, self._segment_observers, self._parameter_observers = Observers(), Observers(), Observers()
        self._is_showing = False
        self._has_orphans = False  # prompts whose segmentation has gone
        self._loading = qt.QTimer()  # an image is there before it is shown
        self._loading.setSingleShot(True)
        self._loading.connect("timeout()", self._choose_loaded)
        self.later = Later(self.report)
        self.controller = SegmentationController(
            logic.client(), logic.catalogue(), self._timer.start, self._timer.stop, self.update, self.later
        )
        self.installer = logic.modelInstaller()
        self.state = state = PanelState(self.controller, self.installer, logic.runnableCards("segment"))
        self.answer = AnswerPart(ui, state, lambda: self.model.set_up())
        report = self.answer.report
        self.model = ModelPart(ui, state, report)
        self.tools = ToolsPart(ui, state, report, icon, self.answer.attempt, self.answer.offer_light_model)
        self.advanced = AdvancedPart(ui, state, report)
        self.monitoring = MonitoringPart(ui, state, report)
        count_image = self.monitoring.count_image
        self.classify = ClassifyPart(ui, state, logic.runnableCards("classify"), self.model.set_up_model, count_image)
        self.prompts = PromptsPart(ui, state, report)
        self._segments = SegmentsPart(ui, state, report)
        self.learning = LearningPart(ui, state, report)
        self.time = TimePart(ui, state, report, self.answer.tell)
        self._segment_parts = (self.tools, self._segments, self.answer, self.prompts, self.learning, self.time)
        inputs = InputsPart(ui, state, report)
        image_parts = (RecoveryPart(ui, state, report), ImagePart(ui, state, report), self.model, inputs)
        self.progress = ProgressPart(ui, state, report)
        self.tour = TourPart(ui, state, report)
        self.templates = TemplatesPart(ui, state, report)
        others = (self.advanced, self.classify, self.monitoring, self.progress, self.templates, self.tour)
        self._parts = (*image_parts, *self._segment_parts, *others)
        self.keys = Keys(ui, report, self._key_actions())
        for area in (ui.segmentsArea, ui.answerPage, ui.messageArea):
            area.viewport().setAutoFillBackground(False)
            area.widget().setAutoFillBackground(False)  # as the rest of the panel
        ui.tabs.connect("currentChanged(int)", lambda _index: self._fit_tabs(ui.tabs))
        self._fit_tabs(ui.tabs)
        scene = slicer.mrmlScene
        self._observers.add_for_nodes(scene, slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._node_removed)
        self._observers.add_for_nodes(scene, slicer.vtkMRMLScene.NodeAddedEvent, self._node_added)

    @property
    def parameters(self) -> Parameters | None:
        """The parameter node; None while a scene is closed."""
        return self.state.parameters

    @property
    def _is_used(self) -> bool:
        """True while the module is entered, or its effect chosen."""
        return self.is_entered or self.effect is not None

    def set_parameters(self, parameters: Parameters | None) -> None:
        """Follow another parameter node, or none while a scene is closed."""
        self._parameter_observers.remove()
        self.state.parameters = parameters
        if parameters is None:
            self._release_views()
            self.controller.close()
            self._segment_observers.remove()
            return
        self._parameter_observers.add(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.follow)
        self.follow()

    def enter(self) -> None:
        """Let tools and keys work: the user has come to the module."""
        self.is_entered = True
        self.model.inspect_once()
        self.lend(None)

    def leave(self) -> None:
        """Give mouse and keys back to Slicer: the user has gone to another module. Requests go on."""
        self.is_entered = False
        self.tour.stop()
        self._release_views()
        if self.parameters is not None:
            self._show_prompts()

    def lend(self, effect: "EffectPanel | None") -> None:
        """Let a Segment Editor's effect draw and show answers in place of the panel's own parts; None: no more."""
        if self.effect is not None and self.effect is not effect:
            self.effect.stop()
        self.effect, self.state.effect = effect, effect.effect if effect is not None else None
        if effect is not None:
            self.model.inspect_once()
        self.follow()

    def close(self) -> None:
        """End everything: the module is closed or reloaded."""
        self.leave()
        self.lend(None)
        self.tools.close()
        self.keys.close()
        self.progress.stop()
        self.classify.close()
        self.learning.close()
        self.model.close()
        self.controller.close()
        for timer in (self._timer, self._soon, self.later):
            timer.stop()
        self._loading.stop()
        for observers in (self._observers, self._segment_observers, self._parameter_observers):
            observers.remove()
        self.state.parameters = None

    @slot
    def follow(self) -> None:
        """Take the parameters up, and have all parts show them."""
        if self.parameters is None or self._is_showing or slicer.mrmlScene.IsClosing():
            return
        self._is_showing = True
        try:
            if self.effect is not None:
                self.effect.follow_editor()
            self.state.sync()
            self.tools.is_active = self.is_entered
            if self.is_entered:
                self.keys.enable()
            for part in self._parts:
                part.show()
            if self.effect is not None:
                self.effect.show()
            self._show_prompts()
        finally:
            self._is_showing = False

    def update(self, what: Update) -> None:
        """Show what the controller says has changed."""
        if self.parameters is None:
            return
        if what == "choices":
            self.follow()
            return
        if what == "nodes":
            self._observe_segments()
        if what in ("outcome", "segments"):
            self._keep_selection()
        if what != "busy":
            self._show_soon()
        if what == "outcome":
            (self.effect or self).answer.forget_error()
            self.monitoring.note_outcome(self.controller.outcome)
        self._soon.start(0)  # once, after the mouse or the answer: several updates come in one turn

    def report(self, error: FoundationSegError) -> None:
        """Show an error."""
        (self.effect or self).answer.report(error)

    @slot
    def _tick(self) -> None:
        before = self.controller.outcome
        draw_views_next()
        self.controller.tick()
        if self.controller.outcome is not before:
            draw_view_under_mouse()

    @slot
    def _show_due(self) -> None:
        """Show a request that is under way; and where segments have changed, those parts that are about them."""
        if self.parameters is None or slicer.mrmlScene.IsClosing():
            return
        self.progress.show()
        if self._are_segments_due:
            self._are_segments_due = False
            self._show_segments()
            return
        for part in (self.answer, self.time, self.learning):
            part.show()
        self.prompts.show_busy()
        self.classify.show_busy()
        if self.effect is not None:
            self.effect.show_busy()

    def _show_segments(self) -> None:
        is_still = self.state.follow_frame()
        self._keep_selection()
        if self.effect is not None:
            self.effect.follow_editor()
            self.effect.show()
        if self.is_entered:
            self.keys.enable()
        for part in (*self._segment_parts, self.classify, self.tour):
            part.show()
        self.advanced.surfaces_due()
        if self._is_used and is_still:
            self.controller.resume()
        self._show_prompts()
        if self._has_orphans:
            self._has_orphans = False
            remove_orphans(slicer.mrmlScene)

    def _show_prompts(self) -> None:
        """Show prompts while there is somebody to use them who wants to see them."""
        self.controller.show_prompts(self._is_used and self.parameters.showPrompts)

    def _keep_selection(self) -> None:
        """Note the selected segment; what follows from it is shown soon, and not within the change."""
        before, self._is_showing = self._is_showing, True
        try:
            self.state.keep_selection()
        finally:
            self._is_showing = before

    def _fit_tabs(self, tabs: Any) -> None:
        """Let the tab in front alone say how high the panel is: a higher one behind it would have the panel scroll."""
        for index in range(tabs.count):
            shown = qt.QSizePolicy.Preferred if index == tabs.currentIndex else qt.QSizePolicy.Ignored
            tabs.widget(index).setSizePolicy(qt.QSizePolicy.Preferred, shown)

    def _release_views(self) -> None:
        self.tools.stop()
        if self.effect is not None:
            self.effect.tools.stop()
        self.keys.disable()

    def _observe_segments(self) -> None:
        self._segment_observers.remove()
        node, volume_node = self.controller.segmentation_node, self.controller.volume_node
        if volume_node is not None:  # a sequence shows another frame
            self._segment_observers.add(volume_node, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, self._show_soon)
        if node is not None:
            self._segment_observers.add(node, node.DisplayModifiedEvent, self._show_soon)
            for event in ("SegmentAdded", "SegmentRemoved", "SegmentModified"):
                self._segment_observers.add(node, getattr(slicer.vtkSegmentation, event), self._show_soon)
            self._segment_observers.add(node, slicer.vtkSegmentation.SegmentsOrderModified, self._rows_moved)

    def _rows_moved(self) -> None:
        self._segments.has_moved_rows = True
        self._show_soon()

    def _show_soon(self) -> None:
        self._are_segments_due = True
        self._soon.start(0)

    def _node_added(self, node: Any) -> None:
        if self.is_entered and is_image(node):
            self._loading.start(_LOADING_MS)

    @slot
    def _choose_loaded(self) -> None:
        """Choose an image that was loaded while the module is open: where none is, or where it took the views."""
        parameters = self.parameters
        if parameters is None or not self.is_entered or slicer.mrmlScene.IsImporting():
            return
        chosen = parameters.volume
        images = list(filter(is_image, slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")))
        if images and (chosen is None or (is_shown(images[-1]) and not is_shown(chosen))):
            parameters.volume = images[-1]

    def _node_removed(self, node: Any) -> None:
        controller = self.controller
        if node.IsA("vtkMRMLSegmentationNode"):
            self._has_orphans = True
            self._show_soon()
        if self.parameters is not None and node in (controller.volume_node, controller.segmentation_node):
            self._release_views()
            if node is controller.segmentation_node:
                self.parameters.segmentId = ""
            controller.node_removed(node)
            self._show_soon()

    def _key_actions(self) -> tuple[KeyAction, ...]:
        tools, controller = self.tools, self.controller
        return (
            KeyAction("point", "1", _("point"), lambda: tools.toggle("point")),
            KeyAction("box", "2", _("box"), lambda: tools.toggle("box")),
            KeyAction("scribble", "3", _("scribble"), lambda: tools.toggle("scribble")),
            KeyAction("lasso", "4", _("lasso"), lambda: tools.toggle("lasso")),
            KeyAction("polarity", "X", _("positive or negative"), tools.toggle_polarity),
            KeyAction("new", "N", _("new segment"), self.state.add_segment),
            KeyAction("undo", "Ctrl+Z", _("undo"), controller.undo),
            KeyAction("redo", "Ctrl+Y", _("redo"), controller.redo),
            KeyAction("doubtful", "D", _("next doubtful slice"), self.answer.show_next_doubtful),
            KeyAction("removePrompt", "Backspace", _("take the last prompt back"), controller.remove_prompts),
            KeyAction(
                "accept", "Return", _("accept the last change, or what waits to be confirmed"), controller.accept
            ),
        )


class EffectPanel:
    """The panel's tools, answers and progress once more, in the options of a Segment Editor's effect.

    Args:
        panel: its state is shared: controller, session, history and parameters.
        effect: the `qSlicerSegmentEditorScriptedEffect`, whose parameter node says what is worked on.

    Attributes:
        effect: as above.
        tools, answer, progress: the parts.
    """

    def __init__(self, panel: Panel, effect: Any) -> None:
        self.panel, self.effect, self._state = panel, effect, panel.state
        widget = slicer.util.loadUI(str(UI_FOLDER / "Effect.ui"))
        effect.addOptionsWidget(widget)
        self._ui = ui = slicer.util.childWidgetVariables(widget)
        self.answer = AnswerPart(ui, self._state, panel.model.set_up)
        report, offer_light_model = self.answer.report, self.answer.offer_light_model
        self.tools = ToolsPart(ui, self._state, report, panel.icon, self._attempt, offer_light_model)
        self.progress = ProgressPart(ui, self._state, report)
        self.report = report
        connect(self, ui.modelLabel, "linkActivated(QString)", lambda: slicer.util.selectModule("FoundationSeg"))
        self._observers = Observers()
        self._chosen: tuple[Any, Any, str] | None = None

    def start(self) -> None:
        """Work on what is chosen in the editor, with a tool in hand: the effect was chosen."""
        self._chosen = None
        parameters, card = self._state.parameters, self._state.card
        if parameters is not None and not parameters.tool and card is not None:
            parameters.tool = next(filter(card.takes, ("box", "point", "scribble", "lasso")), "")
        node = self.effect.parameterSetNode()
        if node is not None and not self._observers:
            self._observers.add(node, vtk.vtkCommand.ModifiedEvent, self._editor_changed)
        self.panel.lend(self)

    def stop(self) -> None:
        """Leave the views to Slicer: another effect was chosen, or none. What was asked is still answered."""
        self._observers.remove()
        self.tools.stop()
        self.progress.stop()

    def close(self) -> None:
        """End for good: the editor is about to be destroyed."""
        self.stop()
        self.tools.close()

    def show(self) -> None:
        """Show what is possible and what has happened; what the editor's undo has done is found out first."""
        session, card = self._state.controller.session, self._state.card
        if session is not None:
            session.detect_external_changes()
        self.tools.is_active = True
        self.tools.show()
        self.show_busy()
        text = _("Model: <a href='model'>{title}</a>").format(title=escape(card.title) if card else _("none"))
        is_ready = card is None or self._state.is_model_ready
        self._ui.modelLabel.setText(text if is_ready else f"{text} · <b>{_('not set up yet')}</b>")

    def show_busy(self) -> None:
        """Show what is under way and what has come of it."""
        self.answer.show()
        self.progress.show()

    def follow_editor(self) -> None:
        """Take over what was chosen in the editor since; otherwise have it show what was chosen here."""
        node, parameters = self.effect.parameterSetNode(), self._state.parameters
        if node is None or parameters is None:
            return
        volume, segmentation, segment_id = chosen = _chosen_in(node)
        if chosen != self._chosen or parameters.volume is not volume:
            parameters.volume, parameters.segmentation = volume, segmentation
            self._state.sync()
            if parameters.segmentation is not segmentation:  # the image's own was taken in its place
                parameters.segmentation = segmentation
                self._state.sync()
            parameters.segmentId = segment_id
        else:
            if parameters.segmentation not in (None, segmentation):
                node.SetAndObserveSegmentationNode(parameters.segmentation)
            if parameters.segmentId not in ("", segment_id):
                node.SetSelectedSegmentID(parameters.segmentId)
        self._chosen = _chosen_in(node)

    @slot
    def _editor_changed(self) -> None:
        if _chosen_in(self.effect.parameterSetNode()) != self._chosen:
            self.panel.follow()

    def _attempt(self, action: Callable[[], object]) -> None:
        """Give a prompt, unless the segment is hidden and the user does not want that, as with any effect."""
        if self.effect.confirmCurrentSegmentVisible() != self.effect.NotConfirmed:
            self.answer.attempt(action)


def _chosen_in(editor_node: Any) -> tuple[Any, Any, str]:
    volume, segmentation = editor_node.GetSourceVolumeNode(), editor_node.GetSegmentationNode()
    return volume, segmentation, editor_node.GetSelectedSegmentID() or ""
