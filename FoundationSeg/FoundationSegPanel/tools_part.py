"""The prompt tools: which there are goes by the model, and they draw in every slice view that shows the image.

The tour shows them: five steps from an image to a finished segment, on the user's own image, each at its widget.
"""

import functools
from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.catalog.label_sets import classes_of
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.codec import frozen
from FoundationSegLib.mrml.gestures import ToolKind
from FoundationSegLib.mrml.slice_tool import SliceTool, SliceView
from FoundationSegLib.prompts.capabilities import negative_kinds
from FoundationSegLib.prompts.kinds import Polarity, Prompt

from .parameters import PanelState
from .slices import is_shown, show_cursor, slice_views, view_names
from .widgets import Part, Report, draw_views_next, offer, slot

_LONGEST_NAME = 28
_QUICK_ANSWER_MS = 70  # on a slice that is encoded; drawing all views without a graphics card takes half of it


class ToolsPart(Part):
    """The buttons of the tools, the words, and the tool itself.

    Args:
        ui, state, report: see :class:`~.widgets.Part`.
        icon: returns the path of an icon by its name.
        attempt: gives prompts; those for another image's segmentation wait until the user has said where they go.
        on_clicks: called when the user means to click.

    Attributes:
        tool: draws in the slice views.
        is_active: the module is entered, so that the mouse may draw.
    """

    def __init__(
        self,
        ui: Any,
        state: PanelState,
        report: Report,
        icon: Callable[[str], str],
        attempt: Callable[[Callable[[], object]], None],
        on_clicks: Callable[[], None],
    ) -> None:
        super().__init__(ui, state, report)
        self._attempt, self._on_clicks = attempt, on_clicks
        self._sign_icons = {name: qt.QIcon(icon(f"{name}.png")) for name in ("negative", "positive")}
        self._buttons = {
            "point": ui.pointButton,
            "box": ui.boxButton,
            "scribble": ui.scribbleButton,
            "lasso": ui.lassoButton,
        }
        for kind, button in self._buttons.items():
            button.setIcon(qt.QIcon(icon(f"{kind}.png")))
            self._connect(button, functools.partial(self._tool_clicked, kind))
        self._connect(ui.polarityButton, self._polarity_clicked, "clicked(bool)")
        self._connect(ui.wordsButton, self._words_given)
        self.is_active = False
        self.tool = SliceTool(self._drawn, self.report)
        self.tool.handles, self.tool.on_hover = self._controller.handles, self._hovered
        self._cursor_text: str | None = None
        self._in_use: tuple[Any, ToolKind, tuple[str, ...]] | None = None
        self._words_of = ""
        self._layout_manager = slicer.app.layoutManager()
        if self._layout_manager is not None:
            self._layout_manager.connect("layoutChanged(int)", self._layout_changed)

    def show(self) -> None:
        """Show which tools there are for the model, and use the chosen one."""
        parameters, ui, card = self._parameters, self._ui, self._state.card
        for kind, button in self._buttons.items():
            reason = "" if card is not None and card.takes(kind) else _("The chosen model does not understand this.")
            offer(button, reason if parameters.volume is not None else _("Choose an image first."))
            button.setChecked(parameters.tool == kind and button.isEnabled())
        ui.pointButton.setText(_("Two clicks") if _clicks_make_boxes(card) else _("Point"))
        can_be_negative = card is not None and bool(parameters.tool) and parameters.tool in negative_kinds(card)
        is_negative = parameters.isNegative and can_be_negative
        ui.polarityButton.setEnabled(can_be_negative)
        ui.polarityButton.setChecked(is_negative)
        ui.polarityButton.setText(_("Negative") if is_negative else _("Positive"))
        ui.polarityButton.setIcon(self._sign_icons["negative" if is_negative else "positive"])
        self._show_words(card)
        ui.hintLabel.setText(self._hint(card))
        self._use(is_negative)

    def stop(self) -> None:
        """Leave the mouse to Slicer."""
        self.is_active = False
        self._put_away()

    def close(self) -> None:
        """Follow the layout no more."""
        self.stop()
        if self._layout_manager is not None:
            self._layout_manager.disconnect("layoutChanged(int)", self._layout_changed)

    @property
    def cursor(self) -> Any:
        """The cursor of the slice views: with the name of a segment while a tool is in use."""
        return qt.QCursor() if self._cursor_text is None else _named_cursor(self._cursor_text)

    def toggle(self, kind: str) -> None:
        """Take a tool in hand, or put it away; nothing where the model does not understand what it draws."""
        parameters = self._parameters
        if parameters is not None and (not kind or self._buttons[kind].isEnabled()):
            parameters.tool = "" if parameters.tool == kind else kind
            if parameters.tool == "point":
                self._on_clicks()

    def toggle_polarity(self) -> None:
        """Draw the other sign from now on, if the model understands that."""
        if self._parameters is not None and self._ui.polarityButton.isEnabled():
            self._parameters.isNegative = not self._parameters.isNegative

    def _hint(self, card: ModelCard | None) -> str:
        parameters = self._parameters
        if parameters.volume is None:
            return _("Choose an image first.")
        if not parameters.tool:
            return _("Choose a tool, then draw in a slice view. To go on with a segment, select it in the table first.")
        if not is_shown(parameters.volume):
            return _("No slice view shows this image: show it to draw on it.")
        if parameters.tool == "point" and _clicks_make_boxes(card):
            return _("This model understands boxes only: click one corner, then the opposite one.")
        target = card.translations.get(parameters.tool) if card is not None else None
        if target is not None:
            kinds = {"box": _("a box"), "point": _("points"), "scribble": _("a scribble"), "mask": _("a mask")}
            return _("For this model, what you draw becomes {kind}.").format(kind=kinds.get(target, target))
        return {
            "point": _("Click on the object in a slice view."),
            "box": _("Press and drag a box around the object, in any slice view."),
            "scribble": _("Press and drag a line over the object."),
            "lasso": _("Press and drag an outline around the object."),
        }[parameters.tool]

    def _show_words(self, card: ModelCard | None) -> None:
        takes_words = card is not None and (card.takes("text") or card.takes("class"))
        self._ui.wordsRow.setVisible(takes_words)
        if takes_words and card.id != self._words_of:
            self._words_of = card.id
            self._ui.wordsBox.clear()
            for entry in classes_of(card).classes if "class" in card.prompts else ():
                self._ui.wordsBox.addItem(entry.name)
            self._ui.wordsBox.setEditText("")

    def _use(self, is_negative: bool) -> None:
        """Enable the chosen tool; it stays as it is where nothing about that has changed."""
        parameters = self._parameters
        kind = parameters.tool if self.is_active else ""
        if not kind or parameters.volume is None or not self._buttons[kind].isEnabled():
            self._put_away()
            return
        self.tool.polarity = Polarity.NEGATIVE if is_negative else Polarity.POSITIVE
        self.tool.radius_mm = parameters.scribbleRadius or None
        drawn: ToolKind = "corners" if kind == "point" and _clicks_make_boxes(self._state.card) else kind
        in_use = (parameters.volume, drawn, tuple(view_names()))
        if self._in_use != in_use or not self.tool.is_enabled:
            self._in_use = in_use
            interaction = slicer.app.applicationLogic().GetInteractionNode()
            if interaction is not None and interaction.GetCurrentInteractionMode() == interaction.Place:
                interaction.SetCurrentInteractionMode(interaction.ViewTransform)
            self.tool.enable(parameters.volume, slice_views(), drawn)
            if self._state.is_model_ready:
                self._controller.warm_up()
        self._show_cursor()

    def _put_away(self) -> None:
        self._in_use = None
        self.tool.disable()
        if self._cursor_text is not None:
            self._cursor_text = None
            show_cursor(None)

    def _show_cursor(self) -> None:
        """Have the cursor name the segment that the next prompt goes to."""
        segment, options = self._controller.selected_node_segment, self._controller.options
        is_new = segment is None or options.many_objects
        text = _("new: {name}").format(name=options.new_name) if is_new else segment.GetName()
        if text != self._cursor_text:
            self._cursor_text = text
            show_cursor(_named_cursor(text))

    @slot
    def _hovered(self, view: SliceView, is_over: bool) -> None:
        """Show whether a press would move a point of a prompt, or draw."""
        if self._cursor_text is not None:
            cursor = qt.QCursor(qt.Qt.SizeAllCursor) if is_over else _named_cursor(self._cursor_text)
            show_cursor(cursor, view.slice_node)

    @slot
    def _drawn(self, prompt: Prompt) -> None:
        """Give a prompt that was drawn, in answer to an event of VTK's. A quick answer is drawn together with it."""
        draw_views_next(_QUICK_ANSWER_MS)
        self._state.prepare()
        self._attempt(lambda: self._controller.add_prompt(prompt))

    def _words_given(self) -> None:
        words = self._ui.wordsBox.currentText.split(",")
        self._state.prepare()
        self._attempt(lambda: self._controller.add_words(words))

    @slot
    def _layout_changed(self, _layout: int) -> None:
        if self._parameters is not None:
            self.show()

    def _tool_clicked(self, kind: str) -> None:
        self.toggle(kind)
        self.show()

    def _polarity_clicked(self) -> None:
        self.toggle_polarity()
        self.show()


def _named_cursor(text: str) -> Any:
    """Make a cross with a name beside it, light on dark so that it is read on every image."""
    shown = text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"
    pixmap = qt.QPixmap(24 + 8 * len(shown), 34)
    pixmap.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(pixmap)
    for colour, shift in ((qt.QColor(0, 0, 0), 1), (qt.QColor(255, 255, 255), 0)):
        painter.setPen(colour)
        painter.drawLine(shift, 8 + shift, 16 + shift, 8 + shift)
        painter.drawLine(8 + shift, shift, 8 + shift, 16 + shift)
        painter.drawText(18 + shift, 26 + shift, shown)
    painter.end()
    return qt.QCursor(pixmap, 8, 8)


def _clicks_make_boxes(card: ModelCard | None) -> bool:
    return card is not None and "point" not in card.prompts and card.takes("point")


@frozen
class TourStep:
    """A step: its text, the widget that it is about, and whether it is done by now."""

    text: str
    widget: Any
    is_done: Callable[[], bool]


class TourPart(Part):
    """The frame with the step, and the mark around its widget. A step that is done goes on to the next by itself."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self._mark: Any = None
        self._number = -1  # of the step; below 0 while nobody takes the tour
        self._was_done = False
        self._steps = self._make_steps()
        self._connect(ui.tourButton, lambda: self._go(-1 if self._number >= 0 else 0))
        self._connect(ui.tourBackButton, lambda: self._go(max(0, self._number - 1)))
        self._connect(ui.tourNextButton, lambda: self._go(self._number + 1))
        self._connect(ui.tourEndButton, lambda: self._go(-1))

    def show(self) -> None:
        """Go on where the step that is shown was done just now."""
        if self._number < 0:
            return
        is_done = self._steps[self._number].is_done()
        if is_done and not self._was_done and self._number + 1 < len(self._steps):
            self._go(self._number + 1)
        else:
            self._was_done = is_done
            self._show_mark()

    def stop(self) -> None:
        """End the tour."""
        self._go(-1)

    def _make_steps(self) -> tuple[TourStep, ...]:
        ui, controller, state = self._ui, self._controller, self._state
        return (
            TourStep(
                _("Choose your image. It has to be loaded in Slicer first, and shown in a slice view."),
                ui.inputsFrame,
                lambda: self._parameters.volume is not None and is_shown(self._parameters.volume),
            ),
            TourStep(
                _("Choose a model, and set it up where a button asks for that. It is done once for each model."),
                ui.modelBox,
                lambda: state.is_model_ready,
            ),
            TourStep(
                _("Write or choose the name of what you want to segment. Known names bring their code and colour."),
                ui.kindBox,
                lambda: False,
            ),
            TourStep(
                _("Take the box tool, and drag a box around the object in a slice view. The answer comes by itself."),
                ui.boxButton,
                lambda: controller.session is not None and bool(controller.segment_id) and self._has_answer(),
            ),
            TourStep(
                _("Look at the mask. Undo what is wrong, correct it with more prompts, and accept it in the end."),
                ui.acceptButton,
                lambda: False,
            ),
        )

    def _has_answer(self) -> bool:
        summary = self._controller.summary()
        return summary is not None and summary.voxels > 0

    def _go(self, number: int) -> None:
        ui = self._ui
        self._number = number if number < len(self._steps) else -1
        ui.tourFrame.setVisible(self._number >= 0)
        self._hide_mark()
        if self._number < 0:
            return
        step = self._steps[self._number]
        title = _("<b>Step {number} of {count}.</b> {text}")
        ui.tourLabel.setText(title.format(number=self._number + 1, count=len(self._steps), text=step.text))
        ui.tourBackButton.setEnabled(self._number > 0)
        ui.tourNextButton.setText(_("Next") if self._number + 1 < len(self._steps) else _("Done"))
        if self._number < 2:  # both are about what is folded
            ui.inputsButton.setChecked(True)
        self._was_done = self._parameters is not None and step.is_done()
        self._show_mark()

    def _show_mark(self) -> None:
        """Mark the widget of the step, where it is now."""
        widget = self._steps[self._number].widget
        self._hide_mark()
        if widget.visible:
            self._mark = qt.QRubberBand(qt.QRubberBand.Rectangle, widget.parentWidget())
            self._mark.setGeometry(widget.geometry)
            self._mark.show()

    def _hide_mark(self) -> None:
        if self._mark is not None:
            self._mark.hide()
            self._mark.deleteLater()
            self._mark = None
