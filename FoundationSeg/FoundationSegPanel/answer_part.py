"""The answer: undo and redo, accept and reject, what waits to be confirmed, what failed; and the progress."""

import contextlib
import math
import re
from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.catalog.catalogue import light_model_for
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import Cancelled, CheckpointError, FoundationSegError, InputError, PackageError
from FoundationSegLib.mrml.volumes import ForeignSegmentationError, owner_text
from FoundationSegLib.progress import TimeLeft
from FoundationSegLib.requests.segmentation import SURE
from FoundationSegLib.requests.uncertainty import SliceDoubts
from FoundationSegLib.session.measures import slice_doubts, volume_ml
from FoundationSegLib.session.segment_store import Confirmation, Refused, SegmentEdited
from FoundationSegLib.session.steps import SegmentState

from .model_texts import size_text
from .parameters import PanelState
from .slices import show_slice, slice_in_view
from .widgets import Part, Report, error_text, slot, time_left_text

_SLOW_S = 30.0  # an answer that took longer, the start of the Python and the load of the model included
# Of a note of the engine: where in a prompts file it is about, which nobody has written.
_PLACE = re.compile(r"segments\[(\d+)\][\w.\[\]]*(?: and [\w.\[\]]+)?: ")
_BARS = 32  # of the doubt of slices, at most: a panel of 400 pixels has room for them
_HEIGHTS = "▁▂▃▄▅▆▇█"
_DOUBTFUL, _CERTAIN = "#d9822b", "#8a8a8a"  # read on light and on dark
_INTERVAL_MS = 500  # the time left goes down between two reports, too
Answer = tuple[str, Callable[[], object]]  # a button's text and its action


class AnswerPart(Part):
    """The row of actions, the message below it, and the progress.

    Args:
        ui, state: see :class:`~.widgets.Part`.
        set_up: shows what is missing for the chosen model.
    """

    def __init__(self, ui: Any, state: PanelState, set_up: Callable[[], None]) -> None:
        super().__init__(ui, state, self.report)
        self._set_up = set_up
        self._error: FoundationSegError | None = None
        self._refused_action: Callable[[], object] | None = None
        self._light_model: ModelCard | None = None
        self._offered_for: set[str] = set()
        self._text: tuple[str, str, Callable[[], object]] | None = None
        self._yes: Callable[[], object] = self._dismiss
        self._no: Callable[[], object] = self._dismiss
        controller = self._controller
        self._connect(ui.undoButton, lambda: self._act(controller.undo))
        self._connect(ui.redoButton, lambda: self._act(controller.redo))
        self._connect(ui.acceptButton, lambda: self._act(controller.accept))
        self._connect(ui.rejectButton, lambda: self._act(controller.reject))
        self._connect(ui.changeLabel, self._link_clicked, "linkActivated(QString)")
        self._connect(ui.doubtLabel, self._doubt_clicked, "linkActivated(QString)")
        self._doubts: SliceDoubts | None = None
        self._doubted_state: SegmentState | None = None
        self._connect(ui.messageYesButton, lambda: self._answer(self._yes))
        self._connect(ui.messageNoButton, lambda: self._answer(self._no))

    def report(self, error: FoundationSegError) -> None:
        """Show an error until something else is done."""
        self._error = None if isinstance(error, Cancelled) else error
        self._refused_action = None
        self.show()

    def attempt(self, action: Callable[[], object]) -> None:
        """Do something. Where another image's segmentation refuses it, ask the user, and repeat it with the answer."""
        try:
            action()
        except ForeignSegmentationError as error:
            self.report(error)
            self._refused_action = action

    def forget_error(self) -> None:
        """Show an error, an offer or a text no more: something else was done."""
        self._error = self._light_model = self._text = None

    def tell(self, text: str, answer: str, action: Callable[[], object]) -> None:
        """Show a text with two buttons, "OK" and another with its action, until something else is done."""
        self._text = text, answer, action
        self.show()

    def offer_light_model(self, is_slow: bool = False) -> None:
        """Offer a model that knows clicks, once for each that does not or is slow; only the user changes the model."""
        card = self._state.card
        if card is not None and card.id not in self._offered_for:
            self._light_model = light_model_for("point", card, self._state.cards, is_slow)
            if self._light_model is not None:
                self._offered_for.add(card.id)
                self.show()

    def show(self) -> None:
        """Show what is possible and what has happened."""
        controller, ui = self._controller, self._ui
        session, key = controller.session, controller.segment_id
        has_segment = session is not None and bool(key)
        ui.undoButton.setEnabled(controller.can_undo)
        ui.redoButton.setEnabled(has_segment and session.can_redo(key))
        can_judge = has_segment and session.can_reject(key)
        ui.acceptButton.setEnabled(can_judge)
        ui.rejectButton.setEnabled(can_judge)
        self._show_change()
        self._show_doubts()
        outcome, seconds = controller.outcome, controller.answer_s
        if isinstance(outcome, SegmentEdited) and outcome.kind == "predicted" and (seconds or 0) > _SLOW_S:
            self.offer_light_model(is_slow=True)
        self._show_message()

    def _show_doubts(self) -> None:
        """Show the doubt of each slice where several were answered, as bars to click on."""
        doubts = self._slice_doubts() if self._parameters is not None and self._parameters.showDoubt else None
        is_shown = doubts is not None and len(doubts.doubts) > 1
        self._ui.doubtLabel.setVisible(is_shown)
        if is_shown:
            link = _('<a href="next">next doubtful slice</a>')
            self._ui.doubtLabel.setText(f"{_('Doubt')} {doubt_bars(doubts)} {link}")

    def _slice_doubts(self) -> SliceDoubts | None:
        """The doubts of the selected segment, worked out once for each of its states."""
        session, key = self._controller.session, self._controller.segment_id
        state = session.history.segments[key].state if session is not None and key in session.known_ids else None
        if state is not self._doubted_state:
            self._doubted_state = state
            self._doubts = slice_doubts(session, key) if state is not None and session.can_read(key) else None
        return self._doubts

    def _doubt_clicked(self, link: str) -> None:
        if link == "next":
            self.show_next_doubtful()
        elif self._doubts is not None:
            show_slice(self._controller.volume_node, self._doubts.axis, int(link))

    def show_next_doubtful(self) -> None:
        """Have the views show the next slice that the model doubts.

        Raises an InputError where it told nothing of the selected segment.
        """
        doubts = self._slice_doubts()
        if doubts is None:
            raise InputError(_("The model has told no doubt of this segment: prompt or propagate it first."))
        number = None
        with contextlib.suppress(FoundationSegError):  # no view shows a slice of it
            number = slice_in_view(self._controller.volume_node, doubts.axis).start
        show_slice(self._controller.volume_node, doubts.axis, doubts.next_doubtful(number))

    def _show_change(self) -> None:
        outcome = self._controller.outcome
        is_edited = isinstance(outcome, SegmentEdited) and self._controller.session is not None
        self._ui.changeLabel.setVisible(is_edited)
        if is_edited:
            self._ui.changeLabel.setText(self._change_text(outcome))
            self._ui.changeLabel.setToolTip(
                _("Confidence: how much the model expects its answer to overlap with the object. It is often too high.")
            )

    def _change_text(self, edited: SegmentEdited) -> str:
        controller = self._controller
        changes = [change for several in edited.changes.values() for change in several]
        gained, lost = (sum(getattr(change, side).voxels for change in changes) for side in ("gained", "lost"))
        title = {
            "predicted": _("Last answer"),
            "noted": _("Done"),
            "accepted": _("Accepted"),
            "undone": _("Undone"),
            "redone": _("Redone"),
            "rejected": _("Rejected"),
            "cleared": _("Cleared"),
            "deleted": _("Deleted"),
            "taken": _("Taken from neighbours"),
        }[edited.kind]
        texts = [f"<b>{title}</b>"]
        if changes:
            sizes = [f"{sign}{self._size(voxels)}" for sign, voxels in (("+", gained), ("-", lost)) if voxels]
            texts = [f"<b>{title}:</b> {', '.join(sizes) or _('nothing changed')}"]
        scores = [score for score in edited.scores.values() if score is not None]
        if scores:
            texts.append(_("confidence {share} %").format(share=round(100 * min(scores))))
        if edited.kind == "predicted" and controller.answer_s is not None:
            texts.append(_("{seconds} s").format(seconds=f"{controller.answer_s:.2f}"))
        if edited.forgotten:
            texts.append(_("the oldest {count} steps cannot be undone any more").format(count=edited.forgotten))
        text = " · ".join(texts) + "".join(f"<br>{self._note_text(note, edited)}" for note in edited.notes)
        return text + self._withheld_text(edited)

    def _note_text(self, note: str, edited: SegmentEdited) -> str:
        """Name the segment that a note is about where there are several; the engine says ``segments[0]``."""
        place, keys = _PLACE.match(note), list(edited.states)
        if place is None or int(place[1]) >= len(keys):
            return note
        rest, name = note[place.end() :], self._controller.session.segment_name(keys[int(place[1])])
        return rest if len(keys) == 1 else f"{escape(name)}: {rest}"

    def _size(self, voxels: int) -> str:
        volume = volume_ml(self._controller.session.volume, voxels)
        return _("{count} pixels").format(count=voxels) if volume is None else _("{ml:.2f} ml").format(ml=volume)

    def _withheld_text(self, edited: SegmentEdited) -> str:
        """Say which neighbours kept voxels, and offer to take them; the link is :meth:`_link_clicked`."""
        session = self._controller.session
        withheld = {key: count for key, count in edited.withheld.items() if key in session.segment_ids}
        if not withheld:
            return ""
        names = ", ".join(f"'{escape(session.segment_name(key))}'" for key in withheld)
        text = _("{size} stayed with {names}, whose voxels are kept.")
        text = text.format(size=self._size(sum(withheld.values())), names=names)
        return f'<br>{text} <a href="take">{_("Take them")}</a>'

    def _link_clicked(self) -> None:
        self._act(self._controller.take_withheld)

    def _show_message(self) -> None:
        controller = self._controller
        if isinstance(self._error, ForeignSegmentationError) and not controller.is_foreign:
            self._error = None  # another segmentation was chosen
        outcome, session, error = controller.outcome, controller.session, self._error or controller.error
        discard = (_("Discard"), self._controller.discard)
        if isinstance(error, ForeignSegmentationError):
            use_foreign = (_("Use it for this image"), lambda: self._repeat(controller.allow_foreign))
            self._ask(self._foreign_text(), use_foreign, (_("Use another"), lambda: self._repeat(self._state.use_own)))
        elif error is not None:
            self._ask(error_text(error), (_("OK"), self._dismiss))
        elif isinstance(outcome, Confirmation) and session is not None and session.confirmation is not None:
            self._ask(self._confirmation_text(outcome), (_("Apply"), session.confirm), discard)
        elif isinstance(outcome, Refused) and session is not None and session.is_refused:
            # Where the model or its packages are missing, the way out is to get them, and not another try.
            is_missing = isinstance(outcome.error, CheckpointError | PackageError) and not self._state.is_model_ready
            again = (_("Set up…"), self._set_up) if is_missing else (_("Try again"), session.retry)
            self._ask(error_text(outcome.error), again, discard)
        elif self._light_model is not None and self._state.card is not None:
            use = (_("Use it"), partial(self._use, self._light_model.id))
            self._ask(self._offer_text(self._light_model, self._state.card), use, (_("No"), self.forget_error))
        elif self._text is not None:
            text, answer, action = self._text
            self._ask(text, (_("OK"), self.forget_error), (answer, lambda: (self.forget_error(), action())))
        else:
            self._ui.statusStack.setCurrentWidget(self._ui.answerPage)

    def _offer_text(self, light: ModelCard, card: ModelCard) -> str:
        text = _(
            "{light} ({size}) understands clicks and is quick without a graphics card. It was not run here with "
            "trained weights. Use it instead of {model}?"
        )
        return text.format(light=light.title, size=size_text(light), model=card.title)

    def _use(self, model_id: str) -> None:
        self._light_model = None
        self._parameters.modelId = model_id

    def _foreign_text(self) -> str:
        controller = self._controller
        own = controller.own_segmentation(controller.volume_node)
        text = _("'{segmentation}' belongs to {image}, and you work on '{volume}'. Use it, or use {other}?")
        return text.format(
            segmentation=controller.segmentation_node.GetName(),
            image=owner_text(controller.segmentation_node, controller.volume_node),
            volume=controller.volume_node.GetName(),
            other=f"'{own.GetName()}'" if own is not None else _("a new one"),
        )

    def _confirmation_text(self, confirmation: Confirmation) -> str:
        session = self._controller.session
        keys = (key for key in confirmation.changes if key in session.segment_ids)
        names = ", ".join(f"'{session.segment_name(key)}'" for key in keys)
        if confirmation.by_hand:
            text = _("This would change {count} voxels of {names} that were drawn or erased by hand.")
        else:
            text = _("This would delete {share} % of {names}.")
        text = text.format(count=confirmation.by_hand, share=round(confirmation.lost_share * 100), names=names)
        return f"{text} {_('The slice views show in green what it adds, and in red what it deletes.')}"

    def _ask(self, text: str, yes: Answer, no: Answer | None = None) -> None:
        ui = self._ui
        ui.messageLabel.setText(text)
        ui.messageYesButton.setText(yes[0])
        ui.messageNoButton.setVisible(no is not None)
        ui.messageNoButton.setText(no[0] if no is not None else "")
        self._yes, self._no = yes[1], no[1] if no is not None else self._dismiss
        ui.messageFrame.setToolTip(text)
        ui.statusStack.setCurrentWidget(ui.messageFrame)

    def _repeat(self, decide: Callable[[], None]) -> None:
        """Decide about another image's segmentation, and do what it refused."""
        decide()
        action, self._refused_action = self._refused_action, None
        if action is not None:
            action()

    def _dismiss(self) -> None:
        outcome = self._controller.outcome
        if isinstance(outcome, Refused) and outcome.is_waiting:
            self._controller.discard()

    def _act(self, action: Callable[[], object]) -> None:
        self._error = None
        action()

    def _answer(self, action: Callable[[], object]) -> None:
        self._error = self._controller.error = None
        action()
        self.show()


def doubt_bars(doubts: SliceDoubts) -> str:
    """Draw the doubts as a row of bars, each a link to the most doubtful slice of those that it stands for."""
    numbers, doubtful = sorted(doubts.doubts), set(doubts.doubtful)
    step, most = math.ceil(len(numbers) / _BARS), max(1 - SURE, *doubts.doubts.values())
    bars = []
    for start in range(0, len(numbers), step):
        number = max(numbers[start : start + step], key=doubts.doubts.__getitem__)
        height = min(len(_HEIGHTS) - 1, int(doubts.doubts[number] / most * len(_HEIGHTS)))
        colour = _DOUBTFUL if number in doubtful else _CERTAIN
        bars.append(f'<a href="{number}" style="color:{colour};text-decoration:none">{_HEIGHTS[height]}</a>')
    return "".join(bars)


class ProgressPart(Part):
    """The bar with its text and the time left, below the tools and in the tab "Findings"."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self._time_left = TimeLeft()
        self._button: Any = None
        self._button_text = self._status = self._text = ""
        self._timer = qt.QTimer()
        self._timer.setInterval(_INTERVAL_MS)
        self._timer.connect("timeout()", self._show_in_status_bar)
        asking = ("propagateButton", "timeButton", "wordsButton", "askAgainButton", "similarButton")
        for button in self._widgets(*asking, "classifyButton", "whereButton"):
            self._connect(button, partial(self._begun_by, button))
        for button in self._widgets("cancelButton", "classifyCancelButton"):
            self._connect(button, self._controller.stop)

    def _widgets(self, *names: str) -> list[Any]:
        """The widgets of these names, as far as there are any: the Segment Editor's effect has a few of them."""
        return [getattr(self._ui, name) for name in names if hasattr(self._ui, name)]

    @slot
    def show(self) -> None:
        """Show what is under way, and nothing else once it has ended."""
        ui, is_busy = self._ui, self._controller.is_busy
        for row in self._widgets("progressRow", "classifyProgressRow"):
            row.setVisible(is_busy)
        report = self._controller.report
        self._time_left.note(report)
        if not is_busy:
            self.stop()
            return
        if not self._timer.active:
            self._timer.start()
        texts = [self._stage_text(), time_left_text(self._time_left.seconds())]
        session = self._controller.session
        if session is not None and session.waiting > 0:
            texts.append(_("queued behind it: {count}").format(count=session.waiting))
        self._text = text = " · ".join(texts)
        for bar in self._widgets("progressBar", "classifyProgressBar"):
            bar.setRange(
                0, report.total if report is not None and report.total else 1
            )  # without an end, it has no text
            bar.setValue(report.done if report is not None else 0)
            bar.setFormat(text)
        can_keep = (
            self._controller.preview.node is not None and self._is_propagating and not self._controller.is_finishing
        )
        ui.cancelButton.setText(_("Stop and keep") if can_keep else _("Cancel"))
        if self._button is not None and report is not None and report.total:
            share = round(100 * report.done / report.total)
            self._button.setText(_("{text} ({share} %)").format(text=self._button_text, share=share))

    @slot
    def _show_in_status_bar(self) -> None:
        """Show it there, too, where it takes long: to look for the main window takes a moment, each time."""
        self.show()
        if self._controller.is_busy:
            self._show_status(_("FoundationSeg: {text}").format(text=self._text))

    def stop(self) -> None:
        """Leave the button and the status bar as they were."""
        self._timer.stop()
        self._show_status("")
        if self._button is not None:
            self._button.setText(self._button_text)
            self._button = None

    def _show_status(self, text: str) -> None:
        if text != self._status:  # to find its status bar, Slicer searches all its windows
            self._status = text
            slicer.util.showStatusMessage(text)

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
            is_first = self._controller.answer_s is None
            return _("Starting the Python, loading the model") if is_first else _("Waiting for the answer")
        stages = {
            "start": _("Starting the Python for the models"),
            "load": _("Loading the model"),
            "encode": _("Reading the image"),
            "decode": _("Segmenting"),
            "download": _("Downloading"),
            "classify": _("Scoring"),
            "search": _("Searching slices:"),
            "frames": _("Following through time:"),
        }
        stage = stages.get(report.stage, report.stage)
        if not report.total or report.total == 1:
            return stage
        if self._is_propagating and report.stage == "slices":  # the object may end long before the range does
            return _("Slices passed: {done} of at most {total}").format(done=report.done, total=report.total)
        return _("{stage} {done} of {total}").format(stage=stage, done=report.done, total=report.total)
