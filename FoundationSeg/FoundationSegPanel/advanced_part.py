"""The advanced choices: where changes may happen, who keeps contested voxels, masking, and surfaces."""

from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.errors import FoundationSegError, InputError
from FoundationSegLib.mrml.surfaces import drop_surfaces, has_surfaces, make_surfaces
from FoundationSegLib.mrml.volumes import box_of_roi
from FoundationSegLib.prompts.regions import AroundPrompt, InsideBox, Region, SliceRange

from .choices import ChoiceBox
from .slots import slot

if TYPE_CHECKING:
    from .panel import Panel

_IDLE_MS = 700  # after the last change; surfaces of an organ take a second


class AdvancedPart:
    """The collapsed section "Advanced"."""

    def __init__(self, panel: "Panel") -> None:
        self._panel, self._ui = panel, panel.ui
        self.tell = panel.tell
        self._region = ChoiceBox(self._ui.regionBox, self._region_chosen)
        self._region.fill(
            (
                ("none", _("Nowhere")),
                ("around", _("To the surroundings of the prompts")),
                ("slices", _("To a range of slices")),
                ("roi", _("To a region of interest")),
            )
        )
        self._overlap = ChoiceBox(self._ui.overlapBox, self._overlap_chosen)
        self._overlap.fill(
            (
                ("protect", _("Keep their voxels")),
                ("protect-locked", _("Keep their voxels if they are locked")),
                ("allow", _("May overlap")),
                ("overwrite", _("Are overwritten")),
            )
        )
        self._is_shown = False
        self._shown_of: Any = None
        self._idle = qt.QTimer()
        self._idle.setSingleShot(True)
        self._idle.connect("timeout()", self._make_surfaces)

    def show(self) -> None:
        """Show the parameter node's choices."""
        wanted, ui = self._panel.parameters, self._ui
        self._region.show(wanted.region)
        self._overlap.show(wanted.overlap)
        rows = {
            "around": (ui.radiusLabel, ui.regionRadiusBox),
            "slices": (ui.regionSlicesLabel, ui.regionFromBox, ui.regionToLabel, ui.regionToBox),
            "roi": (ui.roiLabel, ui.roiSelector),
        }
        ui.seesRegionBox.setVisible(wanted.region != "none")
        for kind, widgets in rows.items():
            for widget in widgets:
                widget.setVisible(wanted.region == kind)
        node = self._panel.desk.segmentation_node
        if wanted.showSurfaces != self._is_shown:
            self._is_shown = wanted.showSurfaces
            self._toggle_surfaces()
        elif self._is_shown and node is not self._shown_of:
            self._idle.start(0)
        self._shown_of = node

    def region(self) -> Region | None:
        """What changes are limited to, as it stands now; None for no limit, and where :meth:`require_region` raises."""
        wanted = self._panel.parameters
        if wanted.region == "around":
            return AroundPrompt(wanted.regionRadius)
        if wanted.region == "slices":
            return SliceRange("k", min(wanted.regionFrom, wanted.regionTo), max(wanted.regionFrom, wanted.regionTo) + 1)
        if wanted.region == "roi":
            try:
                return self._box()
            except FoundationSegError:
                return None
        return None

    def require_region(self) -> None:
        """Refuse to do without the limit that the user has chosen.

        Raises:
            InputError, GeometryError: it is a region of interest that is not there, or not in the image.
        """
        wanted = self._panel.parameters
        if wanted is not None and wanted.region == "roi" and wanted.volume is not None:
            self._box()

    def _box(self) -> InsideBox:
        wanted = self._panel.parameters
        if wanted.roi is None:
            raise InputError(_("choose a region of interest under 'Advanced' first, or limit changes nowhere"))
        if wanted.volume is None:
            raise InputError(_("choose an image first"))
        return InsideBox(box_of_roi(wanted.roi, wanted.volume))

    def masking_node(self) -> Any:
        """The Segment Editor's settings, where they are to be kept to; None otherwise, and while there are none."""
        if not self._panel.parameters.sameAsSegmentEditor:
            return None
        return slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")

    def surfaces_due(self) -> None:
        """Segments have changed: make surfaces anew once nothing else goes on."""
        if self._is_shown or self._panel.desk.owes_surfaces:
            self._idle.start(_IDLE_MS)

    def _toggle_surfaces(self) -> None:
        node = self._panel.desk.segmentation_node
        if self._is_shown:
            self._idle.start(0)
        elif node is not None:
            drop_surfaces(node)
            self._panel.desk.settle_surfaces()

    @slot
    def _make_surfaces(self) -> None:
        desk = self._panel.desk
        if desk.segmentation_node is None or not (self._is_shown or desk.owes_surfaces):
            return
        if desk.is_busy:
            self._idle.start(_IDLE_MS)
        else:
            if not has_surfaces(desk.segmentation_node):
                make_surfaces(desk.segmentation_node)
            desk.settle_surfaces()

    @slot
    def _region_chosen(self, kind: str) -> None:
        wanted = self._panel.parameters
        if kind == "slices" and not wanted.regionTo:
            wanted.regionTo = self._panel.image.last_slice()
        wanted.region = kind

    @slot
    def _overlap_chosen(self, policy: str) -> None:
        self._panel.parameters.overlap = policy
