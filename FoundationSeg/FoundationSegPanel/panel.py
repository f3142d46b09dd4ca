"""The panel: brings its parts together, keeps the desk in step with the parameter node, and shows what has changed."""

from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk

from FoundationSegLib.api_nodes import make_segmentation
from FoundationSegLib.desk import Desk, Told
from FoundationSegLib.desk_actions import select
from FoundationSegLib.errors import FoundationSegError
from FoundationSegLib.mrml.reference_image import belongs_to
from FoundationSegLib.mrml.scene import Observers
from FoundationSegLib.session.segment_store import OverlapPolicy
from FoundationSegLib.session.steps import ModelChoice

from .advanced_part import AdvancedPart
from .answer_part import AnswerPart
from .classify_part import ClassifyPart
from .image_part import ImagePart
from .model_part import ModelPart
from .parameters import Parameters
from .prompts_part import PromptsPart
from .recovery_part import RecoveryPart
from .segments_part import SegmentsPart
from .slots import slot
from .tools_part import ToolsPart

_TICK_MS = 15  # a click is answered in 30 ms at best; a tick that finds nothing takes microseconds


class Panel:
    """What the module shows: the tabs "Segment" and "Classify".

    Args:
        ui: the widgets of ``FoundationSeg.ui`` by their names.
        logic: the module's logic: models and the worker.
        icon: the path of an icon of the module by its name.
    """

    def __init__(self, ui: Any, logic: Any, icon: Callable[[str], str]) -> None:
        self.ui, self.logic, self.icon = ui, logic, icon
        self.parameters: Parameters | None = None
        self.is_entered = False
        self._timer = qt.QTimer()
        self._timer.setInterval(_TICK_MS)
        self._timer.connect("timeout()", self.tick)
        self._soon = qt.QTimer()  # scene events come in swarms; all of one turn of the event loop are shown together
        self._soon.setSingleShot(True)
        self._soon.connect("timeout()", self.show_segments)
        self.desk = Desk(logic.client(), logic.catalogue(), self._timer.start, self._timer.stop, self.told)
        self._observers, self._segments_observed, self._parameters_observed = Observers(), Observers(), Observers()
        self._is_showing = False
        self.answer = AnswerPart(self)
        self.image = ImagePart(self)
        self.model = ModelPart(self)
        self.segments = SegmentsPart(self)
        self.tools = ToolsPart(self)
        self.prompts = PromptsPart(self)
        self.advanced = AdvancedPart(self)
        self.recovery = RecoveryPart(self)
        self.classify = ClassifyPart(self)
        self._parts = (
            self.recovery,
            self.image,
            self.model,
            self.tools,
            self.segments,
            self.answer,
            self.prompts,
            self.advanced,
            self.classify,
        )
        scene = slicer.mrmlScene
        self._observers.add_for_nodes(scene, slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._node_removed)

    def set_parameters(self, parameters: Parameters | None) -> None:
        """Follow another parameter node, or none while a scene is closed."""
        self._parameters_observed.remove()
        self.parameters = parameters
        if parameters is None:
            self.tools.stop()
            self.desk.close()
            self._segments_observed.remove()
            return
        self._parameters_observed.add(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.follow)
        self.follow()

    def enter(self) -> None:
        """The user has come to the module: tools and keys work."""
        self.is_entered = True
        self.model.look()
        self.follow()

    def leave(self) -> None:
        """The user has gone to another module: the mouse and the keys are Slicer's; requests go on."""
        self.is_entered = False
        self.tools.stop()

    def close(self) -> None:
        """The module is closed or reloaded."""
        self.leave()
        self.model.close()
        self.desk.close()
        self._timer.stop()
        self._soon.stop()
        self._observers.remove()
        self._segments_observed.remove()
        self._parameters_observed.remove()
        self.parameters = None

    @slot
    def tick(self) -> None:
        """The timer: take answers in."""
        self.desk.tick()

    @slot
    def follow(self) -> None:
        """The parameter node has changed: the desk goes by it, and all parts show it."""
        wanted = self.parameters
        if wanted is None or self._is_showing or slicer.mrmlScene.IsClosing():
            return
        self._is_showing = True
        try:
            self._take_up(wanted)
            for part in self._parts:
                part.show()
        finally:
            self._is_showing = False

    def make_ready(self) -> None:
        """Before something is asked: there is a segmentation, and the desk goes by what is wished now.

        Raises:
            InputError, GeometryError: changes are to be limited to a region of interest, and there is none.
        """
        self.advanced.require_region()
        self.ensure_segmentation()
        if self.parameters is not None:
            self._wish(self.parameters)  # a region may have been moved, of which no parameter tells

    def show_soon(self) -> None:
        """Show what is about segments in the next turn of the event loop."""
        self._soon.start(0)

    def told(self, what: Told) -> None:
        """The desk has news."""
        if self.parameters is None:
            return
        if what in ("outcome", "segments"):
            self._keep_segment()
            self._soon.start(0)
        if what == "outcome":
            self.answer.forget_error()
        self.answer.show()
        self.classify.show_busy()

    @slot
    def show_segments(self) -> None:
        """Segments have changed: show those parts that are about them."""
        if self.parameters is not None and not slicer.mrmlScene.IsClosing():
            self._keep_segment()
            for part in (self.segments, self.prompts, self.tools, self.answer, self.classify):
                part.show()
            self.advanced.surfaces_due()

    def tell(self, error: FoundationSegError) -> None:
        """Show an error; the boundary of all slots comes here."""
        self.answer.tell(error)

    def choice(self) -> ModelChoice | None:
        """The chosen model, as the session wants it."""
        card = self.model.card
        if card is None or self.parameters is None:
            return None
        region = self.advanced.region() if self.parameters.seesRegionOnly else None
        return ModelChoice.of(card, self.parameters.intensity or "auto", region)

    def ensure_segmentation(self) -> None:
        """Make a segmentation for the image if none is chosen."""
        wanted = self.parameters
        if wanted is None or wanted.volume is None or wanted.segmentation is not None:
            return
        wanted.segmentation = make_segmentation(wanted.volume)

    def _take_up(self, wanted: Parameters) -> None:
        """Have the desk work on what is chosen, as it is wished."""
        desk = self.desk
        is_loading = slicer.mrmlScene.IsImporting() or slicer.mrmlScene.IsRestoring()  # its choices come with it
        if wanted.volume is not None and wanted.volume is not desk.volume_node and not is_loading:
            self._choose_own(wanted)
        if wanted.segmentation is not desk.segmentation_node:
            had_another = desk.segmentation_node is not None
            desk.use(wanted.volume, wanted.segmentation)
            self._observe_segments()
            if had_another and wanted.segmentId:
                wanted.segmentId = ""  # even if there is one of this id: nobody has chosen it
        else:
            desk.use(wanted.volume, wanted.segmentation)
        self._wish(wanted)
        if wanted.segmentId != desk.segment_id:
            select(desk, wanted.segmentId)

    def _choose_own(self, wanted: Parameters) -> None:
        """Another image was chosen: its own segmentation goes with it, or none, unless one was chosen, too."""
        chosen = wanted.segmentation
        is_left_over = chosen is None or chosen is self.desk.segmentation_node
        if is_left_over and (chosen is None or not belongs_to(chosen, wanted.volume)):
            wanted.segmentation = self.desk.own_segmentation(wanted.volume)

    def use_own(self) -> None:
        """Put another image's segmentation away: this image's own takes its place, or a new one."""
        if self.parameters is not None and self.parameters.volume is not None:
            self.parameters.segmentation = self.desk.own_segmentation(self.parameters.volume)
            self.make_ready()

    def _wish(self, wanted: Parameters) -> None:
        wishes = self.desk.wishes
        wishes.choice = self.choice()
        wishes.policy = OverlapPolicy(wanted.overlap)
        wishes.ask_above = None if wanted.askAbovePercent >= 100 else wanted.askAbovePercent / 100
        wishes.many_objects, wishes.kind = wanted.manyObjects, wanted.kind
        wishes.masking_node = self.advanced.masking_node()
        wishes.region = self.advanced.region()

    def _keep_segment(self) -> None:
        if self.parameters is not None and self.parameters.segmentId != self.desk.segment_id:
            self.parameters.segmentId = self.desk.segment_id

    def _observe_segments(self) -> None:
        self._segments_observed.remove()
        node = self.desk.segmentation_node
        if node is not None:
            for event in ("SegmentAdded", "SegmentRemoved", "SegmentModified"):
                self._segments_observed.add(node, getattr(slicer.vtkSegmentation, event), self._segments_changed)

    def _segments_changed(self) -> None:
        self.show_soon()

    def _node_removed(self, node: Any) -> None:
        if self.parameters is not None and node in (self.desk.volume_node, self.desk.segmentation_node):
            self.tools.stop()
            if node is self.desk.segmentation_node:
                self.parameters.segmentId = ""
            self.desk.node_removed(node)
            self._observe_segments()
            self._soon.start(0)
