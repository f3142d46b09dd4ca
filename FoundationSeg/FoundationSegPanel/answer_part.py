"""What happened: undo and redo, accept and reject, what waits to be confirmed, what failed, and how far it is."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from FoundationSegLib import desk_actions
from FoundationSegLib.errors import Cancelled, CheckpointError, FoundationSegError, PackageError
from FoundationSegLib.mrml.reference_image import ForeignSegmentationError, reference_image
from FoundationSegLib.session.segment_store import Confirmation, Refused, SegmentEdited

from .slots import slot

if TYPE_CHECKING:
    from .panel import Panel


class AnswerPart:
    """The row of actions, the message below it, and the progress."""

    def __init__(self, panel: "Panel") -> None:
        self._panel, self._ui = panel, panel.ui
        self._error: FoundationSegError | None = None
        self._yes: Callable[[], None] = self._dismiss
        self._no: Callable[[], None] = self._dismiss
        self._repeat: Callable[[], None] | None = None
        ui = self._ui
        ui.undoButton.connect("clicked()", self._undo)
        ui.redoButton.connect("clicked()", self._redo)
        ui.acceptButton.connect("clicked()", self._accept)
        ui.rejectButton.connect("clicked()", self._reject)
        ui.cancelButton.connect("clicked()", self._cancel)
        ui.messageYesButton.connect("clicked()", self._yes_clicked)
        ui.messageNoButton.connect("clicked()", self._no_clicked)

    def tell(self, error: FoundationSegError) -> None:
        """Show an error until something else is done."""
        self._error = None if isinstance(error, Cancelled) else error
        self._repeat = None
        self.show()

    def ask_whose(self, error: ForeignSegmentationError, repeat: Callable[[], None]) -> None:
        """Ask whether to go on in another image's segmentation; what was refused is done again with either answer."""
        self.tell(error)
        self._repeat = repeat

    def forget_error(self) -> None:
        """Something else was done."""
        self._error = None

    def show(self) -> None:
        """Show what is possible and what has happened."""
        desk, ui = self._panel.desk, self._ui
        possible = desk_actions.possible(desk)
        ui.undoButton.setEnabled(possible.undo)
        ui.redoButton.setEnabled(possible.redo)
        ui.acceptButton.setEnabled(possible.judge)
        ui.rejectButton.setEnabled(possible.judge)
        self._show_progress()
        self._show_change()
        self._show_message()

    def accept(self) -> None:
        """What waits to be confirmed is; otherwise the last change is right."""
        desk = self._panel.desk
        if desk.session is not None and desk.session.confirmation is not None:
            desk.session.confirm()
        else:
            desk_actions.accept(desk)

    def _show_progress(self) -> None:
        desk, ui = self._panel.desk, self._ui
        ui.progressRow.setVisible(desk.is_busy)
        if not desk.is_busy:
            return
        report = desk.report
        ui.progressBar.setRange(0, report.total if report is not None else 0)
        ui.progressBar.setValue(report.done if report is not None else 0)
        stages = {
            "start": _("Starting the worker"),
            "load": _("Loading the model"),
            "encode": _("Looking at the image"),
            "decode": _("Segmenting"),
            "download": _("Downloading"),
            "classify": _("Classifying"),
        }
        stage = stages.get(report.stage, report.stage) if report is not None else _("Waiting for the answer")
        ui.progressBar.setFormat(f"{stage} %v / %m" if report is not None and report.total else stage)

    def _show_change(self) -> None:
        desk = self._panel.desk
        is_done = isinstance(desk.outcome, SegmentEdited) and desk.session is not None
        self._ui.changeLabel.setVisible(is_done)
        if is_done:
            self._ui.changeLabel.setText(self._change(desk.outcome))

    def _change(self, done: SegmentEdited) -> str:
        desk = self._panel.desk
        ml = desk.session.volume.geometry.voxel_volume_mm3 / 1000
        changes = [change for several in done.changes.values() for change in several]
        gained, lost = (sum(getattr(change, side).voxels for change in changes) * ml for side in ("gained", "lost"))
        what = {
            "predicted": _("Last answer"),
            "noted": _("Noted"),
            "undone": _("Undone"),
            "redone": _("Redone"),
            "rejected": _("Rejected"),
        }[done.kind]
        parts = [f"<b>{what}:</b> +{gained:.2f} ml, -{lost:.2f} ml"]
        scores = [score for score in done.scores.values() if score is not None]
        if scores:
            parts.append(_("the model's own estimate {score}").format(score=f"{min(scores):.2f}"))
        if done.kind == "predicted" and desk.answer_s is not None:
            parts.append(_("{seconds} s").format(seconds=f"{desk.answer_s:.2f}"))
        if done.forgotten:
            parts.append(_("the oldest {count} steps cannot be undone any more").format(count=done.forgotten))
        return " · ".join(parts) + "".join(f"<br>{note}" for note in done.notes)

    def _show_message(self) -> None:
        desk, ui = self._panel.desk, self._ui
        if isinstance(self._error, ForeignSegmentationError) and not desk.is_foreign:
            self._error = None  # another segmentation was chosen
        outcome, error = desk.outcome, self._error or desk.error
        if isinstance(error, ForeignSegmentationError):
            self._say(self._whose(), (_("Use it for this image"), self._use_foreign), (_("Use another"), self._use_own))
        elif error is not None:
            self._say(str(error), (_("OK"), self._dismiss))
        elif isinstance(outcome, Confirmation) and desk.session is not None and desk.session.confirmation is not None:
            self._say(self._question(outcome), (_("Apply"), desk.session.confirm), (_("Discard"), self._discard))
        elif isinstance(outcome, Refused) and self._waits_for_retry():
            # Where the model or its packages are missing, the way out is to get them, and not another try.
            is_missing = isinstance(outcome.error, CheckpointError | PackageError) and not self._panel.model.is_ready
            again = (_("Set up…"), self._panel.model.set_up) if is_missing else (_("Try again"), desk.session.retry)
            self._say(str(outcome.error), again, (_("Discard"), self._discard))
        else:
            ui.messageFrame.setVisible(False)

    def _whose(self) -> str:
        desk = self._panel.desk
        own = desk.own_segmentation(desk.volume_node)
        text = _("'{segmentation}' belongs to the image '{image}', and you work on '{volume}'. Use it, or use {other}?")
        return text.format(
            segmentation=desk.segmentation_node.GetName(),
            image=reference_image(desk.segmentation_node).GetName(),
            volume=desk.volume_node.GetName(),
            other=f"'{own.GetName()}'" if own is not None else _("a new one"),
        )

    def _use_foreign(self) -> None:
        self._panel.desk.allow_foreign()
        self._do_again()

    def _use_own(self) -> None:
        self._panel.use_own()
        self._do_again()

    def _do_again(self) -> None:
        repeat, self._repeat = self._repeat, None
        if repeat is not None:
            repeat()

    def _waits_for_retry(self) -> bool:
        """True while what failed is neither asked again nor given up."""
        session = self._panel.desk.session
        return session is not None and session.is_refused

    def _question(self, pending: Confirmation) -> str:
        session = self._panel.desk.session
        names = ", ".join(f"'{session.segment_name(key)}'" for key in pending.changes if key in session.segment_ids)
        if pending.by_hand:
            return _("This would change {count} voxels of {names} that were drawn or erased by hand.").format(
                count=pending.by_hand, names=names
            )
        return _("This would delete {share} % of {names}.").format(share=round(pending.lost_share * 100), names=names)

    def _say(
        self, text: str, yes: tuple[str, Callable[[], object]], no: tuple[str, Callable[[], object]] | None = None
    ) -> None:
        ui = self._ui
        ui.messageLabel.setText(text)
        ui.messageYesButton.setText(yes[0])
        ui.messageNoButton.setVisible(no is not None)
        ui.messageNoButton.setText(no[0] if no is not None else "")
        self._yes, self._no = yes[1], no[1] if no is not None else self._dismiss
        ui.messageFrame.setVisible(True)

    def _dismiss(self) -> None:
        self._error = self._panel.desk.error = None
        outcome = self._panel.desk.outcome
        if isinstance(outcome, Refused) and outcome.is_waiting:
            self._discard()
        self.show()

    def _discard(self) -> None:
        desk = self._panel.desk
        desk.outcome = None
        if desk.session is not None:
            desk.session.discard()
        self.show()

    @slot
    def _yes_clicked(self) -> None:
        self._error = self._panel.desk.error = None
        self._yes()
        self.show()

    @slot
    def _no_clicked(self) -> None:
        self._error = self._panel.desk.error = None
        self._no()
        self.show()

    @slot
    def _undo(self) -> None:
        self._error = None
        desk_actions.undo(self._panel.desk)

    @slot
    def _redo(self) -> None:
        self._error = None
        desk_actions.redo(self._panel.desk)

    @slot
    def _accept(self) -> None:
        self._error = None
        self.accept()

    @slot
    def _reject(self) -> None:
        self._error = None
        desk_actions.reject(self._panel.desk)

    @slot
    def _cancel(self) -> None:
        desk_actions.stop(self._panel.desk)
