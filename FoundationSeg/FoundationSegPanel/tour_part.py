"""The tour: five steps from an image to a finished segment, on the user's own image, each shown at its widget."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import qt
from slicer.i18n import tr as _

from .parameters import PanelState
from .slices import is_shown
from .widgets import Part, Report


@dataclass(frozen=True, slots=True)
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
