"""Scores of labels in the tab "Findings": table, chart, how often they are right; the dialog that learns labels."""

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib import monitoring
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import Cancelled, CheckpointError, FoundationSegError, InputError, PackageError
from FoundationSegLib.mrml.volumes import geometry_from_node
from FoundationSegLib.progress import ProgressReport
from FoundationSegLib.requests.classification import ClassifyRequest, EmbedRequest
from FoundationSegLib.requests.classification_answer import MOST_SHOWN, Classification
from FoundationSegLib.requests.heads import LearnedHead, LearnHeadRequest, require_new, write_head
from FoundationSegLib.requests.scoring import joined
from FoundationSegLib.session.segment_store import SegmentEdited
from FoundationSegLib.session.steps import PolarityChanged, PromptAdded, PromptMoved, PromptRemoved
from FoundationSegLib.worker.protocol import Answered, Event

from .model_installer import Callbacks, ModelInstaller
from .model_texts import ScoreRow, bars_html
from .parameters import PanelState
from .slices import jump_to, slice_middle
from .widgets import ChoiceBox, Dialog, Part, Report, error_text, fill_table, selected_rows, set_up_table, show_fraction

_NEEDED = ("scikit-learn>=1.5", "scipy>=1.10")  # what learning takes beside the model's own packages
_PROMPTING = PolarityChanged | PromptAdded | PromptMoved | PromptRemoved
_SCORE, _PRIOR = 2, 6  # columns that are not always shown
_ENCODERS = ("lite-medsam", "medsam", "mobile-sam", "sam")  # families that segment, whose features have a summary


class ScoresPart(Part):
    """The table of the scores, which sorts by its headings, and the selected label over the slices."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self._answer: Classification | None = None
        self._rows: list[ScoreRow] = []
        self._sorted = (0, True)
        self._is_judged = False
        headings = [_("Rank"), _("Label"), _("Score"), _("Margin"), _("Spread"), _("Stands out"), _("Prior")]
        set_up_table(ui.scoresTable, headings, stretch=1)
        self._connect(ui.scoresTable.horizontalHeader(), self._sort, "sectionClicked(int)")
        self._connect(ui.scoresTable, self._show_chart, "itemSelectionChanged()")
        self._connect(ui.chartLabel, self._jump, "linkActivated(QString)")
        self._connect(ui.agreeButton, self._agree)
        self._connect(ui.disagreeButton, lambda: self._judge("rejected"))

    def clear(self) -> None:
        """Forget the answer."""
        self._answer, self._rows = None, []
        self._ui.scoresTable.setRowCount(0)
        self._ui.chartLabel.setVisible(False)

    def show_answer(self, answer: Classification, prior: Classification | None) -> None:
        """Show an answer, and beside it the same of an earlier image."""
        self._answer, self._is_judged, ui = answer, False, self._ui
        priors = {score.name: score for score in prior.scores} if prior is not None else {}
        ranked = enumerate(answer.ranked[:MOST_SHOWN], start=1)
        self._rows = [ScoreRow(n, score, priors.get(score.name), answer.is_calibrated) for n, score in ranked]
        ui.scoresTable.setColumnHidden(_SCORE, not answer.is_calibrated)
        ui.scoresTable.setColumnHidden(_PRIOR, prior is None)
        self._fill()

    def selected_label(self) -> str:
        """Return the label of the selected row. Raises an InputError where none is."""
        rows = selected_rows(self._ui.scoresTable)
        if self._answer is None or not rows:
            raise InputError(_("select a label in the table first"))
        return self._rows[rows[0]].label.name

    def show(self) -> None:
        """Show the buttons that count an answer, where the user wants that and has not done it."""
        can_judge = self._answer is not None and not self._is_judged and monitoring.is_counting()
        for button in (self._ui.agreeButton, self._ui.disagreeButton):
            button.setVisible(can_judge)

    def _agree(self) -> None:
        name = self.selected_label()
        is_first = any(row.rank == 1 and row.label.name == name for row in self._rows)
        self._judge("accepted" if is_first else "corrected")

    def _judge(self, verdict: monitoring.Verdict) -> None:
        if self._answer is not None:
            monitoring.count_answer(self._answer.checkpoint.model_id, verdict)
            self._is_judged = True
            self.show()

    def _fill(self) -> None:
        """Show the rows in the order that was chosen; the label that was selected stays so, or the first one is."""
        selected, (column, is_falling) = self._selected_name(), self._sorted
        self._rows.sort(key=lambda row: row.sort_keys[column], reverse=is_falling)
        table = self._ui.scoresTable
        table.clearSelection()
        fill_table(table, [row.texts for row in self._rows])
        for number, row in enumerate(self._rows):
            table.item(number, 1).setToolTip(self._wording(row.label.name))
        names = [row.label.name for row in self._rows]
        table.selectRow(names.index(selected) if selected in names else 0)
        self._show_chart()

    def _selected_name(self) -> str:
        item = next((self._ui.scoresTable.item(row, 1) for row in selected_rows(self._ui.scoresTable)), None)
        return item.text() if item is not None else ""

    def _sort(self, column: int) -> None:
        self._sorted = column, not self._sorted[1] if column == self._sorted[0] else column != 1
        self._fill()

    def _wording(self, name: str) -> str:
        """Return the sentences that the model read for a label, and those against it."""
        texts, against = self._answer.wording.get(name, ((), ())) if self._answer is not None else ((), ())
        return "\n".join((*(f"+ {text}" for text in texts), *(f"- {text}" for text in against)))

    def _show_chart(self) -> None:
        """Draw the selected label over the slices, each bar a link."""
        rows, answer = selected_rows(self._ui.scoresTable), self._answer
        has_chart = answer is not None and len(answer.slices) > 1 and bool(rows) and rows[0] < len(self._rows)
        self._ui.chartLabel.setVisible(has_chart)
        if has_chart:
            name = self._rows[rows[0]].label.name
            curve = answer.curves[:, [score.name for score in answer.scores].index(name)].tolist()
            text = _("{name}, slices {first} to {last}: a click on a bar shows its slice.")
            text = text.format(name=name, first=answer.slices[0], last=answer.slices[-1])
            self._ui.chartLabel.setText(f"{bars_html(curve, answer.slices)}<small>{escape(text)}</small>")

    def _jump(self, number: str) -> None:
        """Have the views show the middle of a slice of the answer."""
        if self._answer is None:
            return
        geometry = geometry_from_node(self._controller.volume_node)
        index_ijk = slice_middle(geometry, self._answer.axis, int(number))
        jump_to(self._controller.volume_node, geometry.to_ras(index_ijk))


def models_to_learn_on(catalogue: Mapping[str, ModelCard]) -> dict[str, ModelCard]:
    """List the models whose vectors labels can be learned on: those that classify, and encoders of SAM's family."""
    return {key: card for key, card in catalogue.items() if card.task == "classify" or card.family in _ENCODERS}


def head_text(head: LearnedHead) -> str:
    """Say what a head was learned from, and how good it was on patients that were held out."""
    counts = _("Learned from {images} images of {patients} patients.").format(
        images=head.origin.get("examples", "?"), patients=head.origin.get("patients", "?")
    )
    figures = head.origin.get("measured", {})
    names = {"auc": _("AUC"), "accuracy": _("accuracy")}
    texts = [f"{title} {_interval(*figures[name])}" for name, title in names.items() if figures.get(name, [None])[0]]
    texts += [] if head.is_calibrated else [_("not calibrated")]
    return f"{counts} {_('On held-out patients: {figures}.').format(figures=', '.join(texts))}" if texts else counts


def _interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} ({low:.2f} to {high:.2f})"


class LearnDialog(Dialog):
    """Learn labels from a table of images: what it takes, the work with its progress, and how good they are."""

    def __init__(
        self, installer: ModelInstaller, model_id: str, on_kept: Callable[[str], None], parent: Any = None
    ) -> None:
        """Build it; ``on_kept`` is called with the name of labels that were learned."""
        super().__init__("Learn", _("Learn labels"), parent)
        self._installer, self._on_kept = installer, on_kept
        self._cards = models_to_learn_on(installer.catalogue)
        self._table: Path | None = None
        self._model_id = model_id if model_id in self._cards else next(iter(self._cards), "")
        self._method, self._is_running = "logistic", False
        ui = self.ui
        ui.nameEdit.text = _("mine")
        titles = [(card.id, card.title) for card in self._cards.values()]
        self._model_box = ChoiceBox(ui.modelBox, self._choose_model, titles)
        methods = [
            ("logistic", _("a linear map (usual)")),
            ("neighbours", _("the most similar examples")),
            ("concepts", _("concepts in words, whose weights explain")),
        ]
        self._method_box = ChoiceBox(ui.methodBox, self._choose_method, methods)
        self._connect(ui.tableButton, self._choose_table)
        self._connect(ui.startButton, self._start)
        self._connect(ui.installButton, self._install)
        self._connect(ui.stopButton, installer.cancel)
        self._connect(ui.closeButton, self.dialog.close)
        ui.installButton.visible = False
        self._show_state()

    def report(self, error: FoundationSegError) -> None:
        """Show an error, and offer to install packages where they are missing."""
        self._is_running = False
        self.ui.installButton.visible = isinstance(error, PackageError)
        self._say(_("Stopped.") if isinstance(error, Cancelled) else error_text(error))
        self._show_state()

    def close(self) -> None:
        """Take the dialog away for good, and stop what it has under way."""
        if self._is_running:
            self._installer.cancel()
        super().close()

    def _say(self, text: str) -> None:
        self.ui.messageLabel.text = text

    def _show_state(self) -> None:
        ui = self.ui
        self._model_box.show(self._model_id)
        self._method_box.show(self._method)
        ui.startButton.enabled = self._table is not None and not self._is_running
        ui.stopButton.enabled = ui.progressBar.visible = self._is_running
        ui.conceptsLabel.visible = ui.conceptsEdit.visible = self._method == "concepts"
        ui.tableButton.text = self._table.name if self._table is not None else _("Choose…")

    def _choose_model(self, model_id: str) -> None:
        self._model_id = model_id

    def _choose_method(self, method: str) -> None:
        self._method = method
        self._show_state()

    def _choose_table(self) -> None:
        path = qt.QFileDialog.getOpenFileName(self.dialog, _("Table of labelled images"), "", "CSV (*.csv *.tsv)")
        if path:
            self._table = Path(path)
            self._show_state()

    def _start(self) -> None:
        readiness = self._installer.readiness(self._model_id)
        if not readiness.is_ready:
            card = self._cards[self._model_id]
            raise CheckpointError(_("{title} has to be set up first.").format(title=card.title))
        ui, name = self.ui, self.ui.nameEdit.text.strip()
        require_new(name)
        concepts = [line.strip() for line in ui.conceptsEdit.plainText.splitlines() if line.strip()]
        if self._table is None or (self._method == "concepts" and len(concepts) < 2):
            raise InputError(_("choose a table, and write two concepts or more for labels by concepts"))
        request = LearnHeadRequest(
            1,
            self._model_id,
            self._table,
            name,
            self._method,
            "findings" if ui.severalBox.checked else "exclusive",
            concepts=tuple(concepts) if self._method == "concepts" else (),
        )
        self._is_running = True
        ui.progressBar.setRange(0, 0)
        self._say(_("Reading the images"))
        self._installer.learn_head(request, Callbacks(self._finish, self.report, self._progress))
        self._show_state()

    def _progress(self, report: ProgressReport) -> None:
        show_fraction(self.ui.progressBar, report)

    def _finish(self, head: LearnedHead) -> None:
        self._is_running = False
        write_head(head)
        self._say(f"{_('Learned, and chosen in the list of labels.')} {head_text(head)}")
        self._show_state()
        self._on_kept(head.name)

    def _install(self) -> None:
        self._is_running, self.ui.installButton.visible = True, False
        self._say(_("Installing Python packages"))
        self._installer.install_packages(_NEEDED, Callbacks(self._installed, self.report, self._progress))
        self._show_state()

    def _installed(self, _plan: Any) -> None:
        self._is_running = False
        self._say(_("Installed. Press 'Learn' again."))
        self._show_state()


class MonitoringPart(Part):
    """The switch of the counts that stay on this computer, their page, and the button that deletes them."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self._last: Any = None
        self._images: set[tuple[str, str]] = set()  # that were counted since the start
        self._connect(ui.monitoringBox, self._switch)
        self._connect(ui.monitoringPageButton, self._open_page)
        self._connect(ui.monitoringDeleteButton, self._delete)

    def show(self) -> None:
        """Show whether anything is counted, and the buttons where anything is kept."""
        ui, has_any = self._ui, monitoring.has_counts()
        ui.monitoringBox.checked = monitoring.is_counting()
        for button in (ui.monitoringPageButton, ui.monitoringDeleteButton):
            button.setVisible(has_any)

    def note_outcome(self, outcome: Any) -> None:
        """Count a segment that was accepted, at once or after corrections, or rejected."""
        if outcome is self._last or not isinstance(outcome, SegmentEdited):
            return
        self._last = outcome
        if outcome.kind in ("accepted", "rejected") and monitoring.is_counting():
            for state in outcome.states.values():
                if state.choice is not None:
                    prompts = sum(isinstance(step, _PROMPTING) for step in state.steps)
                    accepted: monitoring.Verdict = "corrected" if prompts > 1 or state.hand else "accepted"
                    verdict = accepted if outcome.kind == "accepted" else "rejected"
                    monitoring.count_answer(state.choice.model_id, verdict)

    def count_image(self, question: ClassifyRequest) -> None:
        """Compare the image of a question with earlier ones, once, where it was asked about as a whole."""
        subject, key = question.subject, (question.volume_key, question.model_id)
        is_whole = (subject.start, subject.box, subject.segment) == (None, None, None)
        if not is_whole or key in self._images or not monitoring.is_counting():
            return
        self._images.add(key)

        def take(event: Event) -> None:
            if isinstance(event, Answered):  # without a vector there is nothing to count, and nothing to say
                record, vectors = event.answer.checkpoint, event.answer.vectors
                vector = joined(vectors.astype(float)).tolist()
                monitoring.count_image(f"{record.model_id}@{record.sha256[:8]}", vector)

        request = EmbedRequest(0, question.model_id, question.volume_key, subject, question.intensity)
        self._controller.submit(request, take)

    def _switch(self) -> None:
        monitoring.set_counting(self._ui.monitoringBox.checked)
        self._controller.on_update("choices")

    def _open_page(self) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(monitoring.write_overview())))

    def _delete(self) -> None:
        text = _("Delete all counts of this computer, and the page? Nothing is counted from then on.")
        if slicer.util.confirmOkCancelDisplay(text, _("Delete counts")):
            monitoring.delete_counts()
            self._images.clear()
            self._controller.on_update("choices")
