"""The advanced choices: where changes may happen, who keeps contested voxels, and surfaces."""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.mrml import surfaces

from .parameters import PanelState
from .slices import slice_in_view
from .widgets import ChoiceBox, Part, Report, slot

_IDLE_MS = 700  # after the last change; the surface of an organ takes a second
_NEXT_MS = 30  # between two surfaces, for what the user does meanwhile


class AdvancedPart(Part):
    """The collapsed section "Advanced"."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        regions = (
            ("none", _("Everywhere")),
            ("around", _("Around the prompts only")),
            ("slices", _("In a range of slices only")),
            ("roi", _("In a region of interest only")),
        )
        self._range = (ui.regionSlicesLabel, ui.regionFromBox, ui.regionToLabel, ui.regionToBox)
        self._range += (ui.regionFromHereButton, ui.regionToHereButton)
        self._connect(ui.regionFromHereButton, lambda: self._limit_here("regionFrom"))
        self._connect(ui.regionToHereButton, lambda: self._limit_here("regionTo"))
        self._region = ChoiceBox(ui.regionBox, self._region_chosen, regions)
        policies = (
            ("protect", _("Keep their voxels")),
            ("protect-locked", _("Keep their voxels if they are locked")),
            ("allow", _("May overlap")),
            ("overwrite", _("Are overwritten")),
        )
        self._overlap = self._choice_box(ui.overlapBox, "overlap", policies)
        self._connect(ui.smoothingBox, self._smooth, "valueChanged(double)")
        self._shows_surfaces = False
        self._shown_node: Any = None
        self._missing: tuple[str, ...] = ()
        self._is_centred = False  # the 3-D views, once after surfaces were asked for
        self._idle = qt.QTimer()
        self._idle.setSingleShot(True)
        self._idle.connect("timeout()", self._make_surfaces)

    def show(self) -> None:
        """Show the parameter node's choices."""
        parameters, ui = self._parameters, self._ui
        self._region.show(parameters.region)
        self._overlap.show(parameters.overlap)
        rows = {
            "around": (ui.radiusLabel, ui.regionRadiusBox),
            "slices": self._range,
            "roi": (ui.roiLabel, ui.roiSelector),
        }
        ui.seesRegionBox.setVisible(parameters.region != "none")
        for kind, widgets in rows.items():
            for widget in widgets:
                widget.setVisible(parameters.region == kind)
        node = self._controller.segmentation_node
        ui.smoothingBox.setEnabled(node is not None)
        if node is not None and node is not self._shown_node:
            ui.smoothingBox.setValue(surfaces.smoothing(node))
        if parameters.showSurfaces != self._shows_surfaces:
            self._shows_surfaces = parameters.showSurfaces
            self._toggle_surfaces(node)
        elif self._shows_surfaces and node is not self._shown_node:
            self._idle.start(0)
        self._shown_node = node

    def surfaces_due(self) -> None:
        """Make surfaces anew once nothing else goes on: segments have changed."""
        if self._shows_surfaces or self._controller.has_stale_surfaces:
            self._idle.start(_IDLE_MS)

    def _smooth(self, factor: float) -> None:
        """Smooth the surfaces of the segmentation otherwise, one by one while nothing else goes on."""
        node = self._controller.segmentation_node
        if node is not None and factor != surfaces.smoothing(node):
            self._missing = surfaces.set_smoothing(node, factor)
            self._idle.start(_NEXT_MS)

    def _toggle_surfaces(self, node: Any) -> None:
        self._missing = ()
        if self._shows_surfaces:
            self._is_centred = False
            self._idle.start(0)
        elif node is not None:
            surfaces.drop_surfaces(node)

    @slot
    def _make_surfaces(self) -> None:
        """Make one surface, and come again for the next: the window is held for one segment at a time."""
        controller = self._controller
        node = controller.segmentation_node
        if node is None:
            return
        if controller.is_busy:
            self._idle.start(_IDLE_MS)
            return
        if self._shows_surfaces and not surfaces.has_surfaces(node):
            self._missing = surfaces.begin_surfaces(node)
        first, *rest = self._missing or ("",)
        self._missing = tuple(rest)
        if first:
            surfaces.make_surface(node, first)
        if first or controller.make_next_surface():
            self._idle.start(_NEXT_MS)
        elif self._shows_surfaces and surfaces.has_surfaces(node) and not self._is_centred:
            self._is_centred = True
            if slicer.app.layoutManager() is not None:
                slicer.app.layoutManager().resetThreeDViews()

    @slot
    def _region_chosen(self, kind: str) -> None:
        if kind == "slices" and not self._parameters.regionTo:
            self._parameters.regionTo = self._state.last_slice()
        self._parameters.region = kind

    def _limit_here(self, end: str) -> None:
        setattr(self._parameters, end, slice_in_view(self._parameters.volume, "k").start)
