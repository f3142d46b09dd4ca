"""The prompt tools: which there are goes by the model, and they draw in every slice view that shows the image."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.desk_actions import give, give_words
from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import AXES, array_axis, round_index
from FoundationSegLib.mrml.gestures import ToolKind
from FoundationSegLib.mrml.reference_image import ForeignSegmentationError
from FoundationSegLib.mrml.slice_tool import SliceTool, SliceView, slice_view
from FoundationSegLib.prompts.capabilities import negative_kinds
from FoundationSegLib.prompts.kinds import Polarity, Prompt
from FoundationSegLib.requests.classification import Subject

from .keys import Keys
from .slots import slot

if TYPE_CHECKING:
    from .panel import Panel


class ToolsPart:
    """The buttons of the tools, the words, and the tool itself."""

    def __init__(self, panel: "Panel") -> None:
        self._panel, self._ui = panel, panel.ui
        self.tell = panel.tell
        ui = self._ui
        self._buttons = {
            "point": ui.pointButton,
            "box": ui.boxButton,
            "scribble": ui.scribbleButton,
            "lasso": ui.lassoButton,
        }
        for kind, button in self._buttons.items():
            button.setIcon(qt.QIcon(panel.icon(f"{kind}.png")))
        ui.pointButton.connect("clicked(bool)", self._point_clicked)
        ui.boxButton.connect("clicked(bool)", self._box_clicked)
        ui.scribbleButton.connect("clicked(bool)", self._scribble_clicked)
        ui.lassoButton.connect("clicked(bool)", self._lasso_clicked)
        ui.polarityButton.connect("clicked(bool)", self._polarity_clicked)
        ui.wordsButton.connect("clicked()", self._words_given)
        self.tool = SliceTool(self._drawn, self.tell)
        self.keys = Keys(panel)
        self._views: tuple[str, ...] = ()
        self._using: tuple[Any, ToolKind, tuple[str, ...]] | None = None
        self._words_of = ""
        manager = slicer.app.layoutManager()
        if manager is not None:
            manager.connect("layoutChanged(int)", self._layout_changed)

    def show(self) -> None:
        """Show which tools there are for the model, and use the chosen one."""
        wanted, card = self._panel.parameters, self._panel.model.card
        negative = negative_kinds(card) if card is not None else ()
        for kind, button in self._buttons.items():
            button.setEnabled(wanted.volume is not None and card is not None and card.takes(kind))
            button.setChecked(wanted.tool == kind and button.isEnabled())
        self._ui.pointButton.setText(_("Two clicks") if self._clicks_make_boxes(card) else _("Point"))
        kind = wanted.tool
        may_be_negative = bool(kind) and kind in negative
        self._ui.polarityButton.setEnabled(may_be_negative)
        is_negative = wanted.isNegative and may_be_negative
        self._ui.polarityButton.setChecked(is_negative)
        self._ui.polarityButton.setText(_("Negative") if is_negative else _("Positive"))
        self._ui.polarityButton.setIcon(qt.QIcon(self._panel.icon("negative.png" if is_negative else "positive.png")))
        self._show_words(card)
        self._ui.hintLabel.setText(self._hint(card))
        self._use(is_negative)

    def stop(self) -> None:
        """Leave the mouse and the keys to Slicer."""
        self._using = None
        self.tool.disable()
        self.keys.disable()

    def toggle(self, kind: str) -> None:
        """Take a tool in hand, or put it away; nothing where the model does not understand what it draws."""
        wanted = self._panel.parameters
        if wanted is not None and (not kind or self._buttons[kind].isEnabled()):
            wanted.tool = "" if wanted.tool == kind else kind

    def toggle_polarity(self) -> None:
        """Draw the other sign from now on, if the model understands that."""
        wanted = self._panel.parameters
        if wanted is not None and self._ui.polarityButton.isEnabled():
            wanted.isNegative = not wanted.isNegative

    def is_shown(self, volume_node: Any) -> bool:
        """True where a slice view of the layout shows the image."""
        return any(view.shows(volume_node) for view in self._slice_views())

    def slice_in_view(self, volume_node: Any) -> Subject:
        """The slice of the image that the first view that shows it shows, of those that run along its slices.

        Raises:
            InputError, GeometryError: no view shows one.
        """
        for view in self._slice_views():
            plane = view.plane(volume_node) if volume_node is not None and view.shows(volume_node) else None
            if plane is not None and plane.axis is not None:
                middle = (plane.size_px[0] / 2, plane.size_px[1] / 2)
                n = int(round_index(plane.index_ijk((middle,))[0])[AXES.index(plane.axis)])
                if 0 <= n < plane.geometry.shape_kji[array_axis(plane.axis)]:
                    return Subject(plane.axis, n, n + 1)
        raise InputError(_("no view shows a slice of this image: show it, along its slices"))

    def _clicks_make_boxes(self, card: ModelCard | None) -> bool:
        return card is not None and not card.understands("point") and card.takes("point")

    def _hint(self, card: ModelCard | None) -> str:
        wanted = self._panel.parameters
        if wanted.volume is None:
            return _("Choose an image first.")
        if not wanted.tool:
            return _("Choose a tool, then draw in a slice view. Known segments go on where they were.")
        if not self.is_shown(wanted.volume):
            return _("No slice view shows this image: show it to draw on it.")
        hints = {
            "point": _("Click on the object in a slice view."),
            "box": _("Press and drag a box around the object, in any slice view."),
            "scribble": _("Press and drag a line over the object."),
            "lasso": _("Press and drag an outline around the object."),
        }
        if wanted.tool == "point" and self._clicks_make_boxes(card):
            return _("This model understands boxes only: click one corner, then the opposite one.")
        return hints[wanted.tool]

    def _show_words(self, card: ModelCard | None) -> None:
        is_understood = card is not None and (card.takes("text") or card.takes("class"))
        self._ui.wordsRow.setVisible(is_understood)
        if is_understood and card.id != self._words_of:
            self._words_of = card.id
            self._ui.wordsBox.clear()
            for name in self._panel.logic.classNames(card.id):
                self._ui.wordsBox.addItem(name)
            self._ui.wordsBox.setEditText("")

    def _use(self, is_negative: bool) -> None:
        """Enable the tool as wished; it stays as it is where nothing about that has changed."""
        panel, wanted = self._panel, self._panel.parameters
        kind = wanted.tool if panel.is_entered else ""
        if panel.is_entered:
            self.keys.enable()
        if not kind or wanted.volume is None or not self._buttons[kind].isEnabled():
            self._using = None
            self.tool.disable()
            return
        self.tool.polarity = Polarity.NEGATIVE if is_negative else Polarity.POSITIVE
        self.tool.radius_mm = wanted.scribbleRadius or None
        drawn: ToolKind = "corners" if kind == "point" and self._clicks_make_boxes(panel.model.card) else kind
        using = (wanted.volume, drawn, tuple(self._names()))
        if self._using != using or not self.tool.is_enabled:
            self._using = using
            self._leave_place_mode()
            self.tool.enable(wanted.volume, self._slice_views(), drawn)
            if panel.model.is_ready:
                panel.desk.warm_up()

    def _leave_place_mode(self) -> None:
        node = slicer.app.applicationLogic().GetInteractionNode()
        if node is not None and node.GetCurrentInteractionMode() == node.Place:
            node.SetCurrentInteractionMode(node.ViewTransform)

    def _names(self) -> Iterable[str]:
        manager = slicer.app.layoutManager()
        return manager.sliceViewNames() if manager is not None else ()

    def _slice_views(self) -> list[SliceView]:
        manager = slicer.app.layoutManager()
        found = []
        for name in self._names():
            widget = manager.sliceWidget(name)
            if widget is not None:
                view = widget.sliceView()
                found.append(slice_view(widget.sliceLogic(), view.interactor(), view.scheduleRender))
        return found

    @slot
    def _drawn(self, prompt: Prompt) -> None:
        """A prompt was drawn, in answer to an event of VTK's."""
        self._do(lambda: give(self._panel.desk, prompt))

    @slot
    def _words_given(self) -> None:
        words = self._ui.wordsBox.currentText.split(",")
        self._do(lambda: give_words(self._panel.desk, words))

    def _do(self, action: Callable[[], None]) -> None:
        """Give prompts; those for another image's segmentation are kept until the user has said where they go."""
        self._panel.make_ready()
        try:
            action()
        except ForeignSegmentationError as error:
            self._panel.answer.ask_whose(error, action)

    @slot
    def _layout_changed(self) -> None:
        if self._panel.parameters is not None:
            self.show()

    @slot
    def _point_clicked(self) -> None:
        self.toggle("point")
        self.show()

    @slot
    def _box_clicked(self) -> None:
        self.toggle("box")
        self.show()

    @slot
    def _scribble_clicked(self) -> None:
        self.toggle("scribble")
        self.show()

    @slot
    def _lasso_clicked(self) -> None:
        self.toggle("lasso")
        self.show()

    @slot
    def _polarity_clicked(self) -> None:
        self.toggle_polarity()
        self.show()
