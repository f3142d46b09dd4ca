"""The choices of the panel, kept in the scene by a parameter node, and the state that all parts of the panel share."""

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any

import slicer
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper

from FoundationSegLib.api import has_nvidia_driver
from FoundationSegLib.api_nodes import make_segmentation
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.controller import SegmentationController, UserOptions
from FoundationSegLib.errors import FoundationSegError, InputError
from FoundationSegLib.mrml.volumes import belongs_to, box_of_roi, browser_of, reference_image
from FoundationSegLib.prompts.regions import AroundPrompt, InsideBox, Region, SliceRange
from FoundationSegLib.session.segment_store import OverlapPolicy
from FoundationSegLib.session.steps import ModelChoice

from .model_installer import ModelInstaller

TOOLS = ("", "point", "box", "scribble", "lasso")
OVERLAPS = ("protect", "protect-locked", "allow", "overwrite")
DIRECTIONS = ("both", "up", "down")
BETWEEN = ("model", "interpolate")
REGIONS = ("none", "around", "slices", "roi")
SUBJECTS = ("slice", "range", "volume", "roi", "segment")


@parameterNodeWrapper
class Parameters:
    """The user's choices.

    Attributes:
        volume, segmentation, segmentId: the image, and the segment that is worked on.
        modelId: the model; empty for the one that suits this computer.
        intensity: the policy; see :mod:`FoundationSegLib.imaging.intensity`.
        tool: the kind of prompt that the mouse draws; empty for none.
        isNegative: prompts mark what does not belong to the object.
        kind: the name of new segments.
        manyObjects: each prompt makes a segment of its own.
        direction, rangeLimited, rangeFrom, rangeTo: of propagation; the last slice is included.
        between: propagation asks the model, or interpolates between the user's slices.
        showDoubt: the model's own doubt of each slice is shown below its answer.
        region: the limit of changes; regionRadius in mm, regionFrom, regionTo (included) and roi are for it.
        seesRegionOnly: the model sees nothing else of the image.
        overlap: who keeps voxels that two segments want.
        sameAsSegmentEditor: the Segment Editor's editable area is kept to.
        askAbovePercent: of a segment that a prompt may delete without being asked for; 100: never ask.
        scribbleRadius: half the width of scribbles in mm; 0 for the rule of the prompts file.
        showSurfaces: segments have surfaces in the 3-D views.
        showPrompts: prompts of visible segments are shown while the module is open.
        classifyModelId, labelSet, ownLabels, subject, classifyFrom, classifyTo, looks, aggregation, evidence: of the
            tab "Findings"; own labels are one to a line, and the last slice is included.
    """

    volume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    segmentId: str
    modelId: str
    intensity: Annotated[str, Default("auto")]
    tool: Annotated[str, Choice(TOOLS), Default("")]
    isNegative: bool
    kind: Annotated[str, Default("Segment")]
    manyObjects: bool
    direction: Annotated[str, Choice(DIRECTIONS), Default("both")]
    between: Annotated[str, Choice(BETWEEN), Default("model")]
    showDoubt: bool
    rangeLimited: bool
    # The wrapper gives a spin box the range of its parameter, and that of all integers where it has none.
    rangeFrom: Annotated[int, WithinRange(0, 99999), Default(0)]
    rangeTo: Annotated[int, WithinRange(0, 99999), Default(0)]
    region: Annotated[str, Choice(REGIONS), Default("none")]
    regionRadius: Annotated[float, WithinRange(1, 500), Default(20.0)]
    regionFrom: Annotated[int, WithinRange(0, 99999), Default(0)]
    regionTo: Annotated[int, WithinRange(0, 99999), Default(0)]
    roi: vtkMRMLMarkupsROINode
    seesRegionOnly: bool
    overlap: Annotated[str, Choice(OVERLAPS), Default("protect")]
    sameAsSegmentEditor: bool
    askAbovePercent: Annotated[int, WithinRange(0, 100), Default(50)]
    scribbleRadius: Annotated[float, WithinRange(0, 50), Default(0.0)]
    showSurfaces: bool
    showPrompts: Annotated[bool, Default(True)]
    classifyModelId: str
    labelSet: Annotated[str, Default("modality")]
    ownLabels: str
    subject: Annotated[str, Choice(SUBJECTS), Default("slice")]
    classifyFrom: Annotated[int, WithinRange(0, 99999), Default(0)]
    classifyTo: Annotated[int, WithinRange(0, 99999), Default(0)]
    looks: Annotated[str, Default("auto")]
    aggregation: Annotated[str, Default("mean")]
    evidence: Annotated[str, Choice(("similarity", "occlusion")), Default("similarity")]


class PanelState:
    """The controller and the parameter node, kept in step; all parts of the panel share it.

    Attributes:
        controller: the work on the chosen nodes.
        installer: the models on this computer.
        cards: the models that can segment, by their ids.
        parameters: the parameter node; None while a scene is closed.
        effect: the Segment Editor's effect in whose place things are done, and whose masking and undo are kept to.
    """

    def __init__(
        self, controller: SegmentationController, installer: ModelInstaller, cards: Mapping[str, ModelCard]
    ) -> None:
        self.controller, self.installer, self.cards = controller, installer, cards
        self.parameters: Any = None
        self.effect: Any = None
        # Without loading torch nobody can say more; the diagnosis does.
        self._suitable_model = "sam2.1-hiera-tiny" if has_nvidia_driver() else "lite-medsam"

    @property
    def card(self) -> ModelCard | None:
        """The chosen model; the one that suits this computer where none was chosen."""
        chosen = self.parameters.modelId if self.parameters is not None else ""
        return self.cards.get(chosen or self._suitable_model) or next(iter(self.cards.values()), None)

    @property
    def is_model_ready(self) -> bool:
        """False where something is known to be missing for the chosen model."""
        return self.card is not None and self.installer.readiness(self.card.id).is_ready

    def last_slice(self) -> int:
        """Return the number of the image's last slice; 0 without an image."""
        node = self.parameters.volume
        image = node.GetImageData() if node is not None else None
        return max(0, image.GetDimensions()[2] - 1) if image is not None else 0

    def sync(self) -> None:
        """Have the controller work on the chosen nodes, with the chosen options."""
        parameters, controller, scene = self.parameters, self.controller, slicer.mrmlScene
        is_loading = scene.IsImporting() or scene.IsRestoring()  # the choices of a scene come with it
        if parameters.volume is not None and parameters.volume is not controller.volume_node and not is_loading:
            self._choose_own()
        before = controller.segmentation_node
        controller.use(parameters.volume, parameters.segmentation)
        if before not in (None, parameters.segmentation) and parameters.segmentId:
            parameters.segmentId = ""  # even if there is one of this id: nobody has chosen it
        controller.options = self._options()
        controller.select(parameters.segmentId)

    def follow_frame(self) -> bool:
        """Once a sequence shows another frame, work on the segmentation of that one, or on a new one.

        Returns False while frames are played, each of which would be read and sent.
        """
        parameters, controller = self.parameters, self.controller
        browser = browser_of(controller.volume_node) if controller.volume_node is not None else None
        is_left = controller.is_foreign and reference_image(controller.segmentation_node) is controller.volume_node
        if is_left or (browser is not None and parameters.segmentation is None):
            parameters.segmentation = controller.own_segmentation(controller.volume_node)
        return browser is None or not browser.GetPlaybackActive()

    def keep_selection(self) -> None:
        """Note the segment that the controller has selected."""
        if self.parameters is not None and self.parameters.segmentId != self.controller.segment_id:
            self.parameters.segmentId = self.controller.segment_id

    def prepare(self) -> None:
        """Before something is asked: make sure of a segmentation, and of the options as they are now.

        Raises:
            InputError, GeometryError: changes are to be limited to a region of interest, and there is none.
        """
        if self.parameters is None:
            return
        if self.parameters.region == "roi" and self.parameters.volume is not None and self.effect is None:
            self._roi_box()
        self.ensure_segmentation()
        self.controller.options = self._options()  # a region may have been moved, of which no parameter tells

    def ensure_segmentation(self) -> None:
        """Make a segmentation for the image if none is chosen."""
        parameters = self.parameters
        if parameters is not None and parameters.volume is not None and parameters.segmentation is None:
            parameters.segmentation = make_segmentation(parameters.volume)

    def use_own(self) -> None:
        """Put another image's segmentation away: this image's own takes its place, or a new one."""
        if self.parameters is not None and self.parameters.volume is not None:
            self.parameters.segmentation = self.controller.own_segmentation(self.parameters.volume)
            self.prepare()

    def add_segment(self) -> None:
        """Add an empty segment, selected; with a number where its name is taken."""
        self.ensure_segmentation()
        self.controller.on_update("choices")
        self.controller.add_segment()

    def _choose_own(self) -> None:
        """Another image was chosen: its own segmentation goes with it, or none, unless one was chosen, too."""
        parameters = self.parameters
        chosen = parameters.segmentation
        if chosen is None or (
            chosen is self.controller.segmentation_node and not belongs_to(chosen, parameters.volume)
        ):
            parameters.segmentation = self.controller.own_segmentation(parameters.volume)

    def _options(self) -> UserOptions:
        parameters, effect = self.parameters, self.effect
        region = self._region() if effect is None else None
        policy, masking_node, choice = OverlapPolicy(parameters.overlap), None, None
        if effect is not None:
            masking_node = effect.parameterSetNode()
            policy = _policy(masking_node)
        elif parameters.sameAsSegmentEditor:
            masking_node = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if self.card is not None:
            seen_region = region if parameters.seesRegionOnly else None
            choice = ModelChoice.of(self.card, parameters.intensity or "auto", seen_region)
        return UserOptions(
            choice,
            policy,
            None if parameters.askAbovePercent >= 100 else parameters.askAbovePercent / 100,
            region,
            masking_node,
            parameters.manyObjects and effect is None,
            parameters.kind,
            effect.saveStateForUndo if effect is not None else None,
        )

    def _region(self) -> Region | None:
        """The limit of changes as it is now; None for no limit, and where :meth:`prepare` raises."""
        parameters = self.parameters
        if parameters.region == "around":
            return AroundPrompt(parameters.regionRadius)
        if parameters.region == "slices":
            first, last = sorted((parameters.regionFrom, parameters.regionTo))
            return SliceRange("k", first, last + 1)
        if parameters.region == "roi":
            with contextlib.suppress(FoundationSegError):
                return self._roi_box()
        return None

    def _roi_box(self) -> InsideBox:
        if self.parameters.roi is None:
            raise InputError(_("Choose a region of interest under 'Advanced' first, or let changes happen everywhere."))
        if self.parameters.volume is None:
            raise InputError(_("choose an image first"))
        return InsideBox(box_of_roi(self.parameters.roi, self.parameters.volume))


def _policy(editor_node: Any) -> OverlapPolicy:
    """The policy that a Segment Editor's choice of what is overwritten means; locked segments keep their voxels."""
    modes = slicer.vtkMRMLSegmentEditorNode
    return {
        modes.OverwriteNone: OverlapPolicy.ALLOW,
        modes.OverwriteVisibleSegments: OverlapPolicy.OVERWRITE_VISIBLE,
    }.get(editor_node.GetOverwriteMode(), OverlapPolicy.PROTECT_LOCKED)
