"""Progress of the request that is under way: in the panel, in the status bar, and on the button that began it."""

from functools import partial
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.progress import TimeLeft

from .parameters import PanelState
from .widgets import Part, Report, slot, time_left_text

_INTERVAL_MS = 500  # the time left goes down between two reports, too


class ProgressPart(Part):
    """The bar with its text and the time left, below the tools and in the tab "Findings"."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self._time_left = TimeLeft()
        self._button: Any = None
        self._button_text = ""
        self._timer = qt.QTimer()
        self._timer.setInterval(_INTERVAL_MS)
        self._timer.connect("timeout()", self.show)
        for button in (ui.propagateButton, ui.wordsButton, ui.askAgainButton, ui.classifyButton, ui.whereButton):
            self._connect(button, partial(self._begun_by, button))
        for button in (ui.cancelButton, ui.classifyCancelButton):
            self._connect(button, self._controller.stop)

    @slot
    def show(self) -> None:
        """Show what is under way, and nothing else once it has ended."""
        ui, is_busy = self._ui, self._controller.is_busy
        for row in (ui.progressRow, ui.classifyProgressRow):
            row.setVisible(is_busy)
        report = self._controller.report
        self._time_left.note(report)
        if not is_busy:
            self.stop()
            return
        self._timer.start()
        texts = [self._stage_text(), time_left_text(self._time_left.seconds())]
        session = self._controller.session
        if session is not None and session.waiting > 0:
            texts.append(_("queued behind it: {count}").format(count=session.waiting))
        text = " · ".join(texts)
        for bar in (ui.progressBar, ui.classifyProgressBar):
            bar.setRange(0, report.total if report is not None else 0)
            bar.setValue(report.done if report is not None else 0)
            bar.setFormat(text)
        can_keep = (
            self._controller.preview.node is not None and self._is_propagating and not self._controller.is_finishing
        )
        ui.cancelButton.setText(_("Stop and keep") if can_keep else _("Cancel"))
        slicer.util.showStatusMessage(_("FoundationSeg: {text}").format(text=text), 2 * _INTERVAL_MS)
        if self._button is not None and report is not None and report.total:
            share = round(100 * report.done / report.total)
            self._button.setText(_("{text} ({share} %)").format(text=self._button_text, share=share))

    def stop(self) -> None:
        """Leave the button as it was."""
        self._timer.stop()
        if self._button is not None:
            self._button.setText(self._button_text)
            self._button = None

    def _begun_by(self, button: Any) -> None:
        self.stop()
        if self._controller.is_busy:
            self._button, self._button_text = button, button.text
            self.show()

    @property
    def _is_propagating(self) -> bool:
        session = self._controller.session
        return session is not None and session.is_propagating

    def _stage_text(self) -> str:
        report = self._controller.report
        if self._controller.is_finishing:
            return _("Keeping the slices so far")
        if report is None:
            return _("Waiting for the answer")
        stages = {
            "start": _("Starting the Python for the models"),
            "load": _("Loading the model"),
            "encode": _("Reading the image"),
            "decode": _("Segmenting"),
            "download": _("Downloading"),
            "classify": _("Scoring"),
        }
        stage = stages.get(report.stage, report.stage)
        if not report.total or report.total == 1:
            return stage
        if self._is_propagating and report.stage == "slices":  # the object may end long before the range does
            return _("Slices passed: {done} of at most {total}").format(done=report.done, total=report.total)
        return _("{stage} {done} of {total}").format(stage=stage, done=report.done, total=report.total)
