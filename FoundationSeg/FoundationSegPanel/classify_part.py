"""The tab "Classify": labels in words, scored by a model, with where and why."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.catalog.label_sets import LabelSet, label_set_of, read_label_sets
from FoundationSegLib.desk_actions import has_selected, selected, stop
from FoundationSegLib.errors import Cancelled, FoundationSegError, InputError
from FoundationSegLib.mrml.classification import accept_label, add_evidence_segment, show_classification, show_evidence
from FoundationSegLib.mrml.volumes import box_of_roi
from FoundationSegLib.requests.classification import ClassifyRequest, EvidenceWish, Subject
from FoundationSegLib.requests.classification_answer import NONE_OF_THESE, RESEARCH_USE, Classification
from FoundationSegLib.requests.scoring import parse_aggregation
from FoundationSegLib.worker.protocol import Answered, Event, Failed, Progressed

from .choices import ChoiceBox
from .slots import slot

if TYPE_CHECKING:
    from .panel import Panel

OWN_LABELS = "own"
_TAB = 1  # the place of this tab


class ClassifyPart:
    """The tab, and the answer that it shows."""

    def __init__(self, panel: "Panel") -> None:
        self._panel, self._ui = panel, panel.ui
        self._cards = panel.logic.runnableCards("classify")
        self._answer: Classification | None = None
        self._labels: LabelSet | None = None
        self._wish: EvidenceWish | None = None
        self._volume_node: Any = None  # what the answer is about
        self._may_ask = False
        ui = self._ui
        ui.researchLabel.setText(f"<small>{RESEARCH_USE}</small>")
        self._model = ChoiceBox(ui.classifyModelBox, self._model_chosen)
        self._model.fill([(card.id, card.title) for card in self._cards.values()])
        self._set = ChoiceBox(ui.labelSetBox, self._set_chosen)
        self._subject = ChoiceBox(ui.subjectBox, self._subject_chosen)
        self._looks = ChoiceBox(ui.looksBox, self._looks_chosen)
        self._aggregation = ChoiceBox(ui.aggregationBox, self._aggregation_chosen)
        self._evidence = ChoiceBox(ui.evidenceBox, self._evidence_chosen)
        self._fill()
        ui.scoresTable.setColumnCount(4)
        ui.scoresTable.setHorizontalHeaderLabels([_("Label"), _("Score"), _("Spread"), _("Stands out")])
        ui.scoresTable.horizontalHeader().setStretchLastSection(True)
        ui.scoresTable.verticalHeader().setVisible(False)
        ui.scoresTable.connect("itemSelectionChanged()", self._show_actions)
        ui.tabs.connect("currentChanged(int)", self._tab_changed)
        ui.ownLabelsEdit.connect("textChanged()", self._labels_edited)
        ui.classifyReadyButton.connect("clicked()", self._set_up)
        ui.classifyButton.connect("clicked()", self._classify)
        ui.classifyCancelButton.connect("clicked()", self._cancel)
        ui.keepButton.connect("clicked()", self._keep)
        ui.whereButton.connect("clicked()", self._where)
        ui.nameButton.connect("clicked()", self._name)

    def tell(self, error: FoundationSegError) -> None:
        """Show an error until something else is asked."""
        if not isinstance(error, Cancelled):
            self._say(str(error))

    def show(self) -> None:
        """Show the choices, and whether they make a question."""
        wanted, ui = self._panel.parameters, self._ui
        if wanted.volume is not self._volume_node:
            self._forget(wanted.volume)
        if ui.tabs.currentIndex != _TAB:
            return  # what is behind the other tab is shown when it comes to the front
        card_id = self._card_id()
        self._model.show(card_id)
        own = (OWN_LABELS, _("Own labels"))
        self._set.fill([*((one.id, one.title) for one in self._sets.values()), own])
        self._set.show(wanted.labelSet)
        self._subject.show(wanted.subject)
        self._looks.show(wanted.looks)
        self._aggregation.show(wanted.aggregation)
        self._evidence.show(wanted.evidence)
        is_own = wanted.labelSet == OWN_LABELS
        for widget in (ui.ownLabelsLabel, ui.ownLabelsEdit):
            widget.setVisible(is_own)
        if ui.ownLabelsEdit.plainText != wanted.ownLabels:
            ui.ownLabelsEdit.setPlainText(wanted.ownLabels)
        for widget in (ui.classifyRangeLabel, ui.classifyFromBox, ui.classifyToLabel, ui.classifyToBox):
            widget.setVisible(wanted.subject == "range")
        ui.aggregationBox.setEnabled(wanted.subject != "slice")
        is_ready = bool(card_id) and self._panel.model.desk.readiness(card_id).is_ready
        ui.classifyReadyButton.setVisible(bool(card_id) and not is_ready)
        self._may_ask = is_ready and wanted.volume is not None
        self.show_busy()
        self._show_actions()

    def show_busy(self) -> None:
        """Show whether something is under way, by whomever it was asked."""
        is_busy = self._panel.desk.is_busy
        self._ui.classifyButton.setEnabled(self._may_ask and not is_busy)
        self._ui.whereButton.setEnabled(self._answer is not None and not is_busy)
        self._show_progress()

    def _forget(self, volume_node: Any) -> None:
        """Another image is worked on: scores of the last one are not to be kept, shown or named on it."""
        self._volume_node, self._answer, self._labels = volume_node, None, None
        self._ui.scoresTable.setRowCount(0)
        self._say("")

    def _fill(self) -> None:
        self._subject.fill(
            (
                ("slice", _("The slice in view")),
                ("range", _("A range of slices")),
                ("volume", _("The whole image")),
                ("roi", _("The region of interest")),
                ("segment", _("The selected segment")),
            )
        )
        self._looks.fill(
            (
                ("auto", _("Automatic")),
                ("ct-windows", _("Several CT windows")),
                ("ct-soft-tissue", _("CT, soft tissue")),
                ("ct-lung", _("CT, lung")),
                ("ct-bone", _("CT, bone")),
                ("percentile", _("Percentiles (0.5 to 99.5)")),
                ("display", _("As displayed")),
            )
        )
        self._aggregation.fill((("mean", _("Mean")), ("max", _("Highest")), ("top-5", _("Mean of the highest five"))))
        self._evidence.fill((("similarity", _("by similar parts (fast)")), ("occlusion", _("by covering (slow)"))))

    def _card_id(self) -> str:
        wanted = self._panel.parameters.classifyModelId
        return wanted if wanted in self._cards else next(iter(self._cards), "")

    def _label_set(self) -> LabelSet:
        wanted = self._panel.parameters
        if wanted.labelSet in self._sets:
            return self._sets[wanted.labelSet]
        return label_set_of([line for line in wanted.ownLabels.splitlines() if line.strip()])

    def _what(self) -> Subject:
        """What is to be classified, as a value.

        Raises:
            InputError: there is no such part.
        """
        panel, wanted = self._panel, self._panel.parameters
        if wanted.subject == "slice":
            return panel.tools.slice_in_view(wanted.volume)
        if wanted.subject == "range":
            return Subject(
                "k", min(wanted.classifyFrom, wanted.classifyTo), max(wanted.classifyFrom, wanted.classifyTo) + 1
            )
        if wanted.subject == "roi":
            if wanted.roi is None:
                raise InputError(_("choose a region of interest under 'Segment', 'Advanced' first"))
            return Subject(box=box_of_roi(wanted.roi, wanted.volume))
        if wanted.subject == "segment":
            segment = selected(panel.desk)
            return Subject(segment=segment.session.mask(segment.segment_id))
        return Subject()

    def _ask(self, wish: EvidenceWish | None) -> None:
        wanted, desk = self._panel.parameters, self._panel.desk
        labels, subject, volume = self._label_set(), self._what(), desk.image()
        self._say("")
        self._labels, self._wish = labels, wish
        aggregation = parse_aggregation(wanted.aggregation)
        desk.ask(
            lambda number: ClassifyRequest(
                number,
                self._card_id(),
                volume.key,
                labels,
                subject,
                wanted.looks,
                aggregation=aggregation,
                evidence=wish,
            ),
            self._take,
        )
        self.show()

    def _take(self, event: Event) -> None:
        """What comes of the question."""
        if isinstance(event, Progressed):
            self._show_progress()
            report = event.report
            self._ui.classifyProgressBar.setRange(0, report.total)
            self._ui.classifyProgressBar.setValue(report.done)
            return
        if isinstance(event, Failed):
            self.tell(event.error)
        elif isinstance(event, Answered) and isinstance(event.answer, Classification):
            self._answer = event.answer
            self._show_answer()
            if self._wish is not None:
                self._show_evidence()
        self._wish = None
        self.show()

    def _show_progress(self) -> None:
        self._ui.classifyProgressRow.setVisible(self._panel.desk.is_busy)

    def _show_answer(self) -> None:
        answer, ui = self._answer, self._ui
        if answer is None:
            return
        verdict = ", ".join(answer.verdict) or NONE_OF_THESE
        notes = "".join(f"<br><small>{note}</small>" for note in answer.notes)
        ui.verdictLabel.setText(
            _("<b>{verdict}</b> (slices: {count})").format(verdict=verdict, count=len(answer.slices)) + notes
        )
        ui.scoresTable.setRowCount(len(answer.ranked))
        for row, one in enumerate(answer.ranked):
            cells = (one.name, f"{one.score:.3f}", f"{one.spread:.3f}", _("yes") if one.stands_out else "")
            for column, text in enumerate(cells):
                ui.scoresTable.setItem(row, column, qt.QTableWidgetItem(text))
        ui.scoresTable.selectRow(0)

    def _show_actions(self) -> None:
        ui, has_answer = self._ui, self._answer is not None
        ui.keepButton.setEnabled(has_answer)
        ui.whereButton.setEnabled(has_answer and not self._panel.desk.is_busy)
        ui.nameButton.setEnabled(has_answer and has_selected(self._panel.desk))
        ui.verdictLabel.setVisible(has_answer)

    def _label(self) -> str:
        rows = [index.row() for index in self._ui.scoresTable.selectionModel().selectedRows()]
        if self._answer is None or not rows:
            raise InputError(_("select a label in the table first"))
        return self._answer.ranked[rows[0]].name

    def _show_evidence(self) -> None:
        answer, panel = self._answer, self._panel
        if answer is None or not answer.evidence:
            self._say(_("The model shows nothing that speaks for this label."))
            return
        panel.ensure_segmentation()
        panel.follow()
        panel.desk.require_own()
        volume_node = panel.desk.volume_node
        for one in answer.evidence:
            overlay = show_evidence(slicer.mrmlScene, one, answer, volume_node)
            add_evidence_segment(panel.desk.segmentation_node, one, answer, volume_node)
            slicer.util.setSliceViewerLayers(foreground=overlay, foregroundOpacity=0.5)

    def _say(self, text: str) -> None:
        self._ui.classifyMessageLabel.setText(text)
        self._ui.classifyMessageLabel.setVisible(bool(text))

    @cached_property
    def _sets(self) -> Mapping[str, LabelSet]:
        """All label sets by their ids, read when the tab is shown first."""
        return read_label_sets()

    @slot
    def _tab_changed(self) -> None:
        if self._panel.parameters is not None:
            self.show()

    @slot
    def _classify(self) -> None:
        self._ask(None)

    @slot
    def _cancel(self) -> None:
        stop(self._panel.desk)

    @slot
    def _keep(self) -> None:
        if self._answer is None:
            return
        nodes = show_classification(slicer.mrmlScene, self._answer, self._panel.desk.volume_node)
        chart = nodes.curves if nodes.curves is not None else nodes.bars
        if slicer.app.layoutManager() is not None:
            slicer.modules.plots.logic().ShowChartInLayout(chart)

    @slot
    def _where(self) -> None:
        self._ask(EvidenceWish(self._label(), self._panel.parameters.evidence))

    @slot
    def _name(self) -> None:
        label, answer, panel = self._label(), self._answer, self._panel
        segment = panel.desk.segmentation_node.GetSegmentation().GetSegment(panel.desk.segment_id)
        if segment is None or self._labels is None or answer is None:
            raise InputError(_("select a segment first"))
        accept_label(segment, self._labels.label(label), answer)

    @slot
    def _set_up(self) -> None:
        self._panel.model.set_up_model(self._card_id())

    @slot
    def _labels_edited(self) -> None:
        if self._panel.parameters is not None:
            self._panel.parameters.ownLabels = self._ui.ownLabelsEdit.plainText

    @slot
    def _model_chosen(self, model_id: str) -> None:
        self._panel.parameters.classifyModelId = model_id

    @slot
    def _set_chosen(self, label_set: str) -> None:
        self._panel.parameters.labelSet = label_set

    @slot
    def _subject_chosen(self, subject: str) -> None:
        wanted = self._panel.parameters
        if subject == "range" and not wanted.classifyTo:
            wanted.classifyTo = self._panel.image.last_slice()
        wanted.subject = subject

    @slot
    def _looks_chosen(self, looks: str) -> None:
        self._panel.parameters.looks = looks

    @slot
    def _aggregation_chosen(self, aggregation: str) -> None:
        self._panel.parameters.aggregation = aggregation

    @slot
    def _evidence_chosen(self, method: str) -> None:
        self._panel.parameters.evidence = method
